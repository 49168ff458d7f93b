// The sealed inner header: receiver's flow ID 8, kind and flags 1, traffic class 1, hop limit 1, IP protocol 1.
import { INNER_CLASS, INNER_HOPS, INNER_KIND, INNER_PROTOCOL } from './constants.js'

const KIND_MASK = 0x0f

/** Writes INNER_HEADER bytes at `at`. `kind`: Kind with KindFlag bits. A receiver that does not know us yet has flow ID 0. */
export function writeInnerHeader(
  view: DataView,
  at: number,
  slot: number,
  generation: number,
  kind: number,
  trafficClass: number,
  hopLimit: number,
  protocol: number,
): void {
  view.setUint32(at, slot, true)
  view.setUint32(at + 4, generation, true)
  view.setUint8(at + INNER_KIND, kind)
  view.setUint8(at + INNER_CLASS, trafficClass)
  view.setUint8(at + INNER_HOPS, hopLimit)
  view.setUint8(at + INNER_PROTOCOL, protocol)
}

/** The kind of the frame whose inner header stands at `at`, without flags. */
export const innerKind = (data: Uint8Array, at: number): number => data[at + INNER_KIND]! & KIND_MASK
/** The KindFlag bits. */
export const innerFlags = (data: Uint8Array, at: number): number => data[at + INNER_KIND]! & ~KIND_MASK
export const innerClass = (data: Uint8Array, at: number): number => data[at + INNER_CLASS]!
export const innerHopLimit = (data: Uint8Array, at: number): number => data[at + INNER_HOPS]!
export const innerProtocol = (data: Uint8Array, at: number): number => data[at + INNER_PROTOCOL]!
export const innerSlot = (view: DataView, at: number): number => view.getUint32(at, true)
export const innerGeneration = (view: DataView, at: number): number => view.getUint32(at + 4, true)
