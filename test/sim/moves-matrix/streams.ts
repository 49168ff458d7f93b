import type { WorldHost } from '../host-world.js'
import type { Family, TcpSocket, UdpSocket } from '../virtual-kernel.js'

/** Bytes of a piece of a TCP stream; and of one that fills a packet. */
const PIECE = 8
const LARGE_PIECE = 1_360
/** Payload of a large datagram, bytes: the ordinary way carries it whole, a narrow one does not. */
const LARGE_DATAGRAM = 1_340
/** Of so many pieces and datagrams one is large, where there are such. */
const LARGE_EVERY = 8
const PORT = 80
const LOCAL_PORT = 8_080
export const SERVICE = 'paced'
/** Between first datagrams, ms. */
const GREET_MS = 1_000

/** ms. */
export interface Span {
  readonly from: number
  readonly to: number
}

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

  /** What was sent outside these spans of time, both ends included, and has not come. */
  lostOutside(spans: readonly Span[]): number {
    const outside = (at: number) => spans.every(({ from, to }) => at < from || at > to)
    return this.cameAt.filter((at, n) => at < 0 && outside(this.sentAt[n]!)).length
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

/**
 * A TCP connection and a UDP conversation between programs of two hosts, both ends of which send all the time. `large`: now and then a piece of TCP
 * fills a packet, and a large datagram goes with a small one.
 */
export class Streams {
  readonly tcp = [new OneWay('TCP there'), new OneWay('TCP back')] as const
  readonly udp = [new OneWay('UDP there'), new OneWay('UDP back')] as const
  /** Of the large datagrams. */
  readonly largeUdp: readonly OneWay[]
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
    readonly large: boolean,
  ) {
    this.largeUdp = large ? [new OneWay('large UDP there'), new OneWay('large UDP back')] : []
    if (large) for (const { kernel } of [client, server]) kernel.segment = LARGE_PIECE
    server.expose(SERVICE, PORT, { family: families.server, listens: false })
    server.kernel.listenTcp(LOCAL_PORT, { banner: '', accepted: (socket) => this.#tcpEnd(1, socket) })
    server.kernel.serveUdp(LOCAL_PORT, (socket) => this.#udpEnd(1, socket))
  }

  get all(): readonly OneWay[] {
    return [...this.tcp, ...this.udp, ...this.largeUdp]
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

  /** `pace`: ms between pieces, if others than usual. */
  start(pace = this.pace): void {
    const life = ++this.#life
    this.#send(0, life, pace)
    const { world } = this.server
    world.events.at(world.now + pace / 2, () => this.#send(1, life, pace))
  }

  stop(): void {
    this.#life++
  }

  /** Between large pieces or datagrams, ms. */
  get largePace(): number {
    return LARGE_EVERY * this.pace
  }

  #pieceLength(n: number): number {
    return this.large && n % LARGE_EVERY === 0 ? LARGE_PIECE : PIECE
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
    let whole = this.#pieceLength(0)
    socket.onData = () => {
      for (; whole <= socket.received.length; whole += this.#pieceLength(pieces)) way.came(pieces++, socket.kernel.now)
    }
  }

  #udpEnd(end: 0 | 1, socket: UdpSocket): void {
    this.#datagrams[end] = socket
    const [small, large] = [this.udp[1 - end]!, this.largeUdp[1 - end]]
    socket.onData = (text) => {
      const way = text.length === LARGE_DATAGRAM ? large : small
      way?.came(Number(text), socket.kernel.now)
    }
  }

  #send(end: 0 | 1, life: number, pace: number): void {
    if (life !== this.#life) return
    const host = end === 0 ? this.client : this.server
    const { world } = host
    host.program(() => {
      this.#sendUdp(end)
      this.#sendTcp(end)
    })
    world.events.at(world.now + pace, () => this.#send(end, life, pace))
  }

  #sendUdp(end: 0 | 1): void {
    const socket = this.#datagrams[end]
    if (socket === undefined) return
    const n = this.udp[end]!.next(socket.kernel.now)
    socket.send(String(n))
    const large = this.largeUdp[end]
    if (large !== undefined && n % LARGE_EVERY === 0)
      socket.send(String(large.next(socket.kernel.now)).padEnd(LARGE_DATAGRAM))
  }

  #sendTcp(end: 0 | 1): void {
    const socket = this.#sockets[end]
    if (socket === undefined) return
    const n = this.tcp[end]!.next(socket.kernel.now)
    socket.write(Uint8Array.from({ length: this.#pieceLength(n) }, (_, i) => (n * 31 + i * 7 + end) & 255))
  }
}

function sameStream(sender: TcpSocket, receiver: TcpSocket): boolean {
  const { length } = sender.sent
  if (receiver.received.length !== length) return false
  const sent = sender.sent.slice(0, length)
  return receiver.received.slice(0, length).every((byte, i) => byte === sent[i])
}
