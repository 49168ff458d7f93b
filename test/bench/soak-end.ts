// The two ends of the long run. usage: node soak-end.js serve PORT, or node soak-end.js drive JSON (see DriveOptions), which prints `driven JSON`.
//
// A TCP connection: seed 4 bytes, length 8 bytes (LE), then as many pseudo-random bytes of that seed; back come as many of the next seed. Either end compares each byte with
// what it makes itself, and an end that sees another one cuts the connection. A datagram: its number 4 bytes, then a part of the stream of seed 0 that the number decides; it is
// sent back as it came.

import { createCipheriv } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { lookup } from 'node:dns/promises'

export interface DriveOptions {
  readonly name: string
  readonly port: number
  /** Ends when so many bytes have crossed in streams, both ways counted, or after so many seconds. */
  readonly bytes: number
  readonly seconds: number
  readonly streamBytes: number
}
export interface Driven {
  readonly seconds: number
  readonly streams: { readonly bytes: number; readonly done: number }
  /** The slowest took so long, ms. */
  readonly short: { readonly done: number; readonly slowestMs: number }
  readonly datagrams: {
    readonly sent: number
    readonly lost: number
    /** Of those, what came after it had been given up. */
    readonly late: number
    /** Came again. */
    readonly twice: number
    readonly reordered: number
    readonly changed: number
  }
  readonly errors: readonly string[]
}

const HEADER = 12
const CHUNK = 65_536
const DATAGRAM_MAX = 4_000
const WINDOW = 32
const LATE_MS = 2_000
/** A connection on which nothing comes for so long has failed. */
const STALLED_MS = 60_000
const ERRORS_MAX = 20
const zeros = Buffer.alloc(CHUNK)

/** The bytes of a seed, one after the other. */
class Stream {
  readonly #cipher
  constructor(seed: number) {
    const key = Buffer.alloc(16)
    key.writeUInt32LE(seed >>> 0)
    this.#cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16))
  }
  take(length: number): Buffer {
    return this.#cipher.update(length <= CHUNK ? zeros.subarray(0, length) : Buffer.alloc(length))
  }
}

async function sendStream(socket: Socket, seed: number, length: number): Promise<void> {
  const stream = new Stream(seed)
  for (let left = length; left > 0;) {
    const chunk = stream.take(Math.min(left, CHUNK))
    left -= chunk.length
    if (!socket.write(chunk)) await once(socket, 'drain')
  }
}

function header(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(HEADER)
  bytes.writeUInt32LE(seed >>> 0)
  bytes.writeBigUInt64LE(BigInt(length), 4)
  return bytes
}

function serve(port: number): void {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => undefined)
    void answer(socket).catch(() => socket.destroy())
  })
  server.listen(port, '::', () => {
    for (const kind of ['udp4', 'udp6'] as const) {
      const udp = createSocket({ type: kind, ipv6Only: kind === 'udp6', recvBufferSize: 1 << 22 })
      udp.on('message', (bytes, { port: from, address }) => udp.send(bytes, from, address))
      udp.bind(port)
    }
    console.log('listening')
  })
}

async function answer(socket: Socket): Promise<void> {
  let start = Buffer.alloc(0)
  let expected: Stream | undefined
  let [seed, length, left] = [0, 0, 0]
  for await (const piece of socket) {
    let chunk: Buffer = piece
    if (expected === undefined) {
      start = Buffer.concat([start, chunk])
      if (start.length < HEADER) continue
      seed = start.readUInt32LE()
      length = left = Number(start.readBigUInt64LE(4))
      expected = new Stream(seed)
      chunk = start.subarray(HEADER)
    }
    left -= chunk.length
    if (left < 0 || !expected.take(chunk.length).equals(chunk)) throw new Error('another byte came')
    if (left > 0) continue
    await sendStream(socket, seed + 1, length)
    // To leave the loop closes the socket, with what is still to be written.
    await new Promise<void>((resolve) => socket.end(() => resolve()))
    return
  }
  throw new Error('it ended early')
}

/** One connection; resolves when everything has gone there and come back. */
async function exchange(address: string, port: number, seed: number, length: number): Promise<void> {
  const socket = connect({ host: address, port, noDelay: true })
  const back = new Stream(seed + 1)
  let left = length
  socket.setTimeout(STALLED_MS, () => socket.destroy(new Error(`nothing came for ${STALLED_MS / 1_000} s`)))
  try {
    await once(socket, 'connect')
    socket.write(header(seed, length))
    const sent = sendStream(socket, seed, length)
    sent.catch(() => undefined)
    for await (const piece of socket) {
      const chunk: Buffer = piece
      left -= chunk.length
      if (left < 0 || !back.take(chunk.length).equals(chunk)) throw new Error('another byte came back')
    }
    await sent
    if (left > 0) throw new Error(`${left} of ${length} bytes did not come back`)
  } finally {
    socket.destroy()
  }
}

