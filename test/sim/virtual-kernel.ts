// As much of a kernel as the programs of one host need: TCP with retransmission, reordering, resets taken only at the exact number; UDP echo; ICMP errors. What it is given
// is checked to the last checksum, and it objects to packets that a real kernel would drop.

import { Protocol } from '../../lib/wire/constants.js'
import { ACK, FIN, portUnreachable, PSH, RST, see, SYN, tcpPacket, udpPacket, type Seen } from '../unit/flow/packets.js'

export type Family = 4 | 6

const SEGMENT = 400
const WINDOW = 16 * SEGMENT
/** Added to the smoothed round trip at least, as Linux does it, before a segment counts as lost; and the longest that it is waited for, ms. */
const RTO_MIN = 200
const RTO_MAX = 3_200
const SYN_RTO = 1_000
/** Acknowledgements of the same number after which the next segment counts as lost. */
const DUPLICATES = 3
const EPHEMERAL = 40_000

export interface KernelComponents {
  readonly now: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  /** One packet into the TUN, vnet header in front. */
  readonly emit: (packet: Uint8Array) => void
  readonly isLocal: (address: Uint8Array, family: Family) => boolean
}

interface Ends {
  readonly family: Family
  readonly local: Uint8Array
  readonly localPort: number
  readonly remote: Uint8Array
  readonly remotePort: number
}

/** A byte stream that grows. */
class Stream {
  length = 0
  #bytes = new Uint8Array(1_024)

