// As much of a kernel as the programs of one host need: TCP, UDP, ICMP errors. What it is given is checked to the last checksum, and it objects to packets that a real kernel would
// drop.

import { Protocol } from '../../lib/wire/constants.js'
import { Icmp6Type } from '../../lib/wire/icmp.js'
import { ACK, FIN, portUnreachable, RST, see, SYN, tcpPacket, udpPacket, type Seen } from '../unit/flow/packets.js'
import { TcpSocket } from './virtual-tcp.js'

export type { TcpSocket } from './virtual-tcp.js'

export type Family = 4 | 6

const EPHEMERAL = 40_000

export interface KernelComponents {
  readonly now: () => number
  /** Uniform in [0, 1). */
  readonly random: () => number
  /** One packet into the TUN, vnet header in front. */
  readonly emit: (packet: Uint8Array) => void
  readonly isLocal: (address: Uint8Array, family: Family) => boolean
}

export interface Ends {
  readonly family: Family
  readonly local: Uint8Array
  readonly localPort: number
  readonly remote: Uint8Array
  readonly remotePort: number
}

export class UdpSocket {
  readonly received: string[] = []
  unreachable = 0
  /** Times that it was told that smaller datagrams are better. */
  tooBig = 0
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
  /** Payload of a TCP segment of its programs at most, bytes. */
  segment = 400
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
    const { quote, family, icmp } = packet
    if (quote === undefined || icmp === undefined) return
    const tooBig = family === 4 ? icmp[0] === 3 && icmp[1] === 4 : icmp[0] === Icmp6Type.tooBig
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
    if (protocol === Protocol.tcp) {
      const socket = this.sockets.get(keyOf(ends))
      const sequence = new DataView(quote.buffer, quote.byteOffset).getUint32(header + 4)
      if (tooBig) socket?.tooBig(sequence, packet.mtu)
      else socket?.unreachable(sequence)
      return
    }
    const socket = this.#udp.get(keyOf(ends))
    if (socket === undefined) return
    if (tooBig) socket.tooBig++
    else socket.unreachable++
  }
}

function endsOf(packet: Seen): Ends {
  const { family, destination: local, source: remote, ports } = packet
  return { family, local, localPort: ports[1], remote, remotePort: ports[0] }
}

function keyOf({ family, local, localPort, remote, remotePort }: Ends): string {
  return `${family}/${local.join('.')}/${localPort}/${remote.join('.')}/${remotePort}`
}
