// A TCP connection between a program on one host and a server on another, packet by packet.

import type { Family } from '../../../lib/flow/environment.js'
import { address, exchange, SELF_ADDRESS, type FlowHost } from './flow-host.js'
import { ACK, see, SYN, tcpPacket, type Seen, type TcpPacket } from './packets.js'

export const WEB = 5
export const ISN = 0xffff_fff0
export const SERVER_ISN = 7_000_000

export interface Ends {
  readonly clientFamily: Family
  readonly serverFamily: Family
  readonly clientPort?: number
  readonly number?: number
}

/** The client's packet towards the service. */
export function fromClient(ends: Ends, packet: Partial<TcpPacket>): Uint8Array {
  const { clientFamily: family, clientPort = 40_000, number = WEB } = ends
  return tcpPacket({
    family,
    source: SELF_ADDRESS[family],
    destination: address('dialled', family, number),
    ports: [clientPort, 80],
    flags: ACK,
    ...packet,
  })
}

/** The server's packet in answer to one that it saw. */
export function fromServer(seen: Seen, packet: Partial<TcpPacket>): Uint8Array {
  return tcpPacket({
    family: seen.family,
    source: seen.destination,
    destination: seen.source,
    ports: [seen.ports[1], seen.ports[0]],
    flags: ACK,
    ...packet,
  })
}

/** Does the three steps; returns the SYN as the server saw it and the SYN-ACK as the client saw it. */
export function connect(client: FlowHost, server: FlowHost, ends: Ends, now = 0): { syn: Seen; synAck: Seen } {
  const hosts = client === server ? [client] : [client, server]
  client.tun(now, fromClient(ends, { flags: SYN, sequence: ISN, mss: 1380 }))
  exchange(hosts, now)
  const syn = see(server.takeWritten()[0]!)
  server.tun(now, fromServer(syn, { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: ISN + 1, mss: 1360 }))
  exchange(hosts, now)
  const synAck = see(client.takeWritten()[0]!)
  client.tun(now, fromClient(ends, { sequence: ISN + 1, acknowledgement: SERVER_ISN + 1 }))
  exchange(hosts, now)
  server.takeWritten()
  return { syn, synAck }
}
