// What a frame on the wire is and which flow it is about, read from the plaintext of both directions. Of a frame's two flow IDs the inner header has the
// receiver's; OPEN, ACCEPT, NOT-HERE and CLOSE begin their bodies with the sender's.

import { formatFlowId } from '../flow/flow-id.js'
import type { PeerTable } from '../path/peers.js'
import { decodeLocator, formatLocator } from '../path/locator.js'
import { ADDRESS_RECORD } from '../wire/batch.js'
import { FrameType, INNER_HEADER, Kind, SERVICE_ID_LENGTH } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { serviceId, type ServiceId } from '../wire/ids.js'
import { innerGeneration, innerKind, innerProtocol, innerSlot } from '../wire/inner.js'
import { namesService, OpenFrame, readOpen } from '../wire/open.js'
import { protocolName, type FlowLabel, type FlowLabels } from './tap-flows.js'

const KIND_MAX = 16
const kindNames: readonly (string | undefined)[] = Array.from({ length: KIND_MAX }, (_, kind) => nameOfKind(kind))
const typeNames: Readonly<Record<number, string>> = {
  [FrameType.init]: 'init',
  [FrameType.response]: 'response',
  [FrameType.cookie]: 'cookie',
  [FrameType.join]: 'join',
  [FrameType.joined]: 'joined',
  [FrameType.relay]: 'relay',
}

/** Name of a frame in the clear; undefined: what is in it is sealed, or it is none of ours. */
export function clearFrameName(type: number | undefined): string | undefined {
  return type === undefined ? undefined : typeNames[type]
}

/** A frame as the dump describes it. */
export interface FrameLabel {
  readonly name: string | undefined
  /** Of a flow: what is known of it. Ports are ours and the other end's. */
  readonly flow?: string
  readonly service?: ServiceId
  readonly protocol?: FlowLabel['protocol']
  readonly localPort?: number
  readonly remotePort?: number
}

/** What a frame says of itself. */
export interface FrameSubject {
  readonly kind: number
  readonly protocol: number
  readonly receiver: readonly [slot: number, generation: number]
  readonly sender: readonly [slot: number, generation: number]
  readonly open:
    { readonly service: ServiceId | undefined; readonly clientPort: number; readonly dialledPort: number } | undefined
}

const NO_ID = [0, 0] as const
const openFrame = new OpenFrame()

/** Reads the plaintext at `at`; undefined: it is too short for one. */
export function readFrame(data: Uint8Array, view: DataView, at: number, length: number): FrameSubject | undefined {
  if (length < INNER_HEADER || at < 0 || at + length > data.length) return undefined
  const kind = innerKind(data, at)
  const body = at + INNER_HEADER
  const named = kind === Kind.open || kind === Kind.accept || kind === Kind.notHere || kind === Kind.close
  const sender =
    named && length >= INNER_HEADER + 8 ? ([innerSlot(view, body), innerGeneration(view, body)] as const) : NO_ID
  let open: FrameSubject['open']
  if (kind === Kind.open && readOpen(data, view, body, length - INNER_HEADER, openFrame) === 'ok') {
    const { serviceOffset, clientPort, dialledPort } = openFrame
    const service = namesService(openFrame)
      ? serviceId(data.subarray(serviceOffset, serviceOffset + SERVICE_ID_LENGTH))
      : undefined
    open = { service, clientPort, dialledPort }
  }
  return {
    kind,
    protocol: innerProtocol(data, at),
    receiver: [innerSlot(view, at), innerGeneration(view, at)],
    sender,
    open,
  }
}

/** The flow of the frame in our own table, or in the memory of what was there. */
export function flowOfFrame(
  frame: FrameSubject,
  peer: number,
  direction: 'in' | 'out',
  flows: FlowLabels,
): FlowLabel | undefined {
  const [own, remote] = direction === 'out' ? [frame.sender, frame.receiver] : [frame.receiver, frame.sender]
  const label = own[1] === 0 ? undefined : flows.own(own[0], own[1])
  return label ?? (remote[1] === 0 || peer < 0 ? undefined : flows.remote(peer, remote[0], remote[1]))
}

/** Puts together what the table and the frame itself say. */
export function describeFrame(frame: FrameSubject, direction: 'in' | 'out', label: FlowLabel | undefined): FrameLabel {
  const name = kindNames[frame.kind]
  if (label !== undefined) {
    const { flow, service, protocol, localPort, remotePort } = label
    return { name, flow, ...(service === undefined ? {} : { service }), protocol, localPort, remotePort }
  }
  const { open } = frame
  const own = direction === 'out' ? frame.sender : frame.receiver
  const flow = own[1] === 0 ? {} : { flow: formatFlowId(own[0], own[1]) }
  const protocol = protocolName(frame.protocol)
  const carried = protocol === undefined ? {} : { protocol }
  if (open === undefined) return { name, ...flow, ...carried }
  const [localPort, remotePort] =
    direction === 'out' ? [open.clientPort, open.dialledPort] : [open.dialledPort, open.clientPort]
  return {
    name,
    ...flow,
    ...carried,
    ...(open.service === undefined ? {} : { service: open.service }),
    localPort,
    remotePort,
  }
}

const ownFaults: ReadonlySet<DropReason> = new Set([
  'bad-frame',
  'bad-control',
  'not-entitled',
  'unknown-lane',
  'unknown-flow',
])

/** Whether something dropped while the frame was decided upon was the frame; else it was a packet that its news was about. */
export function isFrameDropped(frame: FrameSubject | undefined, reason: DropReason): boolean {
  if (frame === undefined || ownFaults.has(reason)) return true
  return frame.kind !== Kind.notHere && frame.kind !== Kind.close && frame.kind !== Kind.control
}

/** Index of the peer whose frames go to the address record at `offset`; -1: none. */
export function peerAt(peers: PeerTable, records: Uint8Array, offset: number): number {
  for (let peer = 1; peer < peers.size; peer++) {
    const slot = peers.pathSlot[peer]!
    if (slot >= 0 && peers.addresses.matches(slot, records, offset)) return peer
  }
  return -1
}

/** Address records as text; most frames are from or to where the one before was. */
export class LocatorText {
  readonly #record = new Uint8Array(ADDRESS_RECORD)
  #text: string | undefined

  of(records: Uint8Array, offset: number): string | undefined {
    let same = true
    for (let i = 0; i < ADDRESS_RECORD && same; i++) same = this.#record[i] === records[offset + i]
    if (same) return this.#text
    this.#record.set(records.subarray(offset, offset + ADDRESS_RECORD))
    const locator = decodeLocator(records, offset)
    this.#text = locator === undefined ? undefined : formatLocator(locator)
    return this.#text
  }
}

function nameOfKind(kind: number): string | undefined {
  for (const [name, value] of Object.entries(Kind)) {
    if (value === kind) return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  }
  return undefined
}
