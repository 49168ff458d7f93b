import type { Primitives } from '../crypto/primitives.js'
import type { HandshakeIndexes } from './initiation.js'

/** Our handshake indexes that an answer may come for, each with what it belongs to. As large as its owners' outstanding messages. */
export class IndexTable<Owner> {
  readonly #owners = new Map<number, Owner>()

  constructor(readonly primitives: Primitives) {}

  owner(index: number): Owner | undefined {
    return this.#owners.get(index)
  }

  /** A random index for a message that needs no answer. */
  random(): number {
    const [a, b, c, d] = this.primitives.randomBytes(4)
    return (a! | (b! << 8) | (c! << 16) | (d! << 24)) >>> 0
  }

  /** Indexes for this owner. */
  of(owner: Owner): HandshakeIndexes {
    return {
      take: () => {
        let index = this.random()
        while (index === 0 || this.#owners.has(index)) index = this.random()
        this.#owners.set(index, owner)
        return index
      },
      release: (index) => void this.#owners.delete(index),
    }
  }
}