  append(bytes: Uint8Array): void {
    while (this.#bytes.length < this.length + bytes.length) {
      const larger = new Uint8Array(2 * this.#bytes.length)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  slice(from: number, to: number): Uint8Array {
    return this.#bytes.slice(from, Math.min(to, this.length))
  }
}

export type TcpState = 'syn-sent' | 'syn-received' | 'established' | 'reset' | 'unreachable'

export class TcpSocket {
  state: TcpState
  readonly startedAt: number
  establishedAt = -1
  /** When the last new byte came. */
  receivedAt = -1
  /** Longest time between new bytes since the connection was there. */
  longestGap = 0
  /** Retransmission time-outs of data. */
  timeouts = 0
  readonly received = new Stream()
  readonly sent = new Stream()
  peerFinished = false
  finished = false
  onData: ((bytes: Uint8Array) => void) | undefined
  onEnd: (() => void) | undefined
  deadline = Infinity
  #closing = false
  /** Positions in `sent`; its end + 1 is the FIN. */
  #acked = 0
  #next = 0
  #expected = 0
  #tries = 0
  /** When a time-out has come up last. */
  #sentAt = 0
  #duplicates = 0
  readonly #early = new Map<number, Uint8Array>()
  #finAt = -1
  /** Smoothed round trip and its mean deviation, ms (RFC 6298); -1: not measured. */
  #roundTrip = -1
  #deviation = 0
  /** What is being measured: the acknowledgement of this position of what was sent then; -1: nothing. */
  #timedTo = -1
  #timedAt = 0

  constructor(
    readonly kernel: VirtualKernel,
    readonly ends: Ends,
    readonly initial: number,
    readonly server: boolean,
  ) {
    this.state = server ? 'syn-received' : 'syn-sent'
    this.startedAt = kernel.now
  }

  /** Both directions have ended and all was acknowledged. */
  get done(): boolean {
    return this.finished && this.peerFinished
  }

  get open(): boolean {
    return this.state === 'established' && !this.done
  }

  write(bytes: Uint8Array): void {
    this.sent.append(bytes)
    this.#push()
  }

  /** No more will be written. */
  close(): void {
    this.#closing = true
    this.#push()
  }

  /** The first SYN. */
  start(): void {
    this.#transmit(SYN, -1, undefined)
    this.deadline = this.kernel.now + SYN_RTO
  }

  receive(packet: Seen): void {
    const { flags } = packet
    if ((flags & RST) !== 0) {
      const exact =
        this.state === 'syn-sent' ? packet.acknowledgement === this.#at(0) : packet.sequence === this.#expected
      if (exact && !this.done) this.#fail('reset')
      else if (this.state === 'established') this.#acknowledge()
      return
    }
    if (this.state === 'reset' || this.state === 'unreachable') return
    if ((flags & SYN) !== 0) return this.#handshake(packet)
    if (this.state === 'syn-sent') return
    if ((flags & ACK) !== 0) this.#acknowledged(packet)
    if (packet.payload.length > 0 || (flags & FIN) !== 0) this.#data(packet)
  }

  /** An ICMP error about a packet of ours, which began with this number. */
  unreachable(sequence: number): void {
    if (this.state === 'syn-sent' || this.state === 'syn-received') return this.#fail('unreachable')
    if (this.state !== 'established') return
    // As Linux does it (RFC 6069): one doubling is taken back.
    const { now } = this.kernel
    if (sequence !== this.#at(this.#acked) || this.#tries === 0 || this.deadline === Infinity) return
    this.#tries--
    this.deadline = Math.max(now, this.#sentAt + Math.min(this.#patience * 2 ** this.#tries, RTO_MAX))
  }

  timeout(): void {
    const { now } = this.kernel
    if (now < this.deadline) return
    this.#tries++
    if (this.state === 'syn-sent') this.#transmit(SYN, -1, undefined)
    else if (this.state === 'syn-received') this.#transmit(SYN | ACK, -1, undefined)
    else {
      this.timeouts++
      this.#sentAt = now
      this.#next = this.#acked
      this.#timedTo = -1
      this.#push()
      return
    }
    this.deadline = now + SYN_RTO * 2 ** this.#tries
  }

  #handshake(packet: Seen): void {
    const synAck = (packet.flags & ACK) !== 0
    if (this.state === 'syn-received' && !synAck) {
      this.#expected = (packet.sequence + 1) >>> 0
      this.#transmit(SYN | ACK, -1, undefined)
      if (this.deadline === Infinity) this.deadline = this.kernel.now + SYN_RTO
    } else if (this.state === 'syn-sent' && synAck && packet.acknowledgement === this.#at(0)) {
      this.#expected = (packet.sequence + 1) >>> 0
      this.#established()
      this.#acknowledge()
      this.#push()
    } else if (this.state === 'established') this.#acknowledge()
  }

  #established(): void {
    this.state = 'established'
    this.establishedAt = this.kernel.now
    this.receivedAt = this.kernel.now
    this.deadline = Infinity
    if (this.#tries === 0) this.#measured(this.kernel.now - this.startedAt)
    this.#tries = 0
  }

  /** A round trip of what was sent once (RFC 6298, section 2). */
  #measured(ms: number): void {
    if (this.#roundTrip < 0) {
      this.#roundTrip = ms
      this.#deviation = ms / 2
    } else {
      this.#deviation += (Math.abs(this.#roundTrip - ms) - this.#deviation) / 4
      this.#roundTrip += (ms - this.#roundTrip) / 8
    }
  }

  /** ms until what was sent counts as lost. */
  get #patience(): number {
    return this.#roundTrip < 0 ? SYN_RTO : this.#roundTrip + Math.max(RTO_MIN, 4 * this.#deviation)
  }

  #acknowledged(packet: Seen): void {
    const offset = (packet.acknowledgement - this.#at(0)) | 0
    if (offset < 0 || offset > this.sent.length + 1) return
    if (this.state === 'syn-received') this.#established()
    if (offset > this.#acked) {
      this.#acked = offset
      this.#next = Math.max(this.#next, offset)
      this.#tries = 0
      this.#duplicates = 0
      if (this.#timedTo >= 0 && offset >= this.#timedTo) {
        this.#measured(this.kernel.now - this.#timedAt)
        this.#timedTo = -1
      }
      this.deadline = this.#acked < this.#next ? this.kernel.now + this.#patience : Infinity
      if (this.#closing && offset === this.sent.length + 1) {
        this.finished = true
        this.deadline = Infinity
      }
    } else if (packet.payload.length === 0 && offset === this.#acked && this.#next > offset) {
      if (++this.#duplicates === DUPLICATES) {
        this.#timedTo = -1
        this.#segment(this.#acked)
      }
    }
    this.#push()
  }

  #data(packet: Seen): void {
    const offset = (packet.sequence - this.#expected) | 0
    const end = offset + packet.payload.length
    if ((packet.flags & FIN) !== 0) this.#finAt = (packet.sequence + packet.payload.length) >>> 0
    if (offset > 0) {
      if (packet.payload.length > 0 && this.#early.size < 256) this.#early.set(packet.sequence, packet.payload)
    } else if (end > 0) this.#take(packet.payload.subarray(-offset))
    for (let more = true; more;) {
      more = false
      for (const [sequence, payload] of this.#early) {
        const at = (sequence - this.#expected) | 0
        if (at > 0) continue
        this.#early.delete(sequence)
        if (at + payload.length > 0) this.#take(payload.subarray(-at))
        more = true
      }
    }
    const ended = !this.peerFinished && this.#finAt === this.#expected
    if (ended) {
      this.#expected = (this.#expected + 1) >>> 0
      this.peerFinished = true
    }
    this.#acknowledge()
    if (ended) this.onEnd?.()
  }

  #take(bytes: Uint8Array): void {
    const { now } = this.kernel
    this.longestGap = Math.max(this.longestGap, now - this.receivedAt)
    this.receivedAt = now
    this.received.append(bytes)
    this.#expected = (this.#expected + bytes.length) >>> 0
    this.onData?.(bytes)
  }

  #push(): void {
    if (this.state !== 'established' || this.finished) return
    while (this.#next < Math.min(this.sent.length, this.#acked + WINDOW)) this.#segment(this.#next)
    if (this.#closing && this.#next === this.sent.length) {
      this.#transmit(FIN | ACK, this.#next, undefined)
      this.#next++
    }
    if (this.#next > this.#acked && this.deadline === Infinity) this.deadline = this.kernel.now + this.#patience
    if (this.#next > this.#acked && this.deadline <= this.kernel.now) {
      this.deadline = this.kernel.now + Math.min(this.#patience * 2 ** this.#tries, RTO_MAX)
    }
  }

  /** Sends from the position: one segment, or several as a super-packet. */
  #segment(from: number): void {
    const room = Math.min(this.sent.length, this.#acked + WINDOW) - from
    const segments = this.kernel.random() < 0.3 ? 4 : 1
    const payload = this.sent.slice(from, from + Math.min(room, segments * SEGMENT))
    this.#transmit(ACK | PSH, from, payload)
    if (this.#timedTo < 0 && from === this.#next && this.#tries === 0 && this.#duplicates < DUPLICATES) {
      this.#timedTo = from + payload.length
      this.#timedAt = this.kernel.now
    }
    this.#next = Math.max(this.#next, from + payload.length)
  }

  #acknowledge(): void {
    this.#transmit(ACK, this.#next, undefined)
  }

  #fail(state: 'reset' | 'unreachable'): void {
    this.state = state
    this.deadline = Infinity
    this.onEnd?.()
  }

  #at(offset: number): number {
    return (this.initial + 1 + offset) >>> 0
  }

  #transmit(flags: number, offset: number, payload: Uint8Array | undefined): void {
    const { family, local, localPort, remote, remotePort } = this.ends
    const long = payload !== undefined && payload.length > SEGMENT
    this.kernel.emit(
      tcpPacket({
        family,
        source: local,
        destination: remote,
        ports: [localPort, remotePort],
        flags,
        sequence: this.#at(offset),
        acknowledgement: (flags & ACK) === 0 ? 0 : this.#expected,
        partial: this.kernel.random() < 0.5,
        ...((flags & SYN) === 0 ? {} : { mss: 1360 }),
        ...(payload === undefined ? {} : { payload: [...payload] }),
        ...(long ? { gsoSize: SEGMENT } : {}),
      }),
    )
  }
}

