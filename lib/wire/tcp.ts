// TCP headers: RFC 9293 section 3.1.
import { replaceWordAt } from './checksum.js'

export const TCP_HEADER = 20
export const TcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const
/** Positions in a TCP header with ports; what travels in a frame begins with the sequence number, 4 bytes later. */
export const Tcp = {
  sequence: 4,
  acknowledgement: 8,
  dataOffset: 12,
  flags: 13,
  window: 14,
  checksum: 16,
  options: 20,
} as const
export const TCP_WIRE_HEADER = 16

const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_MSS = 2
const OPTION_MSS_LENGTH = 4

/** Length of the TCP header (with ports) at `offset`, options included; -1 when it does not fit before `end`. */
export function tcpHeaderLength(data: Uint8Array, offset: number, end: number): number {
  if (end - offset < TCP_HEADER) return -1
  const length = (data[offset + Tcp.dataOffset]! >> 4) << 2
  return length < TCP_HEADER || offset + length > end ? -1 : length
}

/**
 * Lowers the maximum segment size that a SYN announces to `max`. `transportOffset`: of the TCP header with ports. `partial`: the checksum
 * field does not cover the options (it is a pseudo-header's sum, or nothing), else it is updated. Returns whether anything was changed.
 */
export function clampMss(
  data: Uint8Array,
  view: DataView,
  transportOffset: number,
  end: number,
  max: number,
  partial: boolean,
): boolean {
  const header = tcpHeaderLength(data, transportOffset, end)
  if (header < 0 || (data[transportOffset + Tcp.flags]! & TcpFlag.syn) === 0) return false
  const limit = transportOffset + header
  let changed = false
  let at = transportOffset + Tcp.options
  while (at < limit) {
    const option = data[at]!
    if (option === OPTION_END) break
    if (option === OPTION_NOP) {
      at++
      continue
    }
    const length = at + 1 < limit ? data[at + 1]! : 0
    if (length < 2 || at + length > limit) break
    if (option === OPTION_MSS && length === OPTION_MSS_LENGTH) {
      const old = view.getUint16(at + 2)
      if (old > max) {
        view.setUint16(at + 2, max)
        changed = true
        if (!partial) {
          const field = transportOffset + Tcp.checksum
          view.setUint16(field, replaceWordAt(view.getUint16(field), old, max, (at + 2 - transportOffset) & 1))
        }
      }
    }
    at += length
  }
  return changed
}
