import type { HostId, ServiceId } from '../wire/ids.js'

export type Family = 4 | 6

/** What a dialled address stands for. `host` set on a service: pinned to that host. */
export type DialledTarget =
  | { readonly kind: 'service'; readonly service: ServiceId; readonly host?: HostId }
  | { readonly kind: 'host'; readonly host: HostId }

/** The four roles of overlay addresses inside a host, in network order, 4 or 16 bytes. Returned arrays are not to be changed. */
export interface AddressBook {
  self(family: Family): Uint8Array
  /** What the address at `offset` stands for; undefined: it has not been given out. */
  dialled(bytes: Uint8Array, offset: number, family: Family): DialledTarget | undefined
  /** Local address of the service on hosts that have an instance. */
  served(service: ServiceId, family: Family): Uint8Array
  /** Whether the address at `offset` is one of our served addresses, the self or the DNS address: local to our kernel. */
  isLocal(bytes: Uint8Array, offset: number, family: Family): boolean
  /** Whether the address at `offset` is in the peer part: a client as servers see it. */
  isPeer(bytes: Uint8Array, offset: number, family: Family): boolean
  /** A client's host as our servers see it. */
  peer(host: HostId, family: Family): Uint8Array
  /** A flow of before a restart knows the client's host by this IPv4 address. */
  keepPeer(host: HostId, address: Uint8Array): void
}
