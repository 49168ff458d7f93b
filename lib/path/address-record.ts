// Address records compared and as keys. An iterator over the bytes would make an object of each of them, which of a few paths is hundreds of kilobytes a move.

import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'

/** Whether both name the same address of a peer, whatever their own addresses. */
export function sameRemote(a: Uint8Array, b: Uint8Array, aOffset = 0, bOffset = 0): boolean {
  return same(a, b, aOffset, bOffset, ADDRESS_LOCAL)
}

/** Whether both are the same pair of addresses. */
export function sameWay(a: Uint8Array, b: Uint8Array, aOffset = 0, bOffset = 0): boolean {
  return same(a, b, aOffset, bOffset, ADDRESS_RECORD)
}

/** Whether the record names an own address. */
export function isPinned(record: Uint8Array, offset = 0): boolean {
  for (let i = ADDRESS_LOCAL; i < ADDRESS_RECORD; i++) if (record[offset + i] !== 0) return true
  return false
}

/** The record without its own address, as a key. */
export function remoteKey(record: Uint8Array, offset = 0): string {
  return textOf(record, offset, ADDRESS_LOCAL)
}

/** The whole record as a key. */
export function wayKey(record: Uint8Array, offset = 0): string {
  return textOf(record, offset, ADDRESS_RECORD)
}

function same(a: Uint8Array, b: Uint8Array, aOffset: number, bOffset: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[aOffset + i] !== b[bOffset + i]) return false
  return true
}

/** Two bytes a character. */
function textOf(bytes: Uint8Array, offset: number, length: number): string {
  let text = ''
  for (let i = offset; i < offset + length; i += 2) text += String.fromCharCode((bytes[i]! << 8) | bytes[i + 1]!)
  return text
}
