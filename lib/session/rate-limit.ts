import { HANDSHAKE_BURST, HANDSHAKES_PER_SECOND } from '../wire/constants.js'

interface Bucket {
  tokens: number
  at: number
}

export interface RateLimitOptions {
  /** Tokens a second and source. */
  readonly rate?: number
  readonly burst?: number
  /** Sources remembered. */
  readonly capacity?: number
}

/**
 * A token bucket a source address, whatever its port; an IPv6 source is its /64, since one host has them all. In bounded memory: a bucket that has filled up
 * again says nothing and may go; when all are in use, unknown sources are refused.
 */
export class RateLimit {
  /** In order of last use, oldest first. */
  readonly #buckets = new Map<string, Bucket>()
  readonly #rate: number
  readonly #burst: number
  readonly #capacity: number

  constructor(options: RateLimitOptions = {}) {
    this.#rate = options.rate ?? HANDSHAKES_PER_SECOND
    this.#burst = options.burst ?? HANDSHAKE_BURST
    this.#capacity = options.capacity ?? 8192
  }

  get size(): number {
    return this.#buckets.size
  }

  /** Takes a token of the source with this address record; false: none left. */
  allow(address: Uint8Array, now: number): boolean {
    const key = sourceKey(address)
    const bucket = this.#buckets.get(key)
    if (bucket === undefined) {
      if (this.#buckets.size >= this.#capacity && !this.#makeRoom(now)) return false
      this.#buckets.set(key, { tokens: this.#burst - 1, at: now })
      return true
    }
    const tokens = this.#filled(bucket, now)
    bucket.tokens = tokens
    bucket.at = now
    this.#buckets.delete(key)
    this.#buckets.set(key, bucket)
    if (tokens < 1) return false
    bucket.tokens = tokens - 1
    return true
  }

  #filled(bucket: Bucket, now: number): number {
    return Math.min(this.#burst, bucket.tokens + ((now - bucket.at) / 1000) * this.#rate)
  }

  #makeRoom(now: number): boolean {
    for (const [key, bucket] of this.#buckets) {
      if (this.#filled(bucket, now) < this.#burst) return false
      this.#buckets.delete(key)
      return true
    }
    return false
  }
}

function sourceKey(address: Uint8Array): string {
  const linkLocal = address[8] === 0xfe && (address[9]! & 0xc0) === 0x80
  if (address[0] === 4) return String.fromCharCode(4, ...address.subarray(8, 12))
  // Link-local neighbours share a prefix but are different hosts; their scope is part of who they are.
  return String.fromCharCode(6, ...(linkLocal ? address.subarray(4, 24) : address.subarray(8, 16)))
}
