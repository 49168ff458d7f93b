import type { WorldHost } from './host-world.js'
import type { UdpSocket } from './virtual-kernel.js'

/** A program that sends a numbered datagram every `every` ms, each of which its server sends back. */
export class DatagramStream {
  readonly socket: UdpSocket
  sent = 0
  stopped = false

  constructor(
    readonly client: WorldHost,
    service: string,
    port: number,
    readonly every: number,
    /** Bytes of each, at least. */
    readonly size = 100,
  ) {
    this.socket = client.udp(service, port)
    this.#send()
  }

  stop(): void {
    this.stopped = true
  }

  /** Datagrams that have come back. */
  get received(): number {
    return this.socket.received.length
  }

  /** What came back, by its numbers, in order. */
  get numbers(): number[] {
    return this.socket.received.map((text) => Number(/ (\d+) *$/.exec(text)?.[1] ?? -1))
  }

  /** Numbers from `first` to before `end` that did not come back. */
  missing(first: number, end: number): number[] {
    const there = new Set(this.numbers)
    return Array.from({ length: end - first }, (_, i) => first + i).filter((n) => !there.has(n))
  }

  /** What went wrong: datagrams that never came back, that came twice, or out of order. */
  problems(): string[] {
    const { numbers, sent } = this
    const lost = this.missing(0, sent)
    const disordered = numbers.filter((n, i) => i > 0 && n < numbers[i - 1]!)
    const problems: string[] = []
    if (lost.length > 0) problems.push(`${lost.length} of ${sent} lost: ${lost.slice(0, 10).join(', ')}…`)
    if (new Set(numbers).size < numbers.length)
      problems.push(`${numbers.length - new Set(numbers).size} came more than once`)
    if (disordered.length > 0) problems.push(`${disordered.length} came late: ${disordered.slice(0, 10).join(', ')}…`)
    return problems
  }

  #send(): void {
    if (this.stopped) return
    const { client, socket, every, size } = this
    client.program(() => socket.send(`${this.sent++}`.padEnd(size)))
    client.world.events.at(client.world.now + every, () => this.#send())
  }
}
