// The two ends of a TCP and a UDP stream, each way, one record every so many ms. usage: node moves-stream.js serve EVERY-MS PORT, or node moves-stream.js open EVERY-MS NAME PORT.
// Says `ready`, then answers each line on stdin by a line of JSON.
//
// TCP: records of random bytes; either end has the hash of all that it sent and all that it received. UDP: a sequence number 4 bytes (LE), one up from 0, and when it was
// sent, ms, 8 bytes (LE), in as many bytes: both ends have the same clock.

import { createHash, randomBytes } from 'node:crypto'
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { readFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { monotonicNow } from '../net/moves/asked-program.js'
import { RECORD } from './moves-record.js'

/** gaps: see {@link Gaps}. seen: how many datagrams of these numbers have come. stop: nothing is sent from then on. */
export type StreamCommand =
  { readonly do: 'gaps' | 'seen'; readonly from: number; readonly to: number } | { readonly do: 'state' | 'stop' }

/** Longest time between two arrivals from `from` to `to`, ms: a gap that began earlier counts from `from` on, one that is open at `to` counts to its end. */
export interface Gaps {
  readonly tcp: number
  readonly udp: number
  /** This process did nothing for so long: as much of a gap may be its own. */
  readonly own: number
  /** Of the datagrams that came meanwhile one was under way for so long: what the sending process did not send in time is no part of it. */
  readonly underWay: number
}
export interface StreamState {
  readonly bytesSent: number
  readonly bytesReceived: number
  readonly hashSent: string
  readonly hashReceived: string
  readonly datagramsSent: number
  readonly datagramsReceived: number
  readonly datagramsTwice: number
  /** Datagrams that had come to this program and did not fit into its socket's own buffer, as it did not read them in time. */
  readonly overflowed: number
  /** Last arrivals; see {@link monotonicNow}. */
  readonly tcpAt: number
  readonly udpAt: number
  readonly sendErrors: number
  /** What became of the connection: nothing, when all is well. */
  readonly resets: readonly string[]
}

const [mode, every, first = '', second] = process.argv.slice(2)
const everyMs = Number(every)
/** Position in a datagram. */
const SENT_AT = 4
/** More than come in the longest window. */
const ARRIVALS_KEPT = 1 << 16

class Arrivals {
  readonly #at = new Float64Array(ARRIVALS_KEPT)
  readonly #took = new Float64Array(ARRIVALS_KEPT)
  #count = 0

  /** `took`: how long it was under way, ms. */
  add(now: number, took = 0): void {
    const slot = this.#count++ % ARRIVALS_KEPT
    this.#at[slot] = now
    this.#took[slot] = took
  }
  get last(): number {
    return this.#count === 0 ? 0 : this.#at[(this.#count - 1) % ARRIVALS_KEPT]!
  }
  longestGap(from: number, to: number): number {
    let [longest, before] = [0, from]
    for (let i = this.#first(from); i < this.#count && before < to; i++) {
      const at = this.#at[i % ARRIVALS_KEPT]!
      longest = Math.max(longest, at - before)
      before = at
    }
    return before < to ? Math.max(longest, monotonicNow() - before) : longest
  }
  longestWay(from: number, to: number): number {
    let longest = 0
    for (let i = this.#first(from); i < this.#count && this.#at[i % ARRIVALS_KEPT]! <= to; i++)
      longest = Math.max(longest, this.#took[i % ARRIVALS_KEPT]!)
    return longest
  }
  /** Number of the first one after `from`. */
  #first(from: number): number {
    const oldest = Math.max(0, this.#count - ARRIVALS_KEPT)
    let i = this.#count
    while (i > oldest && this.#at[(i - 1) % ARRIVALS_KEPT]! > from) i--
    if (i === oldest && oldest > 0) throw new RangeError('the window is too long ago')
    return i
  }
}

const arrivals = { tcp: new Arrivals(), udp: new Arrivals(), own: new Arrivals() }
const hashes = { sent: createHash('sha256'), received: createHash('sha256') }
const counts = { bytesSent: 0, bytesReceived: 0, datagramsSent: 0, datagramsReceived: 0, datagramsTwice: 0 }
const seen = new Uint32Array(ARRIVALS_KEPT)
const resets: string[] = []
let sendErrors = 0

function receiveStream(socket: Socket): void {
  socket.on('data', (chunk: Buffer) => {
    arrivals.tcp.add(monotonicNow())
    hashes.received.update(chunk)
    counts.bytesReceived += chunk.length
  })
  socket.on('error', (error) => resets.push(error.message))
  socket.on('end', () => resets.push('the other end has closed'))
}

function receiveDatagram(datagram: Buffer): void {
  const now = monotonicNow()
  arrivals.udp.add(now, now - datagram.readDoubleLE(SENT_AT))
  const number = datagram.readUInt32LE()
  const slot = number % ARRIVALS_KEPT
  if (seen[slot] === number + 1) {
    counts.datagramsTwice++
    return
  }
  seen[slot] = number + 1
  counts.datagramsReceived++
}

/** Sends both; answers what is asked. */
function run(socket: Socket, sendDatagram: (datagram: Buffer) => void): void {
  const started = monotonicNow()
  let done = 0
  const timer = setInterval(() => {
    const now = monotonicNow()
    arrivals.own.add(now)
    for (const due = Math.floor((now - started) / everyMs); done < due; done++) {
      const record = randomBytes(RECORD)
      hashes.sent.update(record)
      counts.bytesSent += RECORD
      if (socket.writable) socket.write(record)
      const datagram = Buffer.alloc(RECORD)
      datagram.writeUInt32LE(counts.datagramsSent++)
      datagram.writeDoubleLE(monotonicNow(), SENT_AT)
      sendDatagram(datagram)
    }
  }, everyMs)
  const state = (): StreamState => ({
    ...counts,
    overflowed: overflowed(),
    hashSent: hashes.sent.copy().digest('hex'),
    hashReceived: hashes.received.copy().digest('hex'),
    tcpAt: arrivals.tcp.last,
    udpAt: arrivals.udp.last,
    sendErrors,
    resets,
  })
  const gaps = (from: number, to: number): Gaps => ({
    tcp: arrivals.tcp.longestGap(from, to),
    udp: arrivals.udp.longestGap(from, to),
    own: arrivals.own.longestGap(from, to),
    underWay: arrivals.udp.longestWay(from, to),
  })
  const obey = (command: StreamCommand): unknown => {
    if (command.do === 'gaps') return gaps(command.from, command.to)
    if (command.do === 'seen') {
      let there = 0
      for (let number = command.from; number < command.to; number++)
        if (seen[number % ARRIVALS_KEPT] === number + 1) there++
      return there
    }
    if (command.do === 'stop') clearInterval(timer)
    return state()
  }
  createInterface({ input: process.stdin })
    .on('line', (line) => console.log(JSON.stringify(obey(JSON.parse(line)))))
    .on('close', () => process.exit(0))
}

const sockets: DatagramSocket[] = []

/** The last column of the kernel's table of sockets. */
function overflowed(): number {
  const ports = sockets.map((socket) => socket.address().port)
  const lines = readFileSync('/proc/self/net/udp', 'latin1').trimEnd().split('\n').slice(1)
  return lines
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local = '']) => ports.includes(parseInt(local.split(':')[1] ?? '', 16)))
    .reduce((sum, columns) => sum + Number(columns.at(-1)), 0)
}

function datagrams(): DatagramSocket {
  const socket = createSocket('udp4')
  sockets.push(socket)
  socket.on('message', receiveDatagram)
  socket.on('error', () => sendErrors++)
  return socket
}

function serve(port: number): void {
  const udp = datagrams()
  let client: { readonly address: string; readonly port: number } | undefined
  udp.on('message', (_, from) => (client = from))
  udp.bind(port)
  // It goes on listening: a service is not well where nothing listens on a port of it, and the first datagram may be later than that is found.
  const server = createServer({ noDelay: true }).once('connection', (socket) => {
    receiveStream(socket)
    run(socket, (datagram) => {
      // The client's first one has not come yet.
      if (client === undefined) counts.datagramsSent--
      else udp.send(datagram, client.port, client.address, (error) => error && sendErrors++)
    })
  })
  server.listen(port, '::', () => console.log('ready'))
}

async function open(name: string, port: number): Promise<void> {
  const { address } = await lookup(name, { family: 4 })
  const udp = datagrams()
  await new Promise<void>((resolve) => udp.bind(0, resolve))
  const socket = connect({ host: address, port, noDelay: true })
  receiveStream(socket)
  socket.once('connect', () => {
    run(socket, (datagram) => udp.send(datagram, port, address, (error) => error && sendErrors++))
    console.log('ready')
  })
}

if (mode === 'serve') serve(Number(first))
else await open(first, Number(second))
