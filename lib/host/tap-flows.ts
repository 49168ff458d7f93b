// Which flow a packet or a frame is about, for the dump. The flow table answers while the flow is in it; a bounded memory of the flows last shown answers
// for what is still sent about one that has just ended: its CLOSE, the resets to the own kernel, the server's refusal.

import type { Family } from '../flow/environment.js'
import type { FlowEngine } from '../flow/flow-engine.js'
import { formatFlowId } from '../flow/flow-id.js'
import type { FlowSnapshot } from '../flow/flow-snapshot.js'
import { Row } from '../flow/flow-table.js'
import { IcmpErrorPacket, parseIcmpError } from '../flow/icmp-error.js'
import { Protocol } from '../wire/constants.js'
import { toHex, type ServiceId } from '../wire/ids.js'
import { addressLength } from '../wire/ip.js'
import { ParsedPacket, parsePacket } from '../wire/packet.js'
import { TcpFlag } from '../wire/tcp.js'

/** What the dump says of a flow. */
export interface FlowLabel {
  /** Our flow ID, 16 hex digits. */
  readonly flow: string
  /** Peer index; -1: none yet. */
  readonly peer: number
  /** undefined: the host itself. */
  readonly service: ServiceId | undefined
  readonly protocol: FlowSnapshot['protocol']
  readonly localPort: number
  readonly remotePort: number
}

const REMOTE = 16

/** Both ends of an IP packet as flows know them. Owns its bytes. */
export interface PacketEnds {
  readonly family: Family
  /** The local address from 0, the remote one from 16. */
  readonly addresses: Uint8Array
  readonly view: DataView
  /** IP protocol of the packet; 1 for ICMP of both families. */
  readonly protocol: number
  /** IP protocol and ports of the flow, which an ICMP error quotes. Ports -1: not known. Echo: the identifier stands for the client's. */
  readonly flowProtocol: number
  readonly localPort: number
  readonly remotePort: number
  /** May begin a flow: what is remembered of an old one with the same ends says nothing about it. */
  readonly first: boolean
}

const parsed = new ParsedPacket()
const quoted = new IcmpErrorPacket()

/**
 * Reads the packet whose virtio_net_hdr stands at `offset`. 'out': it comes from a local program, else it goes to one. undefined: not a packet
 * that flows carry.
 */
export function packetEnds(
  data: Uint8Array,
  view: DataView,
  offset: number,
  length: number,
  direction: 'in' | 'out',
): PacketEnds | undefined {
  const result = parsePacket(data, view, offset, length, parsed)
  const out = direction === 'out'
  if (result === 'icmp-error') {
    // The quoted packet went the other way.
    if (parseIcmpError(data, view, parsed, quoted) !== 'ok') return undefined
    return ends(data, quoted, out ? quoted.destinationOffset : quoted.sourceOffset, !out, Protocol.icmp, false)
  }
  const local = out ? parsed.sourceOffset : parsed.destinationOffset
  if (result === 'ok') {
    const first = parsed.protocol !== Protocol.tcp || (parsed.tcpFlags & TcpFlag.syn) !== 0
    return ends(data, parsed, local, out, parsed.protocol, first)
  }
  if (result !== 'fragment') return undefined
  const protocol = parsed.protocol === Protocol.icmp6 ? Protocol.icmp : parsed.protocol
  return { ...ends(data, parsed, local, out, protocol, true), localPort: -1, remotePort: -1 }
}

/** `fromLocal`: the source is the local end. `protocol`: of the packet itself. */
function ends(
  data: Uint8Array,
  packet: ParsedPacket | IcmpErrorPacket,
  local: number,
  fromLocal: boolean,
  protocol: number,
  first: boolean,
): PacketEnds {
  const { family, sourceOffset, destinationOffset, sourcePort, destinationPort } = packet
  const length = addressLength(family)
  const remote = local === sourceOffset ? destinationOffset : sourceOffset
  const addresses = new Uint8Array(2 * REMOTE)
  addresses.set(data.subarray(local, local + length))
  addresses.set(data.subarray(remote, remote + length), REMOTE)
  return {
    family,
    addresses,
    view: new DataView(addresses.buffer),
    protocol,
    flowProtocol: packet.protocol,
    localPort: fromLocal ? sourcePort : destinationPort,
    remotePort: fromLocal ? destinationPort : sourcePort,
    first,
  }
}

