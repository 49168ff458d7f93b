export type AddressStanding = 'usable' | 'deprecated' | 'gone'

/** Bytes that may go to an address before it is proven, for each that came from there, or by which it was named. */
const AMPLIFICATION = 3
/** Between probes of an address that the peer itself has named, when three times what it was named with has gone there: the first wait, doubled each time, and the longest, ms. */
const REST_MS = 5_000
const REST_MAX_MS = 300_000
/** Bytes in which a peer tells of its addresses, at least: signature and names, and each address. */
const ANNOUNCED = { record: 100, locator: 8 } as const

/** Bytes for each of so many addresses that the peer's record names, at least. */
export function announcedBytes(addresses: number): number {
  return Math.floor((ANNOUNCED.record + addresses * ANNOUNCED.locator) / Math.max(addresses, 1))
}

/** One address of a peer, which all paths to there share, from whichever own address: what the peer says of it, and how much may go there before it is proven. */
export class Remote {
  /** The peer is about to leave this address, or has left it. */
  standing: AddressStanding = 'usable'
  /** The peer has said that it is there. */
  announced = false
  /** Somebody answers there: other frames than probes may go there. */
  validated = false
  /** Bytes that may go there until then. */
  credit = 0
  /** Something has come from there, or has been given for its being named. */
  #known = false
  /** Until when nothing goes there for want of credit; 0: there was no want yet. And how long the next time, ms. */
  #restsUntil = 0
  #restMs = REST_MS

  constructor(
    /** Address record; the own address in it is of no account. */
    readonly record: Uint8Array,
  ) {}

  /** Whether so many bytes may go there before it is proven, which are counted then. */
  mayCarry(bytes: number): boolean {
    if (this.validated) return true
    if (this.credit < bytes) return false
    this.credit -= bytes
    return true
  }

  /** As {@link mayCarry}, for a probe: an address that the peer itself has named is tried for ever, more and more seldom. */
  mayProbe(bytes: number, now: number): boolean {
    if (this.validated) return true
    const rested = this.announced && this.#restsUntil > 0 && now >= this.#restsUntil
    const may = this.mayCarry(bytes) || rested
    if (rested || (!may && this.#restsUntil <= now)) this.#rest(now)
    return may
  }

  /** When a probe of so many bytes is to be tried, ms: for want of credit once, as that is counted; Infinity: not before something comes from there. */
  opensAt(bytes: number): number {
    if (this.validated || this.credit >= bytes) return -Infinity
    return this.announced || this.#restsUntil === 0 ? this.#restsUntil : Infinity
  }

  /** So many bytes came from there. */
  came(bytes: number): void {
    this.#known = true
    if (!this.validated) this.credit += AMPLIFICATION * bytes
  }

  /**
   * The peer has named it the first time, by so many bytes of a message. When that came from an address that is not proven either, what may go there for it is shared with it, but for the `left` bytes of what
   * answers it.
   */
  named(bytes: number, from: Remote | undefined, left: number): void {
    if (this.#known || this.validated) return
    this.#known = true
    let given = AMPLIFICATION * bytes
    if (from?.validated === false) {
      given = Math.min(given, Math.max(from.credit - left, 0))
      from.credit -= given
    }
    this.credit += given
  }

  /** The peer says that it is there. */
  announce(now: number): void {
    this.announced = true
    this.#restMs = REST_MS
    this.#restsUntil = Math.min(this.#restsUntil, now + REST_MS)
  }

  /** Nothing goes there for a while, each time for twice as long. */
  #rest(now: number): void {
    this.#restsUntil = now + this.#restMs
    this.#restMs = Math.min(2 * this.#restMs, REST_MAX_MS)
  }
}
