import { CaracalError } from './errors.js'
import type { StateDirectory } from './state-files.js'

/** Numbers reserved on disk at a time. */
const BLOCK = 65_536

/**
 * Numbers that only go up, over restarts and crashes too: a block of them is reserved on disk before the first of it is given out, so a number is never given out twice. For
 * stamps of handshakes and sequence numbers of records.
 */
export class CounterFile {
  #next: number
  #limit: number
  #reserving: Promise<void> | undefined

  private constructor(
    private readonly state: StateDirectory,
    private readonly name: string,
    first: number,
  ) {
    this.#next = first
    this.#limit = first
  }

  /**
   * `least`: no number below this, such as the time in ms, should the file be lost. `unused`: the first that the last process has not given out, if it has told: those that it had reserved are used first, and
   * nothing is waited for.
   */
  static async open(state: StateDirectory, name: string, least = 1, unused?: number): Promise<CounterFile> {
    const used = await state.read(name, decode)
    if (unused !== undefined && used !== undefined && unused < used) {
      const counter = new CounterFile(state, name, unused)
      counter.#limit = used
      return counter
    }
    const counter = new CounterFile(state, name, Math.max((used ?? 0) + 1, least))
    await counter.#reserve()
    return counter
  }

  /** The first number that was not given out. */
  get unused(): number {
    return this.#next
  }

  next(): number {
    if (this.#next >= this.#limit) {
      // There may be room again by the next time.
      void this.#reserve().catch(() => undefined)
      throw new CaracalError(
        'CARACAL_E_STATE',
        `the file ${this.name} could not be written in time`,
        'is the disk full?',
      )
    }
    if (this.#limit - this.#next < BLOCK / 2) void this.#reserve().catch(() => undefined)
    return this.#next++
  }

  /** Later numbers are above this one, which somebody has seen: the file was lost or put back. Blocks for a write to disk where that is beyond what is reserved. */
  raise(above: number): void {
    if (above < this.#next) return
    this.#next = above + 1
    if (this.#next < this.#limit) return
    this.#limit = this.#next + BLOCK
    try {
      this.state.writeNow(this.name, encode(this.#limit))
    } catch {
      // Who has told of the number will tell again after a crash; until then it is better to go on.
    }
  }

  #reserve(): Promise<void> {
    if (this.#reserving !== undefined) return this.#reserving
    const limit = Math.max(this.#next, this.#limit) + BLOCK
    this.#reserving = this.state
      .write(this.name, encode(limit))
      .then(() => {
        this.#limit = Math.max(this.#limit, limit)
      })
      .finally(() => {
        this.#reserving = undefined
      })
    return this.#reserving
  }
}

function encode(limit: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, limit)
  return bytes
}

function decode(bytes: Uint8Array): number | undefined {
  if (bytes.length !== 8) return undefined
  const value = new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0)
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
