// Branded identifiers. Inside the program IDs are lower-case hex strings (cheap map keys); on the wire they are bytes.

declare const brand: unique symbol
type Branded<Base, Name> = Base & { readonly [brand]: Name }

/** Ed25519 public key of a host, 64 hex digits. */
export type HostId = Branded<string, 'HostId'>
/** BLAKE2b-256 of the authority's public key, 64 hex digits. */
export type NetworkId = Branded<string, 'NetworkId'>
/** 256 bits, 64 hex digits; layout in lib/service/service-id.ts. */
export type ServiceId = Branded<string, 'ServiceId'>

const HEX = /^[0-9a-f]{64}$/

export function toHex(bytes: Uint8Array): string {
  let s = ''
  for (const byte of bytes) s += (byte < 16 ? '0' : '') + byte.toString(16)
  return s
}
/** Bytes of a hex string; throws RangeError for anything but pairs of hex digits. */
export function fromHex(hex: string): Uint8Array {
  if (hex.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(hex)) throw new RangeError('not a hex string')
  const bytes = new Uint8Array(hex.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

function brandedHex(value: string | Uint8Array, what: string): string {
  const hex = typeof value === 'string' ? value.toLowerCase() : toHex(value)
  if (!HEX.test(hex)) throw new RangeError(`${what} must be 32 bytes`)
  return hex
}
export const hostId = (value: string | Uint8Array) => brandedHex(value, 'host ID') as HostId
export const networkId = (value: string | Uint8Array) => brandedHex(value, 'network ID') as NetworkId
export const serviceId = (value: string | Uint8Array) => brandedHex(value, 'service ID') as ServiceId
