// The kernel's messages about links, addresses and routes, read. Total: whatever the bytes are, the answer is a list of messages.

import { endianness } from 'node:os'

/** Kinds of requests. */
export const NetlinkAsk = { links: 18, addresses: 22, routes: 26 } as const

export interface LinkMessage {
  readonly kind: 'link'
  readonly gone: boolean
  readonly index: number
  readonly name: string
  readonly loopback: boolean
  /** Set up by somebody. */
  readonly up: boolean
  /** And able to carry packets. */
  readonly running: boolean
  /** Bytes; 0: not told. */
  readonly mtu: number
}
export interface AddressMessage {
  readonly kind: 'address'
  readonly gone: boolean
  readonly link: number
  readonly family: 4 | 6
  /** This host's own, in network order: 4 or 16 bytes as hex digits. */
  readonly address: string
  readonly prefixLength: number
  /** Not to be used yet, or never: another host may have it. */
  readonly tentative: boolean
  readonly deprecated: boolean
  /** An IPv6 address for a while, for privacy. */
  readonly temporary: boolean
}
export interface RouteMessage {
  readonly kind: 'route'
  readonly gone: boolean
  /** It stands in for the one that was there to the same destination, with the same metric, of which nothing else is told. */
  readonly replaces: boolean
  readonly family: 4 | 6
  readonly table: number
  /** Unicast: packets go somewhere. */
  readonly unicast: boolean
  /** Somebody has set it so that packets go nowhere, or are looked up elsewhere: blackhole, unreachable, prohibit, throw. */
  readonly refuses: boolean
  readonly prefixLength: number
  /** Hex digits; empty for the default route. */
  readonly destination: string
  /** Hex digits; empty: none, or several. */
  readonly gateway: string
  /** Index of the link; 0: none, or several. */
  readonly link: number
  readonly metric: number
}
/** `done`: a dump has ended, whole or not. */
export type NetlinkMessage =
  | LinkMessage
  | AddressMessage
  | RouteMessage
  | { readonly kind: 'done'; readonly sequence: number; readonly error: number; readonly interrupted: boolean }
  | { readonly kind: 'overrun' }

const HEADER = 16
const Type = { error: 2, done: 3, overrun: 4, link: 16, address: 20, route: 24 } as const
const DUMP_INTERRUPTED = 0x10
const REPLACE = 0x100
const LINK_HEADER = 16
const ADDRESS_HEADER = 8
const ROUTE_HEADER = 12
const Flag = { up: 0x1, loopback: 0x8, running: 0x40 } as const
const AddressFlag = { temporary: 0x01, failed: 0x08, deprecated: 0x20, tentative: 0x40 } as const
const ROUTE_CLONED = 0x200
const UNICAST = 1
/** RTN_BLACKHOLE … RTN_THROW. */
const REFUSES = { first: 6, last: 9 } as const
const NAME_MAX = 15
const LITTLE = endianness() === 'LE'

/** Reads the messages of a datagram; what is of no known kind, or cut short, is left out. `little`: the kernel's byte order. */
export function parseNetlink(bytes: Uint8Array, little = LITTLE): NetlinkMessage[] {
  const messages: NetlinkMessage[] = []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at + HEADER <= bytes.length;) {
    const length = view.getUint32(at, little)
    if (length < HEADER || length > bytes.length - at) break
    const message = parseMessage(bytes.subarray(at, at + length), little)
    if (message !== undefined) messages.push(message)
    at += (length + 3) & ~3
  }
  return messages
}

function parseMessage(bytes: Uint8Array, little: boolean): NetlinkMessage | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const type = view.getUint16(4, little)
  const flags = view.getUint16(6, little)
  const interrupted = (flags & DUMP_INTERRUPTED) !== 0
  const body = bytes.subarray(HEADER)
  switch (type) {
    case Type.done:
    case Type.error: {
      const error = body.length >= 4 ? view.getInt32(HEADER, little) : 0
      return { kind: 'done', sequence: view.getUint32(8, little), error, interrupted }
    }
    case Type.overrun:
      return { kind: 'overrun' }
    case Type.link:
    case Type.link + 1:
      return parseLink(body, type !== Type.link, little)
    case Type.address:
    case Type.address + 1:
      return parseAddress(body, type !== Type.address, little)
    case Type.route:
    case Type.route + 1:
      return parseRoute(body, type !== Type.route, (flags & REPLACE) !== 0, little)
    default:
      return undefined
  }
}

