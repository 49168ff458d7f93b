// The Internet checksum (RFC 1071, updates by RFC 1624). Sums are one's complement sums of 16-bit words in network order, not
// inverted; a checksum field holds the inverted, folded sum.
import { addressLength, type IpFamily } from './ip.js'

/** Adds the carries back until 16 bits are left. `sum` may be anything up to 2^47. */
export function fold(sum: number): number {
  if (sum > 0xffffffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  sum = (sum & 0xffff) + (sum >>> 16)
  sum = (sum & 0xffff) + (sum >>> 16)
  return (sum & 0xffff) + (sum >>> 16)
}

/** The checksum field for a sum. */
export function checksumOf(sum: number): number {
  return ~fold(sum) & 0xffff
}

/** Sum of `length` bytes plus `initial`, not folded. An odd last byte counts as the high half of a word. */
export function sumBytes(data: Uint8Array, view: DataView, offset: number, length: number, initial = 0): number {
  let sum = initial
  const even = offset + (length & ~1)
  for (let at = offset; at < even; at += 2) sum += view.getUint16(at)
  if ((length & 1) !== 0) sum += data[even]! << 8
  return sum
}

/** Sum of one address of `family` at `offset`, which need not be aligned. */
export function addressSum(data: Uint8Array, offset: number, family: IpFamily): number {
  const end = offset + addressLength(family)
  let high = 0
  let low = 0
  for (let at = offset; at < end; at += 2) {
    high += data[at]!
    low += data[at + 1]!
  }
  return high * 256 + low
}

/** Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1). `protocol` as in the IP header, `length` of transport header and payload. */
export function pseudoHeaderSum(
  family: IpFamily,
  source: Uint8Array,
  sourceOffset: number,
  destination: Uint8Array,
  destinationOffset: number,
  protocol: number,
  length: number,
): number {
  return (
    addressSum(source, sourceOffset, family) +
    addressSum(destination, destinationOffset, family) +
    protocol +
    (length & 0xffff) +
    (length >>> 16)
  )
}

/** The checksum after one 16-bit word that it covers changed (RFC 1624, equation 3). */
export function replaceWord(checksum: number, before: number, after: number): number {
  return checksumOf((~checksum & 0xffff) + (~before & 0xffff) + after)
}

/** As {@link replaceWord} for a word that stands at an odd position (`odd` 1) of the covered bytes. */
export function replaceWordAt(checksum: number, before: number, after: number, odd: number): number {
  return odd === 0 ? replaceWord(checksum, before, after) : replaceWord(checksum, swap(before), swap(after))
}

/** Takes the words that sum up to `sum` out of what a checksum covers. */
export function removeSum(checksum: number, sum: number): number {
  return checksumOf((~checksum & 0xffff) + (~fold(sum) & 0xffff))
}

/** Adds words that sum up to `sum` to what a checksum covers. */
export function addSum(checksum: number, sum: number): number {
  return checksumOf((~checksum & 0xffff) + fold(sum))
}

function swap(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8)
}
