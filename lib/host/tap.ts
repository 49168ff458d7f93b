import type { DropReason } from '../wire/drop.js'

export type TapPoint = 'tun' | 'wire' | 'drop'

/** One packet as the dump sees it. Made only while a tap is open. */
export interface TapEvent {
  readonly point: TapPoint
  /** in: towards this host's programs; out: away from them. */
  readonly direction: 'in' | 'out'
  /** ms since the epoch, fractional. */
  readonly time: number
  /** tun and drop of a packet: the IP packet. wire: the datagram's UDP payload as it travels (sealed). Owned by the receiver. */
  readonly bytes: Uint8Array
  /** Original length when `bytes` was cut. */
  readonly length: number
  /** wire: underlay addresses, `ADDR:PORT`. */
  readonly local?: string
  readonly remote?: string
  /** Names, where known. */
  readonly peer?: string
  readonly service?: string
  /** Our flow ID, 16 hex digits. */
  readonly flow?: string
  /** wire: frame type and kind, such as `data`, `open`, `init`. */
  readonly frame?: string
  readonly protocol?: 'tcp' | 'udp' | 'icmp'
  /** Ports as the program sees them. */
  readonly sourcePort?: number
  readonly destinationPort?: number
  /** Delivered or why not. */
  readonly verdict: 'pass' | DropReason
}

export interface Tap {
  /** Bytes kept of each packet. */
  readonly snapLength: number
  event(event: TapEvent): void
}
