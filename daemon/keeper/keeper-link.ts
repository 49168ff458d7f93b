import { CaracalError, messageOf } from '../errors.js'
import { native, nativeReason, type NativeHandle } from '../native.js'
import { decodeAnswer, endRequest, type KeeperAnswer, type KeeperRefusal, type KeeperState } from './keeper-wire.js'

const MESSAGE_MAX = 65_536
const DESCRIPTORS_MAX = 8

/** The keeper has ended, or what answers is none. */
export class KeeperGone extends CaracalError {
  constructor(what: string = 'the keeper has ended') {
    super('CARACAL_E_KEEPER', what, 'see whether anybody has killed caracal-keeper; the daemon starts another one')
  }
}

export class KeeperRefused extends CaracalError {
  constructor(readonly why: KeeperRefusal) {
    const next =
      why === 'full'
        ? 'let the daemon listen on fewer addresses (`listen`), or by fewer lanes (`loop.lanes`)'
        : 'is it of another version?'
    super('CARACAL_E_KEEPER', `the keeper has refused what it was told (${why})`, next)
  }
}

/** The answer to one request; what was held came with it, by name: the receiver closes the handles. */
interface Answered {
  readonly answer: Extract<KeeperAnswer, { kind: 'state' | 'done' }>
  readonly held: ReadonlyMap<string, NativeHandle>
}

interface Waiting {
  readonly resolve: (answered: Answered) => void
  readonly reject: (error: unknown) => void
}

/** A connection to the keeper of a state directory. One at a time; the keeper counts the time without one. */
export class KeeperLink {
  readonly #native = native()
  readonly #handle: NativeHandle
  readonly #waiting: Waiting[] = []
  readonly #data = new Uint8Array(MESSAGE_MAX)
  readonly #handles = new Int32Array(DESCRIPTORS_MAX + 1)
  #held = new Map<string, NativeHandle>()
  #open = true
  /** Said by who hangs up without being asked anything. */
  #refusal: KeeperRefusal | undefined
  #gone: () => void = () => undefined
  /** Resolves when the keeper has ended, or the connection was closed. */
  readonly ended = new Promise<void>((resolve) => (this.#gone = resolve))

  private constructor(handle: NativeHandle) {
    this.#handle = handle
    this.#native.watch(handle, () => this.#receive())
  }

  /** undefined: nobody listens in the directory. Throws CARACAL_E_KEEPER. */
  static connect(directory: string): KeeperLink | undefined {
    try {
      return new KeeperLink(native().keeperConnect(directory))
    } catch (error) {
      const reason = nativeReason(error)
      if (reason === 'ENOENT' || reason === 'ECONNREFUSED') return undefined
      const who = 'see who has made keeper.sock in the state directory'
      throw new CaracalError('CARACAL_E_KEEPER', messageOf(error), who, { cause: error })
    }
  }

  get open(): boolean {
    return this.#open
  }

  /** Requests are answered in their order. Rejects with KeeperRefused, or KeeperGone. */
  ask(request: Uint8Array, handles: readonly NativeHandle[] = []): Promise<Answered> {
    return new Promise((resolve, reject) => {
      if (!this.#open) return reject(this.#reason(undefined))
      try {
        this.#native.keeperSend(this.#handle, request, Int32Array.from(handles))
        this.#waiting.push({ resolve, reject })
      } catch (error) {
        this.#receive()
        reject(this.#reason(messageOf(error)))
      }
    })
  }

  #reason(what: string | undefined): CaracalError {
    return this.#refusal === undefined ? new KeeperGone(what) : new KeeperRefused(this.#refusal)
  }

  /** Has the keeper end, and with it what only it holds; resolves when it has. */
  async end(): Promise<void> {
    // Its answer is its end.
    await this.ask(endRequest()).catch(() => undefined)
    this.close()
  }

  /** The keeper is on its own from now on. Closing twice is allowed. */
  close(error: unknown = new KeeperGone('the connection to the keeper was closed')): void {
    if (!this.#open) return
    this.#open = false
    this.#native.close(this.#handle)
    closeHeld(this.#held)
    for (const { reject } of this.#waiting.splice(0)) reject(error)
    this.#gone()
  }

  #receive(): void {
    while (this.#open) {
      const length = this.#native.keeperReceive(this.#handle, this.#data, this.#handles)
      if (length < 0) return
      if (length === 0) return this.close(this.#reason(undefined))
      this.#take(decodeAnswer(this.#data.subarray(0, length)))
    }
  }

  #take(answer: KeeperAnswer | undefined): void {
    const handles = [...this.#handles.subarray(0, this.#handles.indexOf(-1))]
    if (answer?.kind === 'held' && handles.length === 1 && !this.#held.has(answer.name)) {
      this.#held.set(answer.name, handles[0]!)
      return
    }
    for (const handle of handles) this.#native.close(handle)
    const waiting = this.#waiting.shift()
    if (answer?.kind === 'refused' && waiting === undefined) {
      this.#refusal = answer.why
      return
    }
    if (answer === undefined || answer.kind === 'held' || handles.length > 0 || waiting === undefined) {
      waiting?.reject(new KeeperGone('what answers is no keeper'))
      return this.close()
    }
    if (answer.kind === 'refused') return waiting.reject(new KeeperRefused(answer.why))
    const held = this.#held
    this.#held = new Map()
    waiting.resolve({ answer, held })
  }
}

/** Closes what came with an answer and is not wanted, or has been taken over. */
export function closeHeld(held: ReadonlyMap<string, NativeHandle>): void {
  for (const handle of held.values()) native().close(handle)
}

/** Its state out of an answer that has it. */
export function stateOf({ answer }: Pick<Answered, 'answer'>): KeeperState {
  if (answer.kind !== 'state') throw new KeeperGone('what answers is no keeper')
  return answer
}
