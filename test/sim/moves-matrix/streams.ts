import type { WorldHost } from '../host-world.js'
import type { Family, TcpSocket, UdpSocket } from '../virtual-kernel.js'

/** Bytes of a piece of a TCP stream. */
const PIECE = 8
const PORT = 80
const LOCAL_PORT = 8_080
export const SERVICE = 'paced'
/** Between first datagrams, ms. */
const GREET_MS = 1_000

/** Something sent one way, in numbered pieces, and when each of them came. */
export class OneWay {
  readonly sentAt: number[] = []
  /** By number; -1: it has not come. */
  readonly cameAt: number[] = []
  /** Moments at which something new came, in their order. */
  readonly arrivals: number[] = []
  twice = 0
  /** The highest number that has come. */
  newest = -1

  constructor(readonly name: string) {}

  /** The number of the next piece. */
  next(now: number): number {
    this.cameAt.push(-1)
    return this.sentAt.push(now) - 1
  }

  came(n: number, now: number): void {
    if (this.cameAt[n] !== -1) {
      this.twice++
      return
    }
    this.cameAt[n] = now
    this.arrivals.push(now)
    this.newest = Math.max(this.newest, n)
  }

  get lost(): number {
    return this.cameAt.filter((at) => at < 0).length
  }

  /** Whether something has come that was sent after that. */
  hasPassed(since: number): boolean {
    return this.newest >= 0 && this.sentAt[this.newest]! > since
  }

  /** The longest time between the two moments in which nothing new came, ms. */
  longestGap(from: number, to: number): number {
    let longest = 0
    let last = from
    for (const at of this.arrivals) {
      if (at <= from) continue
      if (at > to) break
      longest = Math.max(longest, at - last)
      last = at
    }
    return Math.max(longest, to - last)
  }
}

/** A TCP connection and a UDP conversation between programs of two hosts, both ends of which send all the time. */
export class Streams {
  readonly tcp = [new OneWay('TCP there'), new OneWay('TCP back')] as const
  readonly udp = [new OneWay('UDP there'), new OneWay('UDP back')] as const
  readonly #sockets: TcpSocket[] = []
  readonly #datagrams: UdpSocket[] = []
  /** Counts up whenever sending begins or ends. */
  #life = 0

  constructor(
    readonly client: WorldHost,
    readonly server: WorldHost,
    readonly families: { readonly client: Family; readonly server: Family },
    /** ms between pieces. */
    readonly pace: number,
  ) {
    server.expose(SERVICE, PORT, { family: families.server, listens: false })
    server.kernel.listenTcp(LOCAL_PORT, { banner: '', accepted: (socket) => this.#tcpEnd(1, socket) })
    server.kernel.serveUdp(LOCAL_PORT, (socket) => this.#udpEnd(1, socket))
  }

  get all(): readonly OneWay[] {
    return [...this.tcp, ...this.udp]
  }
  /** Both ends of the connection, as far as they are there; the client's is the first. */
  get sockets(): readonly TcpSocket[] {
    return this.#sockets
  }

  /** The client's programs call the service. */
  open(): void {
    const { client, families } = this
    this.#tcpEnd(0, client.connect(SERVICE, PORT, families.client))
    this.#udpEnd(0, client.udp(SERVICE, PORT, families.client))
    this.#greet()
  }

  /** The first datagram makes the server's end; it may be lost. */
  #greet(): void {
    const { client } = this
    client.program(() => this.#sendUdp(0))
    client.world.events.at(client.world.now + GREET_MS, () => {
      if (this.#datagrams.length < 2) this.#greet()
    })
  }

  get isOpen(): boolean {
    return this.#sockets.length === 2 && this.#sockets.every((socket) => socket.open) && this.#datagrams.length === 2
  }

  start(): void {
    const life = ++this.#life
    this.#send(0, life)
    const { world } = this.server
    world.events.at(world.now + this.pace / 2, () => this.#send(1, life))
  }

  stop(): void {
    this.#life++
  }

  /** All that was written has come. */
  get isWhole(): boolean {
    return this.tcp.every((way) => way.newest === way.sentAt.length - 1)
  }

  /** Whether what came by TCP is what was sent, byte for byte. */
  get isTrue(): boolean {
    const [client, server] = this.#sockets
    if (client === undefined || server === undefined) return false
    return sameStream(client, server) && sameStream(server, client)
  }

  #tcpEnd(end: 0 | 1, socket: TcpSocket): void {
    this.#sockets[end] = socket
    const way = this.tcp[1 - end]!
    let pieces = 0
    socket.onData = () => {
      for (; (pieces + 1) * PIECE <= socket.received.length; pieces++) way.came(pieces, socket.kernel.now)
    }
  }

  #udpEnd(end: 0 | 1, socket: UdpSocket): void {
    this.#datagrams[end] = socket
    const way = this.udp[1 - end]!
    socket.onData = (text) => way.came(Number(text), socket.kernel.now)
  }

  #send(end: 0 | 1, life: number): void {
    if (life !== this.#life) return
    const host = end === 0 ? this.client : this.server
    const { world } = host
    host.program(() => {
      this.#sendUdp(end)
      this.#sendTcp(end)
    })
    world.events.at(world.now + this.pace, () => this.#send(end, life))
  }

  #sendUdp(end: 0 | 1): void {
    const socket = this.#datagrams[end]
    if (socket !== undefined) socket.send(String(this.udp[end]!.next(socket.kernel.now)))
  }

  #sendTcp(end: 0 | 1): void {
    const socket = this.#sockets[end]
    if (socket === undefined) return
    const n = this.tcp[end]!.next(socket.kernel.now)
    socket.write(Uint8Array.from({ length: PIECE }, (_, i) => (n * 31 + i * 7 + end) & 255))
  }
}

function sameStream(sender: TcpSocket, receiver: TcpSocket): boolean {
  const { length } = sender.sent
  if (receiver.received.length !== length) return false
  const sent = sender.sent.slice(0, length)
  return receiver.received.slice(0, length).every((byte, i) => byte === sent[i])
}
