// The two ends of many connections. usage: node crowd-end.js serve PORT, or node crowd-end.js open NAME PORT COUNT. Says `ready JSON`, then answers each line on stdin by a line of JSON.
//
// A connection carries records: its number 4 bytes, a counter 4 bytes (LE), one up from 0; each comes back as it went. Either end looks whether it is the one that is due.

import { lookup } from 'node:dns/promises'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

export interface ServerState {
  readonly accepted: number
  readonly open: number
  readonly records: number
  readonly errors: readonly string[]
}
export interface ClientState {
  readonly open: number
  /** Records sent and come back. */
  readonly sent: number
  readonly echoed: number
  /** Of connections that wait for a record now. */
  readonly waiting: number
  /** Since the last answer: the longest that a record took, ms. */
  readonly slowestMs: number
  readonly errors: readonly string[]
}
/** round: each connection sends a record. start, stop: so many connections send one every so many ms. state: nothing is done. */
export type CrowdCommand =
  | { readonly do: 'round' | 'stop' | 'state' }
  | { readonly do: 'start'; readonly senders: number; readonly everyMs: number }

const RECORD = 8
const OPENING_AT_ONCE = 50
const ERRORS_MAX = 20
const TICK_MS = 2

const errors: string[] = []
const failed = (what: string) => {
  if (errors.length < ERRORS_MAX) errors.push(what)
}

/** Cuts what comes into records; those that are not whole yet wait. */
function records(socket: Socket, take: (record: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    for (; at + RECORD <= bytes.length; at += RECORD) take(bytes.subarray(at, at + RECORD))
    rest = Buffer.from(bytes.subarray(at))
  })
}

function serve(port: number): void {
  const counts = { accepted: 0, open: 0, records: 0 }
  const server = createServer({ noDelay: true }, (socket) => {
    counts.accepted++
    counts.open++
    let [number, due] = [-1, 0]
    records(socket, (record) => {
      const from = record.readUInt32LE()
      if (number < 0) number = from
      if (from !== number || record.readUInt32LE(4) !== due++) failed(`record ${record.toString('hex')} of ${number}`)
      counts.records++
      socket.write(record)
    })
    socket.on('error', (error) => failed(`connection ${number}: ${error.message}`))
    socket.on('close', () => counts.open--)
  })
  server.listen(port, '::', 4_096, () => console.log('ready {}'))
  answer((): ServerState => ({ ...counts, errors }))
}

interface Connection {
  readonly socket: Socket
  readonly number: number
  sent: number
  echoed: number
  /** When the oldest record that has not come back was sent. */
  waitsSince: number
}

async function open(name: string, port: number, count: number): Promise<void> {
  const { address } = await lookup(name, { family: 4 })
  const connections: Connection[] = []
  const counts = { open: 0, sent: 0, echoed: 0 }
  let slowestMs = 0
  let timer: NodeJS.Timeout | undefined

  const opened = (number: number) =>
    new Promise<void>((resolve, reject) => {
      const socket = connect({ host: address, port, noDelay: true })
      const connection: Connection = { socket, number, sent: 0, echoed: 0, waitsSince: 0 }
      records(socket, (record) => {
        const now = performance.now()
        if (record.readUInt32LE() !== number || record.readUInt32LE(4) !== connection.echoed++)
          failed(`record ${record.toString('hex')} came back to ${number}`)
        counts.echoed++
        slowestMs = Math.max(slowestMs, now - connection.waitsSince)
        connection.waitsSince = now
      })
      socket.once('connect', () => {
        counts.open++
        connections.push(connection)
        resolve()
      })
      socket.on('error', (error) => {
        failed(`connection ${number}: ${error.message}`)
        reject(error)
      })
      socket.on('close', () => {
        if (connections.includes(connection)) counts.open--
        failed(`connection ${number} was closed`)
      })
    })
  const send = (connection: Connection) => {
    if (connection.sent === connection.echoed) connection.waitsSince = performance.now()
    const record = Buffer.alloc(RECORD)
    record.writeUInt32LE(connection.number)
    record.writeUInt32LE(connection.sent++, 4)
    counts.sent++
    connection.socket.write(record)
  }
  const start = (senders: number, everyMs: number) => {
    const started = performance.now()
    let due = 0
    clearInterval(timer)
    timer = setInterval(() => {
      const until = ((performance.now() - started) * senders) / everyMs
      // After a pause of this process no connection is due twice.
      due = Math.max(due, Math.floor(until) - senders)
      for (; due < until; due++) send(connections[due % senders]!)
    }, TICK_MS)
  }

  let next = 0
  const openNext = async () => {
    while (next < count) await opened(next++)
  }
  await Promise.all(Array.from({ length: OPENING_AT_ONCE }, openNext))
  console.log('ready {}')
  answer((command): ClientState => {
    if (command.do === 'round') connections.forEach(send)
    else if (command.do === 'start') start(Math.min(command.senders, count), command.everyMs)
    else if (command.do === 'stop') clearInterval(timer)
    const waiting = connections.filter(({ sent, echoed }) => sent > echoed)
    const now = performance.now()
    const longest = waiting.reduce((ms, { waitsSince }) => Math.max(ms, now - waitsSince), slowestMs)
    slowestMs = 0
    return { ...counts, waiting: waiting.length, slowestMs: longest, errors }
  })
}

function answer(obey: (command: CrowdCommand) => unknown): void {
  createInterface({ input: process.stdin })
    .on('line', (line) => console.log(JSON.stringify(obey(JSON.parse(line)))))
    .on('close', () => process.exit(0))
}

const [mode, first = '', second, third] = process.argv.slice(2)
if (mode === 'serve') serve(Number(first))
else await open(first, Number(second), Number(third))
