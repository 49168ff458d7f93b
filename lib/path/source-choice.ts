import { ADDRESS_LOCAL } from '../wire/batch.js'
import type { AddressTable } from './address-table.js'
import { remoteKey } from './candidates.js'
import { sameBytes } from './path.js'

/** Probes of one question: any may be lost. */
const TRIES = 3

/**
 * From which of this host's addresses its kernel sends to a peer, while paths name their own: its routes say so. A probe that names none asks, and the address to which its echo comes is the
 * answer, which has proven itself by that.
 */
export class SourceChoice {
  /** When the next probe that asks is due; Infinity: nothing is to be asked. */
  dueAt = Infinity
  /** The last answer, and of which address of the peer. */
  #known: { readonly remote: string; readonly local: Uint8Array } | undefined
  #question: { readonly slot: number; readonly token: Uint8Array; readonly sentAt: number } | undefined
  #tries = 0

  constructor(private readonly addresses: AddressTable) {}

  /** It is known without a question: the peer's frames go as the kernel chooses, and what comes back comes to `local`. */
  learnt(record: Uint8Array, local: Uint8Array): void {
    this.#known = { remote: remoteKey(record), local }
  }

  /** Whether the kernel has been asked of the peer's address in the record before. */
  knows(record: Uint8Array): boolean {
    return this.#known?.remote === remoteKey(record)
  }

  /** Its answer may be another one from now on. */
  ask(now: number): void {
    this.dueAt = now
    this.#tries = 0
  }

  /** A probe that asks goes to where the record says. Returns the address slot for it; -1: there is none, or it was asked often enough. */
  probed(record: Uint8Array, token: Uint8Array, now: number, patience: number): number {
    this.#close()
    const free = record.slice().fill(0, ADDRESS_LOCAL)
    const slot = this.#tries < TRIES ? this.addresses.acquire(free) : -1
    if (slot >= 0) {
      this.#tries++
      this.#question = { slot, token, sentAt: now }
      this.dueAt = now + patience
    }
    return slot
  }

  /** When the probe with this token was sent, if it was the question; undefined: it was not. */
  answered(token: Uint8Array): number | undefined {
    const { token: asked, sentAt } = this.#question ?? {}
    if (asked === undefined || !sameBytes(asked, token)) return undefined
    this.#close()
    return sentAt
  }

  /** The answer. Returns whether it was another one before. */
  answer(record: Uint8Array, local: Uint8Array): boolean {
    const before = this.#known
    this.learnt(record, local)
    return before?.remote === remoteKey(record) && !sameBytes(before.local, local)
  }

  /** Nothing is asked any more. */
  release(): void {
    this.#close()
    this.#known = undefined
  }

  #close(): void {
    if (this.#question !== undefined) this.addresses.release(this.#question.slot)
    this.#question = undefined
    this.dueAt = Infinity
  }
}