export class UdpSocket {
  readonly received: string[] = []
  unreachable = 0
  onData: ((text: string) => void) | undefined

  constructor(
    readonly kernel: VirtualKernel,
    readonly ends: Ends,
  ) {}

  take(text: string): void {
    this.received.push(text)
    this.onData?.(text)
  }

  send(text: string): void {
    const { family, local, localPort, remote, remotePort } = this.ends
    const payload = [...new TextEncoder().encode(text)]
    this.kernel.emit(udpPacket({ family, source: local, destination: remote, ports: [localPort, remotePort], payload }))
  }
}

/**
 * What a TCP server does: `banner` is sent first, then whatever comes is sent back, and its end answers the client's. `silent`: SYNs are not answered. `accepted`: a program of its
 * own does something else with each connection.
 */
export interface Server {
  readonly banner: string
  readonly silent?: boolean
  readonly accepted?: (socket: TcpSocket) => void
}

export class VirtualKernel {
  readonly sockets = new Map<string, TcpSocket>()
  /** Whether a malformed packet is an error, or dropped as real kernels do. */
  strict = true
  malformed = 0
  readonly #udp = new Map<string, UdpSocket>()
  readonly #tcpServers = new Map<number, Server>()
  readonly #udpServers = new Map<number, string | ((socket: UdpSocket) => void)>()
  #port = EPHEMERAL

