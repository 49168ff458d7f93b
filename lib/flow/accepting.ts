// The acceptor's side: an OPEN becomes a flow towards a server here. The same OPEN twice is the same flow; the server's first answer carries our flow
// ID back (ACCEPT), and so does each one after it until the initiator has used that ID.

import { SELF } from '../path/peers.js'
import { INNER_HEADER, Protocol, SERVICE_ID_LENGTH } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { serviceId, type ServiceId } from '../wire/ids.js'
import { innerProtocol } from '../wire/inner.js'
import { namesService, NotHereCode, OpenFrame, readOpen } from '../wire/open.js'
import type { ParsedPacket } from '../wire/packet.js'
import { TcpFlag, TCP_WIRE_HEADER } from '../wire/tcp.js'
import type { LocalEndpoint } from './environment.js'
import { seconds, type FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, Row } from './flow-table.js'
import type { FrameSender } from './frame-sender.js'
import { takeSegment } from './segment.js'
import { trackOut } from './tcp-track.js'

const PORT_TRIES = 64
/** A server may ask whether a client's port is one that only root may use. */
const PRIVILEGED = 1024
const PRIVILEGED_FIRST = 512

export class Accepting {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #open = new OpenFrame()
  /** Numbers of services that were opened here, by the last word of their IDs, which is a hash. */
  readonly #served = new Map<number, number>()
  /** Of the last OPEN that {@link open} took: where its first segment begins. */
  segmentOffset = 0

  constructor(core: FlowCore, sender: FrameSender) {
    this.#core = core
    this.#sender = sender
  }

  /**
   * Takes the OPEN whose inner header stands at `at`. Returns the flow's row, to which the packet at `segmentOffset` is to be delivered; or -1: the initiator has
   * been told why not, and the frame is counted.
   */
  open(data: Uint8Array, view: DataView, at: number, length: number, peer: number, now: number): number {
    const { table, env, options } = this.#core
    const open = this.#open
    if (readOpen(data, view, at + INNER_HEADER, length - INNER_HEADER, open) !== 'ok' || open.generation === 0) {
      this.#core.drop('bad-frame')
      return -1
    }
    this.segmentOffset = open.segmentOffset
    const protocol = innerProtocol(data, at)
    const known = table.findRemote(peer, open.slot, open.generation)
    if (known >= 0) return this.#repeated(known, protocol, now)
    if (!isFirst(data, open.segmentOffset, at + length, protocol)) {
      this.#core.drop('bad-frame')
      return -1
    }
    const service = namesService(open) ? this.#service(data, view, open.serviceOffset) : undefined
    const endpoint = env.localEndpoint(peer, service, protocol, open.dialledPort, now)
    if (typeof endpoint === 'string') return this.#refuse(peer, open, endpoint)
    if ('notHere' in endpoint) return this.#refuse(peer, open, endpoint.notHere, endpoint.hint)
    // One peer must leave room for the others.
    if (peer !== SELF && this.#core.accepted(peer) >= options.acceptedShare * table.capacity)
      return this.#refuse(peer, open, 'flow-table-full')
    if (this.#core.halfOpen(peer) >= options.halfOpenPerPeer) return this.#refuse(peer, open, 'flow-table-full')
    const remote = env.addresses.peer(env.peers.hostId(peer), endpoint.family)
    const clientPort = this.#clientPort(endpoint, remote, protocol, open.clientPort)
    const row = clientPort < 0 ? -1 : this.#core.allocate(FlowState.free, now)
    if (row < 0) return this.#refuse(peer, open, 'flow-table-full')
    table.link(row, endpoint.family, protocol, endpoint.address, remote, endpoint.port, clientPort)
    table.flag(row, FlowFlag.acceptor)
    this.#core.begun(row)
    this.#core.bind(row, peer, service)
    table.set(row, Row.remoteSlot, open.slot)
    table.set(row, Row.remoteGeneration, open.generation)
    if (service !== undefined) this.#served.set(serviceKey(view, open.serviceOffset), table.get(row, Row.service))
    table.set(row, Row.dialled, (open.dialledPort << 16) | open.clientPort)
    table.set(row, Row.since, seconds(now))
    table.set(row, Row.lastIn, seconds(now))
    table.set(row, Row.confirmed, seconds(now))
    this.#core.countAccepted(peer)
    if (protocol === Protocol.tcp) table.set(row, Row.initial, view.getInt32(open.segmentOffset))
    table.linkRemote(row)
    this.#core.setState(row, FlowState.halfOpen)
    this.#core.counters.accepted++
    return row
  }

  /** A packet of the server to a flow whose initiator does not yet use our flow ID. Consumed. */
  answer(row: number, data: Uint8Array, view: DataView, packet: ParsedPacket, now: number): void {
    const { table } = this.#core
    const half = table.get(row, Row.state) === FlowState.halfOpen
    if (packet.protocol === Protocol.tcp) {
      if (half && (packet.tcpFlags & TcpFlag.rst) !== 0) {
        this.refused(row)
        return
      }
      const length = packet.end - packet.payloadOffset
      if (trackOut(table, row, view, packet.wireOffset, packet.tcpFlags, length)) this.#core.ended(row)
    }
    if (half) this.#core.setState(row, FlowState.established)
    table.set(row, Row.lastOut, seconds(now))
    this.#sender.accept(row, takeSegment(data, view, packet), now)
  }

  /** The server's kernel refused the flow before anything came from the server. */
  refused(row: number): void {
    this.#sender.refuse(
      this.#core.table.get(row, Row.peer),
      this.#core.table.get(row, Row.remoteSlot),
      this.#core.table.get(row, Row.remoteGeneration),
      0,
      NotHereCode.refused,
    )
    this.#core.release(row)
  }

  /** The service ID at `at`, as text that is there already if it can be. */
  #service(data: Uint8Array, view: DataView, at: number): ServiceId {
    const { services } = this.#core
    const number = this.#served.get(serviceKey(view, at))
    if (number !== undefined && isAt(services.bytes(number), data, at)) {
      const known = services.service(number)
      if (known !== undefined) return known
    }
    return serviceId(data.slice(at, at + SERVICE_ID_LENGTH))
  }

