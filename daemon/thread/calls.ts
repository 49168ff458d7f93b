// Calls between two threads of this process. Both ends are ours and of one version: what comes is what the other end's typed functions were given or returned,
// copied (structured clone).

import type { MessagePort, Worker } from 'node:worker_threads'
import { CaracalError, isErrorCode, messageOf } from '../errors.js'

/** What one thread does for the other, by name. Argument and result are plain data. */
export interface Methods {
  readonly [name: string]: { readonly argument: unknown; readonly result: unknown }
}
/** The functions behind them. */
export type Implementation<M> = {
  readonly [K in keyof M]: M[K] extends { argument: infer A; result: infer R } ? (argument: A) => Promise<R> | R : never
}

/** An error as plain data: a class does not survive the copy. */
interface PlainError {
  readonly code: string | undefined
  readonly what: string
  readonly next: string | undefined
  readonly stack: string | undefined
}

/** `never`: fits whatever the receiver's types say it is. */
type Message =
  | { readonly kind: 'call'; readonly id: number; readonly name: string; readonly argument: never }
  | { readonly kind: 'result'; readonly id: number; readonly value: never }
  | { readonly kind: 'error'; readonly id: number; readonly error: PlainError }
  | { readonly kind: 'tell'; readonly name: string; readonly argument: never }

type Waiting = { readonly resolve: (value: never) => void; readonly reject: (error: unknown) => void }
type AnyFunction = (argument: never) => unknown

/** One end. `Own`: what this thread does for the other one; `Other`: what that one does for this. */
export class ThreadCalls<Own extends Methods, Other extends Methods> {
  readonly #waiting = new Map<number, Waiting>()
  readonly #own: ReadonlyMap<string, AnyFunction>
  #last = 0
  #ended: unknown

  constructor(
    private readonly port: MessagePort | Worker,
    own: Implementation<Own>,
    /** A function that was told something, and so has nobody to answer to, has thrown. */
    private readonly fault: (error: unknown) => void,
  ) {
    this.#own = new Map<string, AnyFunction>(Object.entries(own))
    port.on('message', (message: Message) => void this.#take(message))
  }

  /** Rejects with what the other thread's function threw: a CaracalError as such, anything else as an Error; or when that thread has ended. */
  call<K extends keyof Other & string>(name: K, argument: Other[K]['argument']): Promise<Other[K]['result']> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended)
      const id = ++this.#last
      this.#waiting.set(id, { resolve, reject })
      this.port.postMessage({ kind: 'call', id, name, argument })
    })
  }

  /** Nothing comes back. */
  tell<K extends keyof Other & string>(name: K, argument: Other[K]['argument']): void {
    this.port.postMessage({ kind: 'tell', name, argument })
  }

  /** The other thread is gone: nothing that was asked of it will be answered. */
  end(error: unknown): void {
    this.#ended = error
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }

  async #take(message: Message): Promise<void> {
    switch (message.kind) {
      case 'result': {
        this.#answered(message.id)?.resolve(message.value)
        return
      }
      case 'error': {
        this.#answered(message.id)?.reject(revived(message.error))
        return
      }
      case 'call': {
        const { id } = message
        try {
          this.port.postMessage({ kind: 'result', id, value: await this.#run(message.name, message.argument) })
        } catch (error) {
          this.port.postMessage({ kind: 'error', id, error: plainError(error) })
        }
        return
      }
      case 'tell':
        try {
          await this.#run(message.name, message.argument)
        } catch (error) {
          this.fault(error)
        }
    }
  }

  #run(name: string, argument: never): unknown {
    const run = this.#own.get(name)
    if (run === undefined) throw new Error(`the other thread knows no ${name}`)
    return run(argument)
  }

  #answered(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    return waiting
  }
}

export function plainError(error: unknown): PlainError {
  const stack = error instanceof Error ? error.stack : undefined
  if (error instanceof CaracalError) return { code: error.code, what: error.what, next: error.next, stack }
  return { code: undefined, what: messageOf(error), next: undefined, stack }
}

function revived({ code, what, next, stack }: PlainError): Error {
  const error = code !== undefined && isErrorCode(code) ? new CaracalError(code, what, next) : new Error(what)
  if (stack !== undefined) error.stack = stack
  return error
}