  constructor(readonly components: KernelComponents) {}

  get now(): number {
    return this.components.now()
  }
  random(): number {
    return this.components.random()
  }
  emit(packet: Uint8Array): void {
    this.components.emit(packet)
  }

  listenTcp(port: number, server: Server): void {
    this.#tcpServers.set(port, server)
  }
  /** SYNs to the port are refused from now on; open connections stay. */
  closeTcp(port: number): void {
    this.#tcpServers.delete(port)
  }
  /** Answers each datagram with `prefix` and the same text. */
  listenUdp(port: number, prefix: string): void {
    this.#udpServers.set(port, prefix)
  }
  /** A program has a socket of its own for each that sends something to the port; it is given it before the first datagram. */
  serveUdp(port: number, accepted: (socket: UdpSocket) => void): void {
    this.#udpServers.set(port, accepted)
  }
  /** Server's ends of connections. */
  get accepted(): TcpSocket[] {
    return [...this.sockets.values()].filter((socket) => socket.server)
  }

  connect(family: Family, local: Uint8Array, remote: Uint8Array, remotePort: number, localPort?: number): TcpSocket {
    const port = localPort ?? this.#port++
    const ends = { family, local, localPort: port, remote, remotePort }
    const socket = new TcpSocket(this, ends, Math.floor(this.random() * 2 ** 32), false)
    this.sockets.set(keyOf(ends), socket)
    socket.start()
    return socket
  }

  udp(family: Family, local: Uint8Array, remote: Uint8Array, remotePort: number): UdpSocket {
    const ends = { family, local, localPort: this.#port++, remote, remotePort }
    const socket = new UdpSocket(this, ends)
    this.#udp.set(keyOf(ends), socket)
    return socket
  }

  /** A packet that was written to the TUN. */
  receive(bytes: Uint8Array): void {
    const packet = this.#parse(bytes)
    if (packet === undefined) return
    const { family, source, destination } = packet
    if (this.components.isLocal(source, family)) throw new Error(`a packet from a local address: ${source.join('.')}`)
    if (!this.components.isLocal(destination, family) && !(family === 4 && destination[0] === 127)) {
      throw new Error(`a packet to a foreign address: ${destination.join('.')}`)
    }
    if (packet.icmp !== undefined) return this.#error(packet)
    if (packet.protocol === Protocol.tcp) this.#tcp(packet)
    else if (packet.protocol === Protocol.udp) this.#datagram(packet, bytes)
  }

  #parse(bytes: Uint8Array): Seen | undefined {
    try {
      return see(bytes)
    } catch (error) {
      if (this.strict) throw error
      this.malformed++
      return undefined
    }
  }

  nextTimeout(): number {
    let next = Infinity
    for (const { deadline } of this.sockets.values()) next = Math.min(next, deadline)
    return next
  }

  handleTimeout(): void {
    for (const socket of [...this.sockets.values()]) socket.timeout()
  }

