import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { StreamCommand, StreamState } from '../bench/moves-stream.js'
import type { Fixture } from './fixture.js'
import { AskedProgram, monotonicNow } from './moves/asked-program.js'

const PORT = 7_000
/** Between records, ms. */
const EVERY = '1'
const program = fileURLToPath(new URL('../bench/moves-stream.js', import.meta.url))
/** Of the daemon that is not there to wait for. */
const READY_MS = 20_000

/** A TCP and a UDP stream, each way, between h1 and a service on h2. */
export class Streams {
  private constructor(
    private readonly net: Fixture,
    private readonly ends: readonly [client: AskedProgram, server: AskedProgram],
  ) {}

  static async open(t: Test, net: Fixture): Promise<Streams> {
    const words = (mode: string, ...more: string[]) => [process.execPath, program, mode, EVERY, ...more, String(PORT)]
    const server = AskedProgram.onHost(net.lab, 'h2', words('serve'))
    t.teardown(() => server.close())
    await server.said()
    await net.caracal('h2', 'expose', 'stream', '--tcp', String(PORT), '--udp', String(PORT))
    await net.knows('h1', 'stream', ['h2'])
    const client = AskedProgram.onHost(net.lab, 'h1', words('open', 'stream.svc.internal'))
    t.teardown(() => client.close())
    await client.said()
    return new Streams(net, [client, server])
  }

  /** Waits until what was sent from now on has come, both ways, of both protocols. */
  async flow(): Promise<void> {
    const since = monotonicNow()
    const sent = await this.#ask('state')
    await this.net.until(
      'both streams flow again, both ways',
      async () => {
        const now = await this.#ask('state')
        return now.every(
          ({ bytesReceived, tcpAt, udpAt }, i) =>
            tcpAt > since && udpAt > since && bytesReceived > sent[1 - i]!.bytesSent,
        )
      },
      READY_MS,
    )
  }

  /** Nothing is sent any more: what both ends say when everything has come. */
  async end(): Promise<readonly [client: StreamState, server: StreamState]> {
    await this.#ask('stop')
    let states = await this.#ask('state')
    await this.net.until('everything has come', async () => {
      states = await this.#ask('state')
      return states.every(({ bytesReceived }, i) => bytesReceived === states[1 - i]!.bytesSent)
    })
    return states
  }

  async #ask(what: 'state' | 'stop'): Promise<[StreamState, StreamState]> {
    const command: StreamCommand = { do: what }
    const ask = async (end: AskedProgram): Promise<StreamState> => JSON.parse(await end.ask(JSON.stringify(command)))
    const [client, server] = this.ends
    return Promise.all([ask(client), ask(server)])
  }
}