  /** An OPEN that was here before: a repeated SYN, which the server's kernel gets again, or another datagram. */
  #repeated(row: number, protocol: number, now: number): number {
    const { table } = this.#core
    const state = table.get(row, Row.state)
    if (protocol !== table.protocol(row)) {
      this.#core.drop('bad-frame')
      return -1
    }
    if (protocol === Protocol.tcp) {
      if (state === FlowState.halfOpen || !table.has(row, FlowFlag.confirmed)) return row
      this.#core.drop('flow-closed')
      return -1
    }
    // The initiator does not know our flow ID yet, and a server that never answers would never tell it.
    this.#sender.accept(row, undefined, now)
    return row
  }

  #refuse(peer: number, open: OpenFrame, reason: DropReason, hint?: Uint8Array): -1 {
    this.#core.drop(reason)
    this.#sender.refuse(peer, open.slot, open.generation, open.attempt, codeOf(reason), hint)
    return -1
  }

  /**
   * The port by which the server sees the client: its own, or when that is taken by another flow to the same server port, a free one. The served address is left out of
   * the comparison, because a UDP server may answer from another one than it was asked at. -1: none found.
   *
   * A port is taken for as long as its last connection is remembered: the server's kernel keeps that one in TIME-WAIT and takes a SYN for its continuation by timestamps and
   * numbers that only make sense when both came from the same address and port of one kernel, which the two need not have (two names of the service, or two families).
   */
  #clientPort(endpoint: LocalEndpoint, remote: Uint8Array, protocol: number, wanted: number): number {
    const { table, counters } = this.#core
    const view = new DataView(remote.buffer, remote.byteOffset, remote.byteLength)
    let over = -1
    let port = wanted
    for (let i = 0; i < PORT_TRIES; i++) {
      const other = table.findAnyLocal(view, 0, endpoint.family, protocol, (endpoint.port << 16) | port)
      if (other < 0) return port
      if (i === 0) counters.clashes++
      if (table.get(other, Row.state) === FlowState.closing) over = other
      port = anyPort(wanted, table.newGeneration())
    }
    if (over < 0) return -1
    // What still comes for it comes by flow ID.
    table.unlinkTuple(over)
    return table.remotePort(over)
  }
}

/** A port of the same kind as `like`. */
function anyPort(like: number, random: number): number {
  const [first, end] = like < PRIVILEGED ? [PRIVILEGED_FIRST, PRIVILEGED] : [PRIVILEGED, 65_536]
  return first + ((random >>> 0) % (end - first))
}

/** Whether the segment may be a flow's first: of TCP only a SYN. */
function isFirst(data: Uint8Array, at: number, end: number, protocol: number): boolean {
  if (protocol === Protocol.udp) return end - at >= 4
  if (protocol === Protocol.icmp) return end - at >= 8 && data[at] === 8
  if (protocol !== Protocol.tcp || end - at < TCP_WIRE_HEADER) return false
  return (data[at + 9]! & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin)) === TcpFlag.syn
}

function serviceKey(view: DataView, at: number): number {
  return view.getInt32(at + SERVICE_ID_LENGTH - 4)
}

function isAt(bytes: Uint8Array, data: Uint8Array, at: number): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== data[at + i]) return false
  return true
}

function codeOf(reason: DropReason): NotHereCode {
  switch (reason) {
    case 'denied':
    case 'revoked':
    case 'not-entitled':
      return NotHereCode.denied
    case 'moved':
      return NotHereCode.moved
    case 'loading':
      return NotHereCode.loading
    case 'flow-table-full':
      return NotHereCode.full
    case 'refused':
      return NotHereCode.refused
    case 'no-instance':
      return NotHereCode.unhealthy
    default:
      return NotHereCode.noService
  }
}
