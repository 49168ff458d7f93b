import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { statusShape } from '../../daemon/control/shapes.js'
import { runInside } from '../../cli/lab/holder.js'
import { collect, Lab } from '../../cli/lab/lab.js'
import { UDP_PORT } from '../../lib/wire/constants.js'
import { joinByLinks } from '../net/emulator/lab-links.js'
import type { EmulatedLink, LinkOptions, LinkReport } from '../net/emulator/link.js'
import type { Driven, DriveOptions } from './soak-end.js'

export interface SoakOptions extends Pick<DriveOptions, 'bytes' | 'seconds'> {
  /** So many ports for the client's connections, which are then used again the sooner; otherwise the kernel's own range. */
  readonly ports?: number
}

export interface SoakReport extends Driven {
  /** Resident bytes of the daemons, client's first. */
  readonly memory: { readonly start: readonly number[]; readonly end: readonly number[] }
  /** By reason, in all and meanwhile. */
  readonly drops: readonly Readonly<Record<string, number>>[]
  readonly dropped: readonly Readonly<Record<string, number>>[]
  /** Frames meanwhile that found the daemon's own UDP socket full. */
  readonly overrun: readonly number[]
  /** Frames meanwhile that the link between the hosts lost, doubled or reordered: an emulated one, or the virtual switch. */
  readonly linkFaults: number
  /** What the programs' kernels counted meanwhile: TCP segments sent, sent again and why, resets, SYNs that met an older connection, packets that found the TUN's queue full. */
  readonly kernel: readonly Readonly<Record<string, number>>[]
}

const KERNEL_COUNTERS = [
  'Udp:RcvbufErrors',
  'Udp6RcvbufErrors',
  'Tcp:OutSegs',
  'Tcp:RetransSegs',
  'Tcp:OutRsts',
  'TcpExt:TCPTimeouts',
  'TcpExt:TCPSynRetrans',
  'TcpExt:TCPLossProbes',
  'TcpExt:TCPLossProbeRecovery',
  'TcpExt:TCPFastRetrans',
  'TcpExt:TCPSlowStartRetrans',
  'TcpExt:TCPLostRetransmit',
  'TcpExt:TCPDSACKRecv',
  'TcpExt:TCPSYNChallenge',
  'TcpExt:PAWSTimewait',
  'TcpExt:PruneCalled',
  'TcpExt:RcvPruned',
  'TcpExt:TCPBacklogDrop',
  'TcpExt:TCPRcvQDrop',
] as const
const PORT_FIRST = 32_768
const dropsShape = z.object({ dropped: z.number() })
const linkShape = z.array(z.object({ ifname: z.string(), stats64: z.object({ tx: dropsShape, rx: dropsShape }) }))

const PORT = 9_100
export const SOAK_HOSTS = ['h1', 'h2'] as const
const end = fileURLToPath(new URL('soak-end.js', import.meta.url))

/** Two hosts that are joined by an emulated link. Take the lab down first, then close the link. */
export async function linkedLab(directory: string, options: LinkOptions): Promise<{ lab: Lab; link: EmulatedLink }> {
  const links: EmulatedLink[] = []
  const join = async (lab: Lab) => void links.push(...(await joinByLinks(lab, options)))
  const lab = await Lab.up(SOAK_HOSTS, { directory, subnet: '10.78.0', join })
  return { lab, link: links[0]! }
}

