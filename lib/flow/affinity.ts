/** Which host an idle flow was bound to, by its 5-tuple, so that it returns there. Bounded in number and age; the oldest goes first. */
export class Affinity {
  readonly #entries = new Map<string, { readonly peer: number; readonly until: number }>()

  constructor(
    readonly max: number,
    readonly timeout: number,
  ) {}

  remember(key: string, peer: number, now: number): void {
    this.#entries.delete(key)
    this.#entries.set(key, { peer, until: now + this.timeout })
    if (this.#entries.size <= this.max) return
    const oldest = this.#entries.keys().next()
    if (oldest.done !== true) this.#entries.delete(oldest.value)
  }

  /** Peer index, or undefined: nothing is remembered. */
  recall(key: string, now: number): number | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.until > now) return entry.peer
    this.#entries.delete(key)
    return undefined
  }
}
