import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../wire/batch.js'
import type { AddressTable } from './address-table.js'
import { sameRemote } from './address-record.js'
import { sameBytes } from './path.js'

/** Probes of one question, each given twice the time of the one before: any may be lost, and on a busy host an echo takes long. */
const TRIES = 6

/**
 * From which of this host's addresses its kernel sends to a peer, while paths name their own: its routes say so. A probe that names none asks, and the address to which its echo comes is the
 * answer, which has proven itself by that.
 */
export class SourceChoice {
  /** When the next probe that asks is due; Infinity: nothing is to be asked. */
  dueAt = Infinity
  /** The last answer, and of which address of the peer. */
  #known: { readonly remote: Uint8Array; readonly local: Uint8Array } | undefined
  /** Where its probes go; -1: nothing is asked. */
  #slot = -1
  readonly #asked: { readonly token: Uint8Array; readonly sentAt: number }[] = []

  constructor(private readonly addresses: AddressTable) {}

  /** It is known without a question: the peer's frames go as the kernel chooses, and what comes back comes to `local`. Both are kept. */
  learnt(record: Uint8Array, local: Uint8Array): void {
    this.#known = { remote: record, local }
  }

  /** Whether the kernel has been asked of the peer's address in the record before. */
  knows(record: Uint8Array): boolean {
    return this.#known !== undefined && sameRemote(this.#known.remote, record)
  }

  /** Its answer may be another one from now on. */
  ask(now: number): void {
    this.#close()
    this.dueAt = now
  }

  /** A probe that asks goes to where the record says. Returns the address slot for it; -1: there is none, or it was asked often enough. */
  probed(record: Uint8Array, token: Uint8Array, now: number, patience: number): number {
    this.dueAt = Infinity
    // What was asked of another address of the peer tells nothing of this one.
    if (this.#slot >= 0 && !sameRemote(record, this.addresses.records, 0, this.#slot * ADDRESS_RECORD)) this.#close()
    if (this.#asked.length >= TRIES) {
      this.#close()
      return -1
    }
    if (this.#slot < 0) this.#slot = this.addresses.acquire(record.slice().fill(0, ADDRESS_LOCAL))
    if (this.#slot < 0) return -1
    this.dueAt = now + patience * 2 ** this.#asked.length
    this.#asked.push({ token, sentAt: now })
    return this.#slot
  }

  /** When the probe with this token was sent, if it is one of the question; undefined: it is not. */
  answered(token: Uint8Array): number | undefined {
    const probe = this.#asked.find((asked) => sameBytes(asked.token, token))
    if (probe !== undefined) this.#close()
    return probe?.sentAt
  }

  /** The answer. Returns whether it was another one before. */
  answer(record: Uint8Array, local: Uint8Array): boolean {
    const before = this.#known
    this.learnt(record, local)
    return before !== undefined && sameRemote(before.remote, record) && !sameBytes(before.local, local)
  }

  /** Nothing is asked any more. */
  release(): void {
    this.#close()
    this.#known = undefined
  }

  #close(): void {
    if (this.#slot >= 0) this.addresses.release(this.#slot)
    this.#slot = -1
    this.#asked.length = 0
    this.dueAt = Infinity
  }
}