/** Everything at once between two hosts of a lab: streams, short connections and datagrams of both families. `link`: the emulated one that joins them. */
export async function soak(lab: Lab, { ports, ...options }: SoakOptions, link?: EmulatedLink): Promise<SoakReport> {
  const linkFaults = async () => (link === undefined ? switchLost(lab) : faultsOf(await link.report()))
  const status = async (host: string) => statusShape.parse(JSON.parse(await lab.caracal(host, 'status', '--json')))
  const resident = async (host: string) => {
    const text = readFileSync(`/proc/${(await status(host)).pid}/status`, 'utf8')
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1])
  }
  const both = <T>(of: (host: string) => Promise<T>) => Promise.all(SOAK_HOSTS.map(of))
  const server = lab.spawn('h2', [process.execPath, end, 'serve', String(PORT)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await new Promise<void>((resolve, reject) => {
      server.stdout?.once('data', () => resolve())
      server.once('exit', () => reject(new Error('the server has ended')))
    })
    await lab.caracal('h2', 'expose', 'soak', '--tcp', String(PORT), '--udp', String(PORT))
    while (!(await lab.caracal('h1', 'services', '--json')).includes('"up"'))
      await new Promise((resolve) => setTimeout(resolve, 100))
    if (ports !== undefined)
      lab.script('h1', `sysctl -qw net.ipv4.ip_local_port_range='${PORT_FIRST} ${PORT_FIRST + ports - 1}'`)
    const start = await both(resident)
    const counted = SOAK_HOSTS.map((host) => kernelCounters(lab, host))
    const first = await both(status)
    const overrun = SOAK_HOSTS.map((host) => overrunOf(lab, host))
    const faults = await linkFaults()
    const zone = lab.host('h1').zone ?? 'svc.internal'
    const drive: DriveOptions = { ...options, name: `soak.${zone}`, port: PORT, streamBytes: 16_000_000 }
    const client = lab.spawn('h1', [process.execPath, end, 'drive', JSON.stringify(drive)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const { code, out, err } = await collect(client)
    const line = out.split('\n').find((one) => one.startsWith('driven '))
    if (code !== 0 || line === undefined) throw new Error(`the client ended with ${code}: ${err}`)
    const driven: Driven = JSON.parse(line.slice('driven '.length))
    const last = await both(status)
    const some = (counts: readonly (readonly [string, number])[]) =>
      Object.fromEntries(counts.filter(([, count]) => count > 0))
    const drops = last.map((one) => some(Object.entries(one.drops)))
    const dropped = last.map((one, i) =>
      some(Object.entries(one.drops).map(([reason, n]) => [reason, n - (first[i]!.drops[reason] ?? 0)])),
    )
    const kernel = SOAK_HOSTS.map((host, i) => {
      const now = kernelCounters(lab, host)
      return Object.fromEntries(Object.entries(now).map(([name, count]) => [name, count - (counted[i]![name] ?? 0)]))
    })
    return {
      ...driven,
      memory: { start, end: await both(resident) },
      ...{ drops, dropped, kernel },
      overrun: SOAK_HOSTS.map((host, i) => overrunOf(lab, host) - overrun[i]!),
      linkFaults: (await linkFaults()) - faults,
    }
  } finally {
    server.kill('SIGKILL')
  }
}

function faultsOf({ ab, ba, unread }: LinkReport): number {
  const ways = [ab, ba].flatMap(({ lost, duplicated, reordered, overflowed }) => [
    lost,
    duplicated,
    reordered,
    overflowed,
  ])
  return [...ways, unread.a, unread.b].reduce((total, count) => total + count, 0)
}

/** Of the host's network namespace, by name. */
function kernelCounters(lab: Lab, host: string): Record<string, number> {
  const all = new Map<string, number>()
  const lines = lab.script(host, 'cat /proc/net/snmp /proc/net/netstat').trimEnd().split('\n')
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [group, ...names] = lines[i]!.split(' ')
    const values = lines[i + 1]!.split(' ').slice(1)
    names.forEach((name, j) => all.set(group! + name, Number(values[j])))
  }
  for (const line of lab.script(host, 'cat /proc/net/snmp6 || :').split('\n')) {
    const [name = '', value] = line.split(/\s+/)
    all.set(name, Number(value))
  }
  const tun = linksOf(lab.script(host, LINKS)).find(({ ifname }) => ifname === 'caracal0')
  const dropped = tun?.stats64.tx.dropped ?? 0
  return { ...Object.fromEntries(KERNEL_COUNTERS.map((name) => [name, all.get(name) ?? 0])), 'TUN:tx_dropped': dropped }
}

const LINKS = 'ip -j -s link'
const linksOf = (text: string) => linkShape.parse(JSON.parse(text))

/** Frames that found the daemon's UDP sockets full. */
function overrunOf(lab: Lab, host: string): number {
  const lines = lab.script(host, 'cat /proc/net/udp /proc/net/udp6').split('\n')
  const port = `:${UDP_PORT.toString(16).toUpperCase().padStart(4, '0')}`
  const ours = lines.map((line) => line.trim().split(/\s+/)).filter((words) => words[1]?.endsWith(port))
  return ours.reduce((sum, words) => sum + Number(words.at(-1)), 0)
}

/** Frames that the devices between the two daemons have dropped. */
function switchLost(lab: Lab): number {
  const devices = [
    ...linksOf(runInside(lab.switchHolder, LINKS)).filter(({ ifname }) => /^p\d/.test(ifname)),
    ...SOAK_HOSTS.flatMap((host) => linksOf(lab.script(host, LINKS)).filter(({ ifname }) => ifname.startsWith('eth'))),
  ]
  return devices.reduce((sum, { stats64: { tx, rx } }) => sum + tx.dropped + rx.dropped, 0)
}
