import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import {
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
  type Answer,
  type OptAnswer,
  type Packet,
  type Question,
} from 'dns-packet'

export type ResponseCode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED'

export interface DnsAnswer {
  readonly code: ResponseCode
  readonly answers: Answer[]
  readonly authorities: Answer[]
  /** false: the answer is not from our zone (REFUSED). */
  readonly authoritative: boolean
}

/** Answers one question of class IN; may wait (a new name's address goes to disk first). */
export type DnsResolver = (name: string, type: string) => Promise<DnsAnswer> | DnsAnswer

const CODES: Record<ResponseCode, number> = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 }
const HEADER = 12
const UDP_SIZE_MIN = 512
const UDP_SIZE_MAX = 1232
const TCP_CONNECTIONS_MAX = 64
const TCP_IDLE_MS = 5_000
const QUERIES_IN_FLIGHT_MAX = 256

/**
 * The name server for our own zone, on UDP and TCP. It answers what the resolver function says and nothing else: no recursion, no foreign zone.
 * Malformed queries get FORMERR when their header is whole, silence otherwise.
 */
export class DnsServer {
  readonly counters = { queries: 0, malformed: 0, refusedLoad: 0 }
  readonly #sockets: DatagramSocket[] = []
  readonly #servers: Server[] = []
  readonly #connections = new Set<Socket>()
  #inFlight = 0

  constructor(private readonly resolve: DnsResolver) {}

  /** Binds both transports on the address; rejects when the port is taken. */
  async listen(address: string, port = 53): Promise<void> {
    const family = address.includes(':') ? 'udp6' : 'udp4'
    const socket = createSocket({ type: family, reuseAddr: false })
    this.#sockets.push(socket)
    socket.on('message', (message, from) => {
      void this.#respond(message, 'udp').then((reply) => {
        if (reply !== undefined) socket.send(reply, from.port, from.address, ignoreFailure)
      })
    })
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(port, address, () => {
        socket.off('error', reject)
        socket.on('error', ignoreFailure)
        resolve()
      })
    })
    const server = createServer((connection) => this.#serve(connection))
    this.#servers.push(server)
    server.maxConnections = TCP_CONNECTIONS_MAX
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, address, () => {
        server.off('error', reject)
        resolve()
      })
    })
  }

  async close(): Promise<void> {
    for (const connection of this.#connections) connection.destroy()
    await Promise.all([
      ...this.#sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))),
      ...this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))),
    ]).catch(ignoreFailure)
  }

  #serve(connection: Socket): void {
    this.#connections.add(connection)
    connection.setTimeout(TCP_IDLE_MS, () => connection.destroy())
    connection.on('error', () => connection.destroy())
    connection.on('close', () => this.#connections.delete(connection))
    let pending = Buffer.alloc(0)
    let answering = Promise.resolve()
    connection.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk])
      while (pending.length >= 2) {
        const length = pending.readUInt16BE(0)
        if (pending.length < 2 + length) break
        const message = pending.subarray(2, 2 + length)
        pending = pending.subarray(2 + length)
        answering = answering.then(async () => {
          const reply = await this.#respond(message, 'tcp')
          if (reply === undefined) return void connection.destroy()
          const prefix = Buffer.alloc(2)
          prefix.writeUInt16BE(reply.length)
          connection.write(Buffer.concat([prefix, reply]))
        })
      }
    })
  }

  async #respond(message: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    this.counters.queries++
    if (message.length < HEADER || (message[2]! & 0x80) !== 0) {
      this.counters.malformed++
      return undefined
    }
    if (this.#inFlight >= QUERIES_IN_FLIGHT_MAX) {
      this.counters.refusedLoad++
      return headerOnly(message, 'SERVFAIL')
    }
    let query: Packet
    try {
      query = decode(message)
    } catch {
      this.counters.malformed++
      return headerOnly(message, 'FORMERR')
    }
    const opcode = (message[2]! >> 3) & 0x0f
    if (opcode !== 0) return headerOnly(message, 'NOTIMP')
    const question = query.questions?.[0]
    if (query.questions?.length !== 1 || question === undefined) return headerOnly(message, 'FORMERR')
    const opts = (query.additionals ?? []).filter((record): record is OptAnswer => record.type === 'OPT')
    if (opts.length > 1) return headerOnly(message, 'FORMERR')
    this.#inFlight++
    try {
      return await this.#answer(message, question, opts[0], transport)
    } catch {
      return headerOnly(message, 'SERVFAIL')
    } finally {
      this.#inFlight--
    }
  }

  async #answer(
    message: Buffer,
    question: Question,
    opt: OptAnswer | undefined,
    transport: 'udp' | 'tcp',
  ): Promise<Buffer> {
    const badVersion = opt !== undefined && opt.ednsVersion !== 0
    const answer: DnsAnswer =
      badVersion || (question.class ?? 'IN') !== 'IN'
        ? { code: badVersion ? 'NOERROR' : 'REFUSED', answers: [], authorities: [], authoritative: false }
        : await this.resolve(question.name, question.type)
    const size = transport === 'tcp' ? 65_535 : Math.min(Math.max(opt?.udpPayloadSize ?? 0, UDP_SIZE_MIN), UDP_SIZE_MAX)
    const reply: Packet = {
      type: 'response',
      id: message.readUInt16BE(0),
      flags:
        (message.readUInt16BE(2) & RECURSION_DESIRED) |
        (answer.authoritative ? AUTHORITATIVE_ANSWER : 0) |
        CODES[answer.code],
      questions: [question],
      answers: answer.answers,
      authorities: answer.authorities,
      additionals: opt === undefined ? [] : [optRecord(badVersion ? 1 : 0)],
    }
    const bytes = encode(reply)
    if (bytes.length <= size) return bytes
    const flags = (reply.flags ?? 0) | TRUNCATED_RESPONSE
    return encode({ ...reply, flags, answers: [], authorities: [] })
  }
}

/** EDNS record of an answer; extended code 1 with the low bits 0 is BADVERS (RFC 6891 section 9). */
function optRecord(extendedRcode: number): OptAnswer {
  return {
    type: 'OPT',
    name: '.',
    udpPayloadSize: UDP_SIZE_MAX,
    extendedRcode,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  }
}

/** A reply of the header alone: for queries whose question cannot be read or is not answered. */
function headerOnly(message: Buffer, code: ResponseCode): Buffer {
  const reply = Buffer.alloc(HEADER)
  message.copy(reply, 0, 0, 4)
  reply[2] = 0x80 | (message[2]! & 0x79)
  reply[3] = CODES[code]
  return reply
}

function ignoreFailure(): void {
  // The asker is gone or its network is: it will ask again.
}
