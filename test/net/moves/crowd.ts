import { fileURLToPath } from 'node:url'
import { AskedProgram, monotonicNow } from './asked-program.js'
import type { ClientState, CrowdCommand, ServerState } from './crowd-end.js'
import type { MoveNet } from './move-net.js'

const end = fileURLToPath(new URL('crowd-end.js', import.meta.url))
const SERVICE = 'crowd'
const PORT = 9_300
const EVERY_MS = 25

export interface CrowdOptions {
  readonly connections: number
  /** So many of them send all the time while something moves. */
  readonly senders: number
}

/** What all connections of a crowd came to in a move. */
export interface CrowdReport {
  /** Empty: all of them are there, no byte was wrong, none was accepted anew. */
  readonly errors: readonly string[]
  /** Records sent from the beginning of the move on, a round of all connections included. */
  readonly sentMeanwhile: number
  /** The longest that a record took while things moved, ms. */
  readonly slowestMs: number
  /** How long after the move a record of every connection had come back, ms. */
  readonly allBackMs: number
}

/** Many connections of one program of the first host to one of the second, by a service. */
export class Crowd {
  #slowestMs = 0

  private constructor(
    readonly options: CrowdOptions,
    private readonly client: AskedProgram,
    private readonly server: AskedProgram,
  ) {}

  static async open(net: MoveNet, options: CrowdOptions): Promise<Crowd> {
    const [from = '', to = ''] = net.hosts
    const server = AskedProgram.onHost(net.lab, to, [process.execPath, end, 'serve', String(PORT)])
    try {
      await server.said()
      const name = await net.serve(SERVICE, to, [{ protocol: 'tcp', port: PORT }])
      const words = [process.execPath, end, 'open', name, String(PORT), String(options.connections)]
      const client = AskedProgram.onHost(net.lab, from, words)
      try {
        await client.said()
      } catch (error) {
        await client.close()
        throw error
      }
      return new Crowd(options, client, server)
    } catch (error) {
      await server.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.client.close(), this.server.close()])
  }

  /** A record of each connection goes there and back. */
  async round(limitMs: number): Promise<readonly string[]> {
    await this.#ask({ do: 'round' })
    return this.#quiet(limitMs)
  }

  /** Before, while and after `move` is made all connections have their records echoed. */
  async through(move: () => Promise<unknown>, limitMs: number): Promise<CrowdReport> {
    const { senders } = this.options
    const before = await this.round(limitMs)
    const started = await this.#ask({ do: 'start', senders, everyMs: EVERY_MS })
    // Each of them has sent something.
    let state = started
    while (state.sent < started.sent + senders && state.errors.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS / 4))
      state = await this.#ask({ do: 'state' })
    }
    this.#slowestMs = 0
    const moved = monotonicNow()
    await move()
    // Those that had nothing to say until now.
    await this.#ask({ do: 'round' })
    const { sent } = await this.#ask({ do: 'stop' })
    const during = await this.#quiet(limitMs)
    const allBackMs = monotonicNow() - moved
    const slowestMs = this.#slowestMs
    const after = await this.round(limitMs)
    const { connections } = this.options
    const server: ServerState = JSON.parse(await this.server.ask('{"do":"state"}'))
    const { accepted, open, errors } = server
    const counted = accepted === connections && open === connections ? [] : [`${accepted} accepted, ${open} open`]
    return {
      errors: [...new Set([...before, ...during, ...after, ...errors, ...counted])],
      sentMeanwhile: sent - state.sent,
      slowestMs,
      allBackMs,
    }
  }

  /** Waits until everything has come back; what was wrong. */
  async #quiet(limitMs: number): Promise<readonly string[]> {
    for (const deadline = monotonicNow() + limitMs; ;) {
      const { waiting, open, errors } = await this.#ask({ do: 'state' })
      if (errors.length > 0) return errors
      if (open < this.options.connections) return [`${open} connections are open`]
      if (waiting === 0) return []
      if (monotonicNow() > deadline) return [`${waiting} connections still wait after ${limitMs} ms`]
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async #ask(command: CrowdCommand): Promise<ClientState> {
    const state: ClientState = JSON.parse(await this.client.ask(JSON.stringify(command)))
    this.#slowestMs = Math.max(this.#slowestMs, state.slowestMs)
    return state
  }
}
