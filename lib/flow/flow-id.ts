// A flow ID is what one end calls a flow: the row of its table (u32) and a random generation (u32), both little-endian on the wire.
// It is only valid from the flow's peer, so 32 random bits per guess are what a peer has against the flows of its own.

/** Bytes of a flow ID on the wire. */
export const FLOW_ID_LENGTH = 8

/** 16 hex digits, as `flows --json` and the dump show it. */
export function formatFlowId(slot: number, generation: number): string {
  return hex32(slot) + hex32(generation)
}

/** The reverse of {@link formatFlowId}; undefined: malformed. */
export function parseFlowId(text: string): { slot: number; generation: number } | undefined {
  if (!/^[0-9a-f]{16}$/.test(text)) return undefined
  return { slot: Number.parseInt(text.slice(0, 8), 16), generation: Number.parseInt(text.slice(8), 16) }
}

function hex32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, '0')
}

const POOL = 1024

/** Random generations, never 0, drawn from the injected randomness a block at a time. */
export class Generations {
  #pool: Uint8Array = new Uint8Array(0)
  #at = 0

  constructor(readonly randomBytes: (length: number) => Uint8Array) {}

  /** A random u32 as a signed 32-bit number, not 0. */
  next(): number {
    for (;;) {
      if (this.#at + 4 > this.#pool.length) {
        this.#pool = this.randomBytes(POOL)
        this.#at = 0
      }
      const p = this.#pool
      const i = this.#at
      this.#at += 4
      const value = p[i]! | (p[i + 1]! << 8) | (p[i + 2]! << 16) | (p[i + 3]! << 24)
      if (value !== 0) return value
    }
  }
}
