import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import {
  QUERY_BYTES_MAX,
  readQuery,
  replyOfFailure,
  replyTo,
  type DnsResolver,
  type DnsTransport,
} from './dns-message.js'

const TCP_CONNECTIONS_MAX = 64
/** For each query: an asker that is slower, or does not read its answer, loses the connection. */
const TCP_QUERY_MS = 5_000
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

  /** Binds both transports on the address; rejects when the port is taken, and {@link close} is still to be called. Resolves with the port (for `port` 0). */
  async listen(address: string, port = 53): Promise<number> {
    const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', reuseAddr: false })
    this.#sockets.push(socket)
    socket.on('message', (message, from) => void this.#answer(socket, message, from))
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(port, address, () => {
        socket.off('error', reject)
        socket.on('error', ignoreFailure)
        resolve()
      })
    })
    const bound = socket.address().port
    // Half-open: an asker may close its side once it has asked.
    const server = createServer({ allowHalfOpen: true }, (connection) => void this.#serve(connection))
    this.#servers.push(server)
    server.maxConnections = TCP_CONNECTIONS_MAX
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(bound, address, () => {
        server.off('error', reject)
        server.on('error', ignoreFailure)
        resolve()
      })
    })
    return bound
  }

  async close(): Promise<void> {
    for (const connection of this.#connections) connection.destroy()
    const closed = [
      ...this.#sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))),
      ...this.#servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))),
    ]
    this.#sockets.length = 0
    this.#servers.length = 0
    await Promise.all(closed)
  }

  async #answer(socket: DatagramSocket, message: Buffer, from: RemoteInfo): Promise<void> {
    const reply = await this.#respond(message, 'udp')
    if (reply === undefined) return
    try {
      socket.send(reply, from.port, from.address, ignoreFailure)
    } catch {
      // Port 0 cannot be answered; or the server was closed meanwhile.
    }
  }

  /** One query after the other, so that an asker gets answers no faster than it takes them. */
  async #serve(connection: Socket): Promise<void> {
    const limit = setTimeout(() => connection.destroy(), TCP_QUERY_MS)
    this.#connections.add(connection)
    connection.on('error', ignoreFailure)
    connection.on('close', () => {
      clearTimeout(limit)
      this.#connections.delete(connection)
    })
    const chunks: AsyncIterable<Buffer> = connection
    let pending = Buffer.alloc(0)
    try {
      for await (const chunk of chunks) {
        pending = Buffer.concat([pending, chunk])
        for (;;) {
          const message = firstMessage(pending)
          if (message === 'incomplete') break
          const reply = message === 'too-long' ? undefined : await this.#respond(message, 'tcp')
          if (reply === undefined || message === 'too-long') return void connection.destroy()
          pending = pending.subarray(2 + message.length)
          await write(connection, reply)
          limit.refresh()
        }
      }
      connection.end()
    } catch {
      // Gone in the middle: nobody waits for an answer.
      connection.destroy()
    }
  }

  async #respond(message: Buffer, transport: DnsTransport): Promise<Buffer | undefined> {
    this.counters.queries++
    const reading = readQuery(message)
    if (reading.kind !== 'query') {
      this.counters.malformed++
      return reading.kind === 'refused' ? reading.reply : undefined
    }
    if (this.#inFlight >= QUERIES_IN_FLIGHT_MAX) {
      this.counters.refusedLoad++
      return replyOfFailure(reading.query, transport)
    }
    this.#inFlight++
    try {
      return await replyTo(reading.query, transport, this.resolve)
    } finally {
      this.#inFlight--
    }
  }
}

/** The message at the front of a TCP stream (RFC 1035 section 4.2.2). */
function firstMessage(stream: Buffer): Buffer | 'incomplete' | 'too-long' {
  if (stream.length < 2) return 'incomplete'
  const length = stream.readUInt16BE(0)
  if (length > QUERY_BYTES_MAX) return 'too-long'
  return stream.length < 2 + length ? 'incomplete' : stream.subarray(2, 2 + length)
}

/** Resolves when the kernel has it; rejects when the connection is gone. */
function write(connection: Socket, reply: Buffer): Promise<void> {
  const prefix = Buffer.alloc(2)
  prefix.writeUInt16BE(reply.length)
  return new Promise((resolve, reject) => {
    connection.write(Buffer.concat([prefix, reply]), (error) => (error ? reject(error) : resolve()))
  })
}

function ignoreFailure(): void {
  // The asker is gone or its network is: it will ask again.
}
