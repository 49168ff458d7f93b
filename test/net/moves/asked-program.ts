import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Lab } from '../../../cli/lab/lab.js'
import { labEnvironment } from '../../../cli/lab/holder.js'

/** A time that means the same in all processes of this machine, ms. */
export function monotonicNow(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1e3 + nanoseconds / 1e6
}

/** A program that answers each line on its stdin by one on its stdout. */
export class AskedProgram {
  readonly #answers: { readonly resolve: (line: string) => void; readonly reject: (error: Error) => void }[] = []
  #errors = ''
  #ended: string | undefined

  private constructor(
    readonly name: string,
    private readonly child: ChildProcess,
  ) {
    child.stdin?.on('error', () => undefined)
    createInterface({ input: child.stdout! }).on('line', (line) => this.#answers.shift()?.resolve(line))
    child.stderr?.on('data', (chunk: Buffer) => (this.#errors = (this.#errors + chunk.toString()).slice(-2_000)))
    child.once('error', (error) => this.#end(error.message))
    child.once('close', (code, signal) => this.#end(`it ended with ${code ?? signal}`))
  }

  /** Runs where `words` lead. */
  static start(name: string, words: readonly string[], environment = labEnvironment()): AskedProgram {
    const [command = '', ...rest] = words
    return new AskedProgram(name, spawn(command, rest, { env: environment, stdio: ['pipe', 'pipe', 'pipe'] }))
  }

  static onHost(lab: Lab, host: string, words: readonly string[]): AskedProgram {
    return new AskedProgram(`${words[1] ?? ''} on ${host}`, lab.spawn(host, words, { stdio: ['pipe', 'pipe', 'pipe'] }))
  }

  get errors(): string {
    return this.#errors
  }

  /** The next line that it says, after it has been told this one. */
  ask(line: string): Promise<string> {
    const answer = this.said()
    this.child.stdin?.write(`${line}\n`)
    return answer
  }

  /** The next line that it says by itself. */
  said(): Promise<string> {
    if (this.#ended !== undefined) return Promise.reject(new Error(this.#ended))
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }))
  }

  /** Nothing more is told it; the last line that it says. */
  finish(): Promise<string> {
    const answer = this.said()
    this.child.stdin?.end()
    return answer
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return
    await new Promise<void>((resolve) => {
      this.child.once('close', () => resolve())
      this.child.kill('SIGKILL')
    })
  }

  #end(why: string): void {
    this.#ended ??= `${this.name}: ${why}: ${this.#errors.trim()}`
    for (const { reject } of this.#answers.splice(0)) reject(new Error(this.#ended))
  }
}
