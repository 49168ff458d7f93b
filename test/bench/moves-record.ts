/** Bytes of one record of the TCP stream, and of one datagram. */
export const RECORD = 64