/** Attributes by their number; the first of each counts. */
function attributes(bytes: Uint8Array, little: boolean): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>()
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = view.getUint16(at, little)
    if (length < 4 || length > bytes.length - at) break
    // The two highest bits say how the content is coded.
    const type = view.getUint16(at + 2, little) & 0x3fff
    if (!found.has(type)) found.set(type, bytes.subarray(at + 4, at + length))
    at += (length + 3) & ~3
  }
  return found
}

function word(bytes: Uint8Array | undefined, little: boolean): number | undefined {
  if (bytes?.length !== 4) return undefined
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, little)
}

function familyOf(byte: number): 4 | 6 | undefined {
  return byte === 2 ? 4 : byte === 10 ? 6 : undefined
}

function addressText(bytes: Uint8Array | undefined, family: 4 | 6): string | undefined {
  return bytes?.length === (family === 4 ? 4 : 16) ? Buffer.from(bytes).toString('hex') : undefined
}

function parseLink(body: Uint8Array, gone: boolean, little: boolean): LinkMessage | undefined {
  // Other families' messages (a bridge's ports) are about something else.
  if (body.length < LINK_HEADER || body[0] !== 0) return undefined
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  const index = view.getInt32(4, little)
  const flags = view.getUint32(8, little)
  const found = attributes(body.subarray(LINK_HEADER), little)
  const name = Buffer.from(found.get(3) ?? [])
    .toString('latin1')
    .replace(/\0.*$/s, '')
  if (index <= 0 || name.length > NAME_MAX) return undefined
  return {
    kind: 'link',
    gone,
    index,
    name,
    loopback: (flags & Flag.loopback) !== 0,
    up: (flags & Flag.up) !== 0,
    running: (flags & Flag.up) !== 0 && (flags & Flag.running) !== 0,
    mtu: word(found.get(4), little) ?? 0,
  }
}

function parseAddress(body: Uint8Array, gone: boolean, little: boolean): AddressMessage | undefined {
  const family = familyOf(body[0] ?? 0)
  if (body.length < ADDRESS_HEADER || family === undefined) return undefined
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  const found = attributes(body.subarray(ADDRESS_HEADER), little)
  // Where there is a far end, the first of the two is that one's.
  const address = addressText(found.get(2), family) ?? addressText(found.get(1), family)
  const prefixLength = body[1]!
  if (address === undefined || prefixLength > (family === 4 ? 32 : 128)) return undefined
  const flags = word(found.get(8), little) ?? body[2]!
  return {
    kind: 'address',
    gone,
    link: view.getUint32(4, little),
    family,
    address,
    prefixLength,
    tentative: (flags & (AddressFlag.tentative | AddressFlag.failed)) !== 0,
    deprecated: (flags & AddressFlag.deprecated) !== 0,
    // Of IPv4 the same bit says that it is not the subnet's first address.
    temporary: family === 6 && (flags & AddressFlag.temporary) !== 0,
  }
}

function parseRoute(body: Uint8Array, gone: boolean, replaces: boolean, little: boolean): RouteMessage | undefined {
  const family = familyOf(body[0] ?? 0)
  if (body.length < ROUTE_HEADER || family === undefined) return undefined
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  // What the kernel has learnt of single addresses is no route.
  if ((view.getUint32(8, little) & ROUTE_CLONED) !== 0) return undefined
  const found = attributes(body.subarray(ROUTE_HEADER), little)
  const prefixLength = body[1]!
  const destination = addressText(found.get(1), family) ?? ''
  if (prefixLength > (family === 4 ? 32 : 128) || (prefixLength > 0 && destination === '')) return undefined
  return {
    kind: 'route',
    gone,
    replaces,
    family,
    table: word(found.get(15), little) ?? body[4]!,
    unicast: body[7] === UNICAST,
    refuses: body[7]! >= REFUSES.first && body[7]! <= REFUSES.last,
    prefixLength,
    destination: prefixLength === 0 ? '' : destination,
    gateway: addressText(found.get(5), family) ?? '',
    link: word(found.get(4), little) ?? 0,
    metric: word(found.get(6), little) ?? 0,
  }
}
