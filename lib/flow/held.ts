import type { DialledTarget } from './environment.js'

/** A first packet whose service nobody has told us of yet. */
export interface HeldPacket {
  readonly target: DialledTarget
  /** vnet header and all. */
  readonly packet: Uint8Array
  readonly until: number
}

/** First packets held by a DELAY rule, oldest first, bounded by number and bytes; what comes when it is full is refused. */
export class HeldPackets {
  #held: HeldPacket[] = []
  #bytes = 0

  constructor(
    private readonly packetsMax: number,
    private readonly bytesMax: number,
  ) {}

  get next(): number {
    return this.#held[0]?.until ?? Infinity
  }

  /** False: there is no room. */
  add(held: HeldPacket): boolean {
    if (this.#held.length >= this.packetsMax || this.#bytes + held.packet.length > this.bytesMax) return false
    this.#held.push(held)
    this.#bytes += held.packet.length
    return true
  }

  /** Everything that is held; it is not any more. */
  takeAll(): HeldPacket[] {
    const held = this.#held
    this.#held = []
    this.#bytes = 0
    return held
  }
}
