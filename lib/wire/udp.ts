/** Length of a UDP header; what travels in a frame is its second half: length and checksum. */
export const UDP_HEADER = 8
/** Position of the checksum field in the header with ports, and in what travels. */
export const UDP_CHECKSUM = 6
export const UDP_WIRE_HEADER = 4

/** RFC 768: a computed checksum of zero is sent as all ones, because zero means that there is none. */
export function udpChecksum(computed: number): number {
  return computed === 0 ? 0xffff : computed
}
