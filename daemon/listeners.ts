import { closeSync, openSync, readSync } from 'node:fs'
import { systemCode } from './errors.js'
import { native } from './native.js'

/** A socket that takes connections or datagrams, as the kernel lists it. */
export interface Listener {
  readonly protocol: 'tcp' | 'udp'
  readonly family: 4 | 6
  /** Network order, 4 or 16 bytes. An IPv4 address that is bound through an IPv6 socket (`::ffff:127.0.0.1`) is shown as IPv4. */
  readonly address: Uint8Array
  readonly port: number
}

const LISTEN = '0A'
const BUFFER = 65_536
const FILE_MAX = 4 * 1024 * 1024
const tables = [
  ['tcp', 4],
  ['tcp6', 6],
  ['udp', 4],
  ['udp6', 6],
] as const
const LINE = /^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]{2})/

/** As `listeningSockets` writes them. */
const RECORD = 18
const records = new Uint8Array(4_096 * RECORD)

/**
 * What listens on this host, in this network namespace. Nothing is contacted, so servers see no probes. Throws what the system says when it cannot be told.
 *
 * @param protocols that are looked for; the kernel walks all sockets of each
 * @param folder of the kernel's tables; left out, the kernel is asked directly, which is faster by far, and the tables are for what it does not answer
 */
export function readListeners(protocols: ReadonlySet<Listener['protocol']>, folder?: string): Listener[] {
  const listeners: Listener[] = []
  for (const [name, family] of tables) {
    const protocol = name.startsWith('tcp') ? 'tcp' : 'udp'
    if (!protocols.has(protocol)) continue
    if (folder === undefined && askKernel(protocol, family, listeners)) continue
    readTable(`${folder ?? '/proc/self/net'}/${name}`, protocol, family, listeners)
  }
  return listeners
}

/** false: the kernel is built without sock_diag for this protocol, or there are more than it is asked for. */
function askKernel(protocol: 'tcp' | 'udp', family: 4 | 6, into: Listener[]): boolean {
  let count: number
  try {
    count = native().listeningSockets(protocol === 'udp', family === 6, records)
  } catch {
    return false
  }
  if ((count + 1) * RECORD > records.length) return false
  for (let at = 0; at < count * RECORD; at += RECORD) {
    const address = records.slice(at + 2, at + 2 + (family === 4 ? 4 : 16))
    into.push({ protocol, ...unmapped(family, address), port: records[at]! * 256 + records[at + 1]! })
  }
  return true
}

/** The kernel lists listening TCP sockets before all others, so the connections of a busy host are not read. */
function readTable(path: string, protocol: 'tcp' | 'udp', family: 4 | 6, into: Listener[]): void {
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return // a kernel without IPv6
    throw error
  }
  try {
    const buffer = Buffer.allocUnsafe(BUFFER)
    let rest = ''
    for (let total = 0; total < FILE_MAX;) {
      const length = readSync(file, buffer, 0, BUFFER, null)
      if (length === 0) return
      total += length
      const lines = (rest + buffer.toString('latin1', 0, length)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const match = LINE.exec(line)
        if (match === null) continue
        if (protocol === 'tcp' && match[5] !== LISTEN) return
        // A connected UDP socket hears its peer only.
        if (protocol === 'udp' && Number.parseInt(match[4]!, 16) !== 0) continue
        if (match[1]!.length !== (family === 4 ? 8 : 32)) continue
        into.push({ protocol, ...unmapped(family, addressOf(match[1]!)), port: Number.parseInt(match[2]!, 16) })
      }
    }
  } finally {
    closeSync(file)
  }
}

/** The kernel prints addresses as 32-bit words of its own byte order. */
function addressOf(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length / 2)
  for (let i = 0; i < bytes.length; i++) {
    const at = (i & ~3) + (littleEndian ? 3 - (i & 3) : i & 3)
    bytes[i] = Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16)
  }
  return bytes
}

/** An IPv4 address inside an IPv6 one (RFC 4291 section 2.5.5.2), as programs bind it that know IPv6 sockets only. */
function unmapped(family: 4 | 6, address: Uint8Array): Pick<Listener, 'family' | 'address'> {
  const mapped = family === 6 && address.subarray(0, 12).every((byte, i) => byte === (i < 10 ? 0 : 0xff))
  return mapped ? { family: 4, address: address.slice(12) } : { family, address }
}

const littleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1

export type Reach = 'any' | 'loopback' | 'own' | 'link'

/** Whom the listener hears: any address of its family, loopback only, the one address it is bound to, or a link of its own (multicast, link-local). */
export function reachOf({ address, family }: Listener): Reach {
  if (address.every((byte) => byte === 0)) return 'any'
  if (address[0]! >= (family === 4 ? 224 : 0xff)) return 'link'
  if (family === 6 && address[0] === 0xfe && (address[1]! & 0xc0) === 0x80) return 'link'
  if (family === 4) return address[0] === 127 ? 'loopback' : 'own'
  return address.every((byte, i) => byte === (i === 15 ? 1 : 0)) ? 'loopback' : 'own'
}
