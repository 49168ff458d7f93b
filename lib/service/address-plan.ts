// Which overlay addresses there are. IPv6: a /48 from the network ID, the fourth group is the role, the last 64 bits a hash. IPv4: a pool in four
// quarters; what is not claimed network-wide gets an address out of the first quarter that only this host knows.
//
//   IPv4 pool   | first quarter                                                                | second  | third  | fourth |
//               | /24: self .1, DNS .53 | dialled, local to half | served, local | peer, local | dialled | served | peer   |
//
//   IPv6        fdXX:XXXX:XXXX:role:hhhh:hhhh:hhhh:hhhh     role 0: self ::1, DNS ::53

import ipaddr from 'ipaddr.js'
import { fromHex, type NetworkId } from '../wire/ids.js'
import type { ClaimRole } from './registration.js'

export const POOL_DEFAULT = '198.18.0.0/15'
/** Largest and smallest pool that can be cut up. */
const POOL_LENGTH_MIN = 8
const POOL_LENGTH_MAX = 20

export const V6_ROLE = { self: 0, dialled: 0xd1a1, served: 0x5e7e, peer: 0x9ee7 } as const
export const SELF_NUMBER = 1
export const DNS_NUMBER_V4 = 53
export const DNS_NUMBER_V6 = 0x53
const SPECIAL = 256

/** Offsets in the pool, `end` excluded. */
export interface Span {
  readonly start: number
  readonly end: number
}

export interface AddressPlan {
  /** As given, normalised: `198.18.0.0/15`. */
  readonly pool: string
  /** First address of the pool, and how many there are. */
  readonly base: number
  readonly size: number
  /** First six bytes of every IPv6 address. */
  readonly v6Prefix: Uint8Array
  /** `fdXX:XXXX:XXXX::/48` */
  readonly v6: string
  readonly claimed: Readonly<Record<ClaimRole, Span>>
  readonly local: Readonly<Record<ClaimRole, Span>>
}

/** The plan of a network with this IPv4 pool (CIDR), or what is wrong with the pool. */
export function addressPlan(network: NetworkId, pool: string): AddressPlan | { readonly problem: string } {
  const parsed = parseCidr(pool)
  if (parsed === undefined || parsed.family !== 4)
    return { problem: `IPv4 pool ${JSON.stringify(pool)} is no IPv4 prefix` }
  if (parsed.length < POOL_LENGTH_MIN || parsed.length > POOL_LENGTH_MAX) {
    return { problem: `IPv4 pool ${pool} must be between a /${POOL_LENGTH_MIN} and a /${POOL_LENGTH_MAX}` }
  }
  const size = 2 ** (32 - parsed.length)
  const base = readU32(parsed.bytes, 0)
  if (base % size !== 0) return { problem: `IPv4 pool ${pool} has bits set after its first ${parsed.length}` }
  const quarter = size / 4
  const v6Prefix = new Uint8Array(6)
  v6Prefix[0] = 0xfd
  v6Prefix.set(fromHex(network.slice(0, 10)), 1)
  return {
    pool: `${formatAddress(parsed.bytes)}/${parsed.length}`,
    base,
    size,
    v6Prefix,
    v6: `${formatAddress(v6Bytes(v6Prefix, 0, 0, 0))}/48`,
    claimed: {
      dialled: { start: quarter, end: 2 * quarter },
      served: { start: 2 * quarter, end: 3 * quarter },
      peer: { start: 3 * quarter, end: size },
    },
    local: {
      dialled: { start: SPECIAL, end: quarter / 2 },
      served: { start: quarter / 2, end: (3 * quarter) / 4 },
      peer: { start: (3 * quarter) / 4, end: quarter },
    },
  }
}

/** The address every host's programs have as source. */
export function selfAddress(plan: AddressPlan, family: 4 | 6): Uint8Array {
  return family === 4 ? v4Bytes(plan, SELF_NUMBER) : v6Bytes(plan.v6Prefix, V6_ROLE.self, 0, SELF_NUMBER)
}

/** Where the daemon answers DNS. */
export function dnsAddress(plan: AddressPlan, family: 4 | 6): Uint8Array {
  return family === 4 ? v4Bytes(plan, DNS_NUMBER_V4) : v6Bytes(plan.v6Prefix, V6_ROLE.self, 0, DNS_NUMBER_V6)
}

/** Prefixes of the parts, for routes: what is dialled or a peer goes into the TUN, what is served is local. */
export function rolePrefixes(plan: AddressPlan): { role: ClaimRole; family: 4 | 6; prefix: string }[] {
  const roles: ClaimRole[] = ['dialled', 'served', 'peer']
  return roles.flatMap((role) => {
    const quarter = 32 - Math.log2(plan.size / 4)
    return [
      { role, family: 4 as const, prefix: `${formatAddress(v4Bytes(plan, plan.claimed[role].start))}/${quarter}` },
      { role, family: 6 as const, prefix: `${formatAddress(v6Bytes(plan.v6Prefix, V6_ROLE[role], 0, 0))}/64` },
    ]
  })
}

/** The pool's address at an offset. */
export function v4Bytes(plan: AddressPlan, offset: number): Uint8Array {
  const value = plan.base + offset
  return Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
}

/** Prefix, role, 64 bits. */
export function v6Bytes(prefix: Uint8Array, role: number, high: number, low: number): Uint8Array {
  const bytes = new Uint8Array(16)
  bytes.set(prefix)
  const view = new DataView(bytes.buffer)
  view.setUint16(6, role)
  view.setUint32(8, high)
  view.setUint32(12, low)
  return bytes
}

/** Whether two prefixes (CIDR, or a single address) have an address in common; false when one is no prefix. */
export function prefixesOverlap(a: string, b: string): boolean {
  const [x, y] = [parseCidr(a), parseCidr(b)]
  if (x === undefined || y === undefined || x.family !== y.family) return false
  const bits = Math.min(x.length, y.length)
  for (let bit = 0; bit < bits; bit++) {
    const mask = 0x80 >> (bit & 7)
    if (((x.bytes[bit >> 3]! ^ y.bytes[bit >> 3]!) & mask) !== 0) return false
  }
  return true
}

/** Text of 4 or 16 bytes. */
export function formatAddress(bytes: Uint8Array): string {
  return ipaddr.fromByteArray([...bytes]).toString()
}

function parseCidr(text: string): { family: 4 | 6; bytes: Uint8Array; length: number } | undefined {
  const [literal = '', suffix] = text.split('/')
  const v4 = ipaddr.IPv4.isValidFourPartDecimal(literal)
  if (!v4 && !ipaddr.IPv6.isValid(literal)) return undefined
  const bytes = Uint8Array.from(ipaddr.parse(literal).toByteArray())
  const most = 8 * bytes.length
  const length = suffix === undefined ? most : /^\d{1,3}$/.test(suffix) ? Number(suffix) : Number.NaN
  if (!(length <= most) || text.split('/').length > 2) return undefined
  return { family: v4 ? 4 : 6, bytes, length }
}

/** Big-endian, unsigned. */
export function readU32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0
}
