// A daemon without a protocol: carries each packet of its TUN, vnet header and all, to the one at the other end of the wire, cut into equal pieces
// that go as one GSO run. usage: node pump.js JSON, see PumpOptions. Says `ready JSON` and, when its stdin ends, `done JSON`.

import { LinkSetup } from '../../daemon/link.js'
import { NativeTun, type TunOptions } from '../../daemon/tun.js'
import { NativeUdp, type UdpOptions } from '../../daemon/udp.js'
import { encodeLocator, type Locator } from '../../lib/path/locator.js'
import { datagramBatch, DATAGRAM_WORDS, frameRuns, packetBatch, PACKET_WORDS, RUN_WORDS } from '../../lib/wire/batch.js'

export interface PumpOptions {
  readonly tun: TunOptions
  readonly udp: UdpOptions
  readonly remote: Locator
  readonly self: readonly string[]
  readonly routes: readonly string[]
  readonly pools: readonly string[]
}
export interface PumpReady {
  readonly offloads: { readonly vnetHeader: boolean; readonly tso: boolean; readonly uso: boolean }
  readonly warnings: readonly string[]
}
export interface PumpDone {
  /** Largest packet read from the TUN and largest buffer received, bytes. */
  readonly largestRead: number
  readonly largestReceived: number
  readonly gso: boolean
  readonly notSent: number
  readonly notWritten: number
}

/** Packet number 2, piece 1, pieces 1, length of the packet 4. */
const PIECE_HEADER = 8
const PIECE = 1400
const PIECES_A_RUN = 46

const options: PumpOptions = JSON.parse(process.argv[2]!)
const tun = new NativeTun(options.tun)
const udp = new NativeUdp(options.udp)
const link = new LinkSetup({ ...options, tun: tun.name, mtu: tun.mtu, local: [] })
const report = await link.setup()

const packets = packetBatch(1 << 19, 64)
const runs = frameRuns(1 << 20, 256)
const datagrams = datagramBatch(8)
const written = packetBatch(1 << 21, 1024)
const address = encodeLocator(options.remote)
const stats = { largestRead: 0, largestReceived: 0, notSent: 0, notWritten: 0 }
let number = 0

function outbound(): void {
  tun.readBatch(packets)
  runs.count = 0
  runs.used = 0
  const view = new DataView(runs.data.buffer)
  for (let i = 0; i < packets.count; i++) {
    const from = packets.desc[i * PACKET_WORDS]!
    const length = packets.desc[i * PACKET_WORDS + 1]!
    stats.largestRead = Math.max(stats.largestRead, length)
    number = (number + 1) & 0xffff
    const room = PIECE - PIECE_HEADER
    const pieces = Math.ceil(length / room)
    for (let piece = 0; piece < pieces; piece++) {
      const size = Math.min(room, length - piece * room)
      view.setUint16(runs.used, number)
      view.setUint8(runs.used + 2, piece)
      view.setUint8(runs.used + 3, pieces)
      view.setUint32(runs.used + 4, length)
      const at = from + piece * room
      runs.data.set(packets.data.subarray(at, at + size), runs.used + PIECE_HEADER)
      if (piece % PIECES_A_RUN === 0) {
        runs.desc.set([runs.used, 0, PIECE, 0, 0, 0], runs.count * RUN_WORDS)
        runs.count++
      }
      runs.desc[(runs.count - 1) * RUN_WORDS + 1]! += PIECE_HEADER + size
      runs.used += PIECE_HEADER + size
    }
  }
  stats.notSent += udp.sendBatch(runs, address).failed
}

let pending = { number: -1, next: 0 }
function piece(at: number, length: number): void {
  const { view, data } = datagrams
  const id = view.getUint16(at)
  const index = view.getUint8(at + 2)
  if (index === 0) pending = { number: id, next: 0 }
  if (pending.number !== id || pending.next !== index) return
  pending.next++
  const total = view.getUint32(at + 4)
  const to = ((written.used + 1) & ~3) + 2
  written.data.set(data.subarray(at + PIECE_HEADER, at + length), to + index * (PIECE - PIECE_HEADER))
  if (pending.next < view.getUint8(at + 3)) return
  written.desc[written.count * PACKET_WORDS] = to
  written.desc[written.count * PACKET_WORDS + 1] = total
  written.count++
  written.used = to + total
  if (written.used > written.data.length - 70_000 || written.count === 1024) flush()
}
function flush(): void {
  stats.notWritten += written.count - tun.writeBatch(written)
  written.count = 0
  written.used = 0
}

function inbound(): void {
  udp.recvBatch(datagrams)
  for (let i = 0; i < datagrams.count; i++) {
    const from = datagrams.desc[i * DATAGRAM_WORDS]!
    const length = datagrams.desc[i * DATAGRAM_WORDS + 1]!
    const segment = datagrams.desc[i * DATAGRAM_WORDS + 2]! || length
    stats.largestReceived = Math.max(stats.largestReceived, length)
    for (let at = 0; at < length; at += segment) piece(from + at, Math.min(segment, length - at))
  }
  // A packet whose last pieces are still to come stays where it is.
  if (written.count > 0) {
    const open = written.used
    flush()
    if (pending.next > 0) written.data.copyWithin(2, ((open + 1) & ~3) + 2, ((open + 1) & ~3) + 2 + 66_000)
  }
}

tun.onReadable(outbound)
udp.onReadable(inbound)
const ready: PumpReady = { offloads: tun.offloads, warnings: report.warnings }
console.log(`ready ${JSON.stringify(ready)}`)
process.stdin.resume()
process.stdin.once('end', () => {
  const done: PumpDone = { ...stats, gso: udp.gso }
  tun.close()
  udp.close()
  void link.teardown().then(() => console.log(`done ${JSON.stringify(done)}`))
})