async function drive(options: DriveOptions): Promise<Driven> {
  const { name, port } = options
  const [{ address: v4 }, { address: v6 }] = await Promise.all([
    lookup(name, { family: 4 }),
    lookup(name, { family: 6 }),
  ])
  const started = performance.now()
  const errors: string[] = []
  const streams = { bytes: 0, done: 0 }
  const short = { done: 0, slowestMs: 0 }
  const datagrams = { sent: 0, lost: 0, late: 0, twice: 0, reordered: 0, changed: 0 }
  let seed = 1
  const over = () =>
    streams.bytes >= options.bytes ||
    performance.now() - started >= options.seconds * 1_000 ||
    errors.length >= ERRORS_MAX
  const failed = (what: string, error: unknown) => {
    if (errors.length < ERRORS_MAX) errors.push(`${what}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const connections = async (
    what: string,
    address: string,
    length: () => number,
    done: (bytes: number, ms: number) => void,
  ) => {
    while (!over()) {
      const bytes = length()
      seed += 2
      try {
        const began = performance.now()
        await exchange(address, port, seed, bytes)
        done(2 * bytes, performance.now() - began)
      } catch (error) {
        failed(what, error)
      }
    }
  }
  const bulk = (address: string, streamsAtOnce: number) =>
    Promise.all(
      Array.from({ length: streamsAtOnce }, () =>
        connections(
          `stream to ${address}`,
          address,
          () => Math.ceil(options.streamBytes / streamsAtOnce),
          (bytes) => {
            streams.bytes += bytes
            streams.done++
          },
        ),
      ),
    )
  const brief = (address: string) =>
    connections(
      `short connection to ${address}`,
      address,
      () => 1 + (seed % 3_000),
      (_bytes, ms) => {
        short.done++
        short.slowestMs = Math.max(short.slowestMs, ms)
      },
    )
  const content = new Stream(0).take(CHUNK)
  const udp = async (family: 4 | 6, address: string) => {
    const socket = createSocket({ type: `udp${family}`, recvBufferSize: 1 << 22 })
    socket.connect(port, address)
    await once(socket, 'connect')
    socket.on('error', (error) => failed(`datagrams to ${address}`, error))
    const sentAt = new Map<number, number>()
    const givenUp = new Set<number>()
    let [number, highest] = [0, -1]
    const datagram = (n: number) => {
      const bytes = Buffer.alloc(4 + (n % 10 === 9 ? n % DATAGRAM_MAX : n % 1_300))
      bytes.writeUInt32LE(n)
      bytes.set(content.subarray((n * 37) % 50_000, ((n * 37) % 50_000) + bytes.length - 4), 4)
      return bytes
    }
    let awake: () => void = () => undefined
    socket.on('message', (bytes) => {
      const n = bytes.length >= 4 ? bytes.readUInt32LE() : -1
      if (n < 0 || n >= number || !datagram(n).equals(bytes)) datagrams.changed++
      else if (sentAt.delete(n)) {
        if (n < highest) datagrams.reordered++
        highest = Math.max(highest, n)
      } else if (givenUp.delete(n)) datagrams.late++
      else datagrams.twice++
      awake()
    })
    const expire = (all: boolean) => {
      for (const [n, at] of sentAt) {
        if (!all && performance.now() - at < LATE_MS) break
        sentAt.delete(n)
        givenUp.add(n)
        datagrams.lost++
      }
    }
    while (!over()) {
      expire(false)
      if (sentAt.size >= WINDOW) {
        await new Promise<void>((resolve) => {
          const limit = setTimeout(resolve, 100)
          awake = () => {
            clearTimeout(limit)
            resolve()
          }
        })
        continue
      }
      sentAt.set(number, performance.now())
      socket.send(datagram(number++))
      datagrams.sent++
      await new Promise((resolve) => setImmediate(resolve))
    }
    for (const end = performance.now() + LATE_MS; sentAt.size > 0 && performance.now() < end;)
      await new Promise((resolve) => setTimeout(resolve, 10))
    expire(true)
    socket.close()
  }
  await Promise.all([bulk(v4, 1), bulk(v6, 1), bulk(v4, 8), bulk(v6, 8), brief(v4), brief(v6), udp(4, v4), udp(6, v6)])
  return { seconds: (performance.now() - started) / 1_000, streams, short, datagrams, errors }
}

const [mode, argument = ''] = process.argv.slice(2)
if (mode === 'serve') serve(Number(argument))
else console.log(`driven ${JSON.stringify(await drive(JSON.parse(argument)))}`)