/** Position of the remote address in PacketEnds.addresses. */
export const REMOTE_ADDRESS = REMOTE

const MEMORY_MAX = 8192
const ROWS_MAX = 4096

interface Described {
  readonly generation: number
  readonly remoteGeneration: number
  readonly peer: number
  readonly label: FlowLabel
}

export class FlowLabels {
  /** By row; holds while the row's IDs and peer are the same. */
  readonly #rows = new Map<number, Described>()
  /** By flow ID, by peer and the other end's flow ID, by both ends; the oldest go first. */
  readonly #memory = new Map<string, FlowLabel>()

  constructor(private readonly engine: Pick<FlowEngine, 'table' | 'flow'>) {}

  /** Flow of a packet between the own kernel and the TUN. */
  ofPacket(ends: PacketEnds): FlowLabel | undefined {
    const { family, view, localPort, remotePort, flowProtocol } = ends
    if (localPort < 0) return undefined
    const { table } = this.engine
    const ports = (localPort << 16) | remotePort
    let row = table.find(view, 0, REMOTE, family, flowProtocol, ports)
    // A server on the wildcard address answers from whichever address its kernel likes.
    if (row < 0 && flowProtocol === Protocol.udp) row = table.findAnyLocal(view, REMOTE, family, flowProtocol, ports)
    const label = this.#ofRow(row)
    if (label !== undefined || ends.first) return label
    const length = addressLength(family)
    const [local, remote] = [ends.addresses.subarray(0, length), ends.addresses.subarray(REMOTE, REMOTE + length)]
    return this.#memory.get(tupleKey(protocolName(flowProtocol), local, localPort, remote, remotePort))
  }

  /** Flow by our own ID. */
  own(slot: number, generation: number): FlowLabel | undefined {
    const { table } = this.engine
    if (slot < table.capacity && table.get(slot, Row.generation) === (generation | 0)) return this.#ofRow(slot)
    return this.#memory.get(formatFlowId(slot, generation))
  }

  /** Flow by what `peer` calls it. */
  remote(peer: number, slot: number, generation: number): FlowLabel | undefined {
    const label = this.#ofRow(this.engine.table.findRemote(peer, slot, generation))
    return label ?? this.#memory.get(remoteKey(peer, formatFlowId(slot, generation)))
  }

  clear(): void {
    this.#rows.clear()
    this.#memory.clear()
  }

  #ofRow(row: number): FlowLabel | undefined {
    if (row < 0) return undefined
    const { table } = this.engine
    const generation = table.get(row, Row.generation)
    const remoteGeneration = table.get(row, Row.remoteGeneration)
    const peer = table.get(row, Row.peer)
    const known = this.#rows.get(row)
    if (known?.generation === generation && known.remoteGeneration === remoteGeneration && known.peer === peer)
      return known.label
    const flow = this.engine.flow(row)
    if (flow === undefined) return undefined
    const { service, protocol, localPort, remotePort } = flow
    const label: FlowLabel = { flow: flow.id, peer, service, protocol, localPort, remotePort }
    if (this.#rows.size >= ROWS_MAX) this.#rows.clear()
    this.#rows.set(row, { generation, remoteGeneration, peer, label })
    this.#remember(flow.id, label)
    if (flow.remoteId !== undefined) this.#remember(remoteKey(peer, flow.remoteId), label)
    this.#remember(tupleKey(protocol, flow.local, localPort, flow.remote, remotePort), label)
    return label
  }

  #remember(key: string, label: FlowLabel): void {
    this.#memory.delete(key)
    this.#memory.set(key, label)
    if (this.#memory.size <= MEMORY_MAX) return
    for (const oldest of this.#memory.keys()) {
      this.#memory.delete(oldest)
      return
    }
  }
}

/** The dump's name of an IP protocol. */
export function protocolName(protocol: number): FlowSnapshot['protocol'] | undefined {
  if (protocol === Protocol.tcp) return 'tcp'
  if (protocol === Protocol.udp) return 'udp'
  return protocol === Protocol.icmp ? 'icmp' : undefined
}

function remoteKey(peer: number, id: string): string {
  return `${peer}/${id}`
}

function tupleKey(
  protocol: FlowSnapshot['protocol'] | undefined,
  local: Uint8Array,
  localPort: number,
  remote: Uint8Array,
  remotePort: number,
): string {
  return `${protocol} ${toHex(local)}:${localPort} ${toHex(remote)}:${remotePort}`
}
