const NONE = -1

export interface LivenessOptions {
  /** What was sent gets no answer for so long (and a round trip): the other end may have lost the session. */
  readonly silenceMs?: number
  /** What was received is answered by an empty frame when nothing else went back for so long; well below silenceMs. */
  readonly keepaliveMs?: number
}

/** Deadlines are rounded up to this, so that busy peers share their wake-ups. */
const GRAIN_MS = 50

/**
 * Passive keepalive. A host that has lost a session stays silent about its frames, so the sender has to notice: whoever receives something answers with something,
 * be it empty, and whoever gets no answer makes a new handshake. Nothing is sent on idle sessions. Typed arrays by peer index, for the data path.
 */
export class Liveness {
  readonly #silenceMs: number
  readonly #keepaliveMs: number
  /** When the first frame was sent that nothing has come back for. */
  readonly waitingSince: Float64Array
  /** When the first frame was received that nothing was sent back for. */
  readonly owedSince: Float64Array
  readonly usedAt: Float64Array

  constructor(capacity: number, options: LivenessOptions = {}) {
    this.#silenceMs = options.silenceMs ?? 2000
    this.#keepaliveMs = options.keepaliveMs ?? 500
    this.waitingSince = new Float64Array(capacity).fill(NONE)
    this.owedSince = new Float64Array(capacity).fill(NONE)
    this.usedAt = new Float64Array(capacity).fill(-Infinity)
  }

  /** True: a deadline was set, {@link deadline} of the peer has changed. */
  sent(peer: number, now: number): boolean {
    this.usedAt[peer] = now
    this.owedSince[peer] = NONE
    if (this.waitingSince[peer] !== NONE) return false
    this.waitingSince[peer] = now
    return true
  }

  /** Something came in that wants an answer. True as in {@link sent}. */
  received(peer: number, now: number): boolean {
    this.usedAt[peer] = now
    if (this.owedSince[peer] !== NONE) return false
    this.owedSince[peer] = now
    return true
  }

  /** Something came in on the session that we send on. */
  heard(peer: number): void {
    this.waitingSince[peer] = NONE
  }

  /** Something was sent that wants no answer: an empty frame, an echo, an acknowledgement. */
  answered(peer: number): void {
    this.owedSince[peer] = NONE
  }

  usedSince(peer: number, time: number): boolean {
    return this.usedAt[peer]! >= time
  }

  keepaliveAt(peer: number): number {
    return deadline(this.owedSince[peer]!, this.#keepaliveMs)
  }

  silentAt(peer: number, rttMs: number): number {
    return deadline(this.waitingSince[peer]!, this.#silenceMs + rttMs)
  }

  clear(peer: number): void {
    this.waitingSince[peer] = NONE
    this.owedSince[peer] = NONE
  }
}

function deadline(since: number, after: number): number {
  return since === NONE ? Infinity : Math.ceil((since + after) / GRAIN_MS) * GRAIN_MS
}
