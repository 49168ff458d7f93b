import { z } from 'zod'

const probability = z.number().min(0).max(1)
const ms = z.number().min(0).max(60_000)

export const linkSettingsShape = z.strictObject({
  /** One way. */
  delayMs: ms,
  /** Up to so much more, evenly spread; packets keep their order. */
  jitterMs: ms,
  /** Share of the packets that are lost. */
  loss: probability,
  /** Mean number of packets lost one after another; 1: each is lost or not, whatever became of the one before. */
  lossBurst: z.number().min(1).max(1e6),
  /** Share of the packets that arrive twice. */
  duplicate: probability,
  /** Share of the packets that are held back, so that those behind them overtake them. */
  reorder: probability,
  reorderMs: ms,
  /** Bits of IP packets a second; 0: as fast as can be. */
  rate: z.number().min(0),
  /** What waits for its turn at that rate; what comes on top is dropped. */
  queueBytes: z.number().int().min(1),
  /** Bytes; larger packets vanish, as behind a router that says nothing. */
  mtu: z.number().int().min(68).max(65_535),
  /** Bytes: smaller packets are neither lost, doubled nor held back. */
  sizeMin: z.number().int().min(0),
  /** Nothing more goes in; what is under way arrives. */
  cut: z.boolean(),
})
/** One direction of a link. */
export type LinkSettings = z.infer<typeof linkSettingsShape>

export const changesShape = linkSettingsShape.partial()
export type LinkChanges = z.infer<typeof changesShape>

/** The settings with the changes. Throws where they are no settings. */
export function changed(settings: LinkSettings, changes: LinkChanges): LinkSettings {
  return linkSettingsShape.parse({ ...settings, ...changes })
}

export const directionShape = z.enum(['ab', 'ba'])
/** From the first end to the second, or back. */
export type Direction = z.infer<typeof directionShape>

/** A wire: nothing is done to any packet. */
export const WIRE: LinkSettings = {
  delayMs: 0,
  jitterMs: 0,
  loss: 0,
  lossBurst: 1,
  duplicate: 0,
  reorder: 0,
  reorderMs: 2,
  rate: 0,
  queueBytes: 256_000,
  mtu: 65_535,
  sizeMin: 0,
  cut: false,
}

const count = z.number().int().nonnegative()
export const linkCountsShape = z.object({
  /** Packets that came in; each of them, and each copy, is in exactly one of the counts up to `waiting`. */
  received: count,
  receivedBytes: count,
  duplicated: count,
  forwarded: count,
  lost: count,
  /** No room in the queue, or in memory. */
  overflowed: count,
  tooBig: count,
  /** Came while the link was cut. */
  cut: count,
  /** Not taken by the kernel at the far end. */
  refused: count,
  /** Under way just now. */
  waiting: count,
  /** Chosen to be held back. */
  heldBack: count,
  /** Forwarded behind a packet that had come in later. */
  reordered: count,
})
export type LinkCounts = z.infer<typeof linkCountsShape>

export const linkReportShape = z.object({
  seed: count,
  settings: z.object({ ab: linkSettingsShape, ba: linkSettingsShape }),
  ab: linkCountsShape,
  ba: linkCountsShape,
})
