import ipaddr from 'ipaddr.js'
import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'

/** An underlay address where a host can be reached. `address` is a normal IPv4 or IPv6 literal. */
export interface Locator {
  readonly address: string
  readonly port: number
}

/** Address record (see lib/wire/batch.ts) of a locator; throws RangeError for what is no IP literal or port. */
export function encodeLocator(locator: Locator): Uint8Array {
  const record = locatorRecord(locator)
  if (record === undefined) throw new RangeError(`not an address and UDP port: ${locator.address} ${locator.port}`)
  return record
}

/** As {@link encodeLocator}, for what others say; undefined: it is none. */
export function locatorRecord({ address, port }: Locator): Uint8Array | undefined {
  const literal = address.replace(/%.*$/, '')
  if (!ipaddr.isValid(literal) || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined
  const parsed = ipaddr.process(literal)
  const record = new Uint8Array(ADDRESS_RECORD)
  record[0] = parsed.kind() === 'ipv4' ? 4 : 6
  record[2] = port >> 8
  record[3] = port & 0xff
  record.set(parsed.toByteArray(), 8)
  return record
}

/** The locator of the address record at `offset`, or undefined when it is none. */
export function decodeLocator(bytes: Uint8Array, offset = 0): Locator | undefined {
  const family = bytes[offset]
  const port = (bytes[offset + 2]! << 8) | bytes[offset + 3]!
  if ((family !== 4 && family !== 6) || port === 0) return undefined
  const raw = [...bytes.subarray(offset + 8, offset + 8 + (family === 4 ? 4 : 16))]
  return { address: ipaddr.fromByteArray(raw).toString(), port }
}

/** The own address that the address record names, with the port of a socket of this host; undefined: it names none. */
export function decodeLocal(record: Uint8Array, port: number): Locator | undefined {
  const remote = record.slice()
  remote.copyWithin(8, ADDRESS_LOCAL, ADDRESS_RECORD)
  const local = remote.subarray(8, 24).some((byte) => byte !== 0) ? decodeLocator(remote) : undefined
  return local === undefined ? undefined : { address: local.address, port }
}

/** `192.0.2.1:7474`, `[2001:db8::1]:7474`. */
export function formatLocator(locator: Locator): string {
  return locator.address.includes(':') ? `[${locator.address}]:${locator.port}` : `${locator.address}:${locator.port}`
}

/** The reverse of {@link formatLocator}; the port may be left out when there is a default. undefined: malformed. */
export function parseLocator(text: string, defaultPort?: number): Locator | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text)
  const bare = match === null && ipaddr.IPv6.isValid(text) ? text : undefined
  const address = bare ?? match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  if (address === undefined || port === undefined || !ipaddr.isValid(address)) return undefined
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return undefined
  return { address: ipaddr.process(address).toString(), port }
}
