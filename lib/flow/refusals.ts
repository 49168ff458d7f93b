import { Deadlines } from './deadlines.js'

/** Each is told again so long after it was told first, ms: a busy machine takes its time to leave connect(). */
const AGAIN_MS = [4, 16, 64] as const
const WAITING_MAX = 1_024

interface Refusal {
  readonly packet: Uint8Array
  readonly since: number
  /** How often it has been told again. */
  again: number
}

/**
 * ICMP errors that answer a SYN. While the program is still inside connect(), its kernel only notes such an error (Linux: tcp_v4_err, tcp_v6_err, of a socket that is in use), and the program
 * learns of it by the answer to its next SYN, a second later. So it is told again; a kernel that has taken it has no such socket any more.
 */
export class Refusals {
  readonly #due = new Deadlines<Refusal>()

  constructor(
    private readonly components: {
      /** Borrowed for the call. */
      readonly write: (packet: Uint8Array) => void
      /** There is no room to tell one again. */
      readonly overflow: () => void
    },
  ) {}

  /** When {@link handleTimeout} is to be called; Infinity: there is nothing to tell again. */
  get nextTimeout(): number {
    return this.#due.next
  }

  /** Tells it now, and some times again. The packet is kept. */
  tell(packet: Uint8Array, now: number): void {
    this.components.write(packet)
    if (this.#due.size < WAITING_MAX) this.#due.add(now + AGAIN_MS[0], { packet, since: now, again: 0 })
    else this.components.overflow()
  }

  handleTimeout(now: number): void {
    for (let refusal = this.#due.take(now); refusal !== undefined; refusal = this.#due.take(now)) {
      this.components.write(refusal.packet)
      refusal.again++
      const after = AGAIN_MS[refusal.again]
      if (after !== undefined) this.#due.add(refusal.since + after, refusal)
    }
  }
}