  #tcp(packet: Seen): void {
    const ends = endsOf(packet)
    const known = this.sockets.get(keyOf(ends))
    const server = this.#tcpServers.get(ends.localPort)
    const syn = (packet.flags & (SYN | ACK | RST)) === SYN
    const over = known === undefined || known.done || known.state === 'reset'
    if (syn && over && server?.silent === true) return
    if (syn && over && server !== undefined) this.#accept(ends, server, packet)
    else if (known !== undefined && known.state !== 'reset') known.receive(packet)
    else if ((packet.flags & RST) === 0) this.#refuse(packet, ends)
  }

  #accept(ends: Ends, server: Server, packet: Seen): void {
    const socket = new TcpSocket(this, ends, Math.floor(this.random() * 2 ** 32), true)
    this.sockets.set(keyOf(ends), socket)
    if (server.accepted === undefined) {
      socket.write(new TextEncoder().encode(server.banner))
      socket.onData = (bytes) => socket.write(bytes)
      socket.onEnd = () => socket.close()
    } else server.accepted(socket)
    socket.receive(packet)
  }

  #refuse(packet: Seen, ends: Ends): void {
    const { family, local, localPort, remote, remotePort } = ends
    const ports = [localPort, remotePort] as const
    const acked = (packet.flags & ACK) !== 0
    const length = packet.payload.length + ((packet.flags & (SYN | FIN)) !== 0 ? 1 : 0)
    this.emit(
      tcpPacket({
        ...{ family, source: local, destination: remote, ports },
        flags: acked ? RST : RST | ACK,
        sequence: acked ? packet.acknowledgement : 0,
        acknowledgement: acked ? 0 : packet.sequence + length,
      }),
    )
  }

  #datagram(packet: Seen, bytes: Uint8Array): void {
    const ends = endsOf(packet)
    const server = this.#udpServers.get(ends.localPort)
    let socket = this.#udp.get(keyOf(ends))
    if (typeof server === 'function' && socket === undefined) {
      socket = new UdpSocket(this, ends)
      this.#udp.set(keyOf(ends), socket)
      server(socket)
    }
    if (server === undefined && socket === undefined) return this.emit(portUnreachable(bytes))
    const size = packet.gsoSize > 0 ? packet.gsoSize : Math.max(packet.payload.length, 1)
    for (let at = 0; at < Math.max(packet.payload.length, 1); at += size) {
      const payload = packet.payload.subarray(at, at + size)
      if (typeof server === 'string') this.#sendBack(ends, [...new TextEncoder().encode(server), ...payload])
      else socket?.take(new TextDecoder().decode(payload))
    }
  }

  #sendBack({ family, local, localPort, remote, remotePort }: Ends, payload: number[]): void {
    this.emit(udpPacket({ family, source: local, destination: remote, ports: [localPort, remotePort], payload }))
  }

  #error(packet: Seen): void {
    const { quote, family } = packet
    if (quote === undefined) return
    const header = family === 4 ? (quote[0]! & 15) * 4 : 40
    const protocol = family === 4 ? quote[9] : quote[6]
    const [at, length] = family === 4 ? [12, 4] : [8, 16]
    const ends = {
      family,
      local: quote.slice(at, at + length),
      remote: quote.slice(at + length, at + 2 * length),
      localPort: (quote[header]! << 8) | quote[header + 1]!,
      remotePort: (quote[header + 2]! << 8) | quote[header + 3]!,
    }
    if (protocol === Protocol.tcp)
      this.sockets.get(keyOf(ends))?.unreachable(new DataView(quote.buffer, quote.byteOffset).getUint32(header + 4))
    else {
      const socket = this.#udp.get(keyOf(ends))
      if (socket !== undefined) socket.unreachable++
    }
  }
}

function endsOf(packet: Seen): Ends {
  const { family, destination: local, source: remote, ports } = packet
  return { family, local, localPort: ports[1], remote, remotePort: ports[0] }
}

function keyOf({ family, local, localPort, remote, remotePort }: Ends): string {
  return `${family}/${local.join('.')}/${localPort}/${remote.join('.')}/${remotePort}`
}
