// Packets faster than they can be moved: everybody else is still served, nothing grows, and each packet is accounted for.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { z } from 'zod'
import { ControlClient } from '../../daemon/control/client.js'
import type { StatusResponse } from '../../daemon/control/protocol.js'
import type { Asked } from './asker.js'
import { Fixture } from './fixture.js'
import type { FloodCount } from './flood.js'
import { lineOf } from './namespaces.js'

const HALF_MS = 4_000
/** A requirement: what people and programs wait for an answer, in the middle of a flood; of a machine of which somebody else takes the processors away, the median of it. */
const MEDIAN_MS_MAX = 100
/** 95 of 100 are answered within that, and all within the other: nobody takes a daemon for dead. */
const MOST_MS_MAX = 500
const LONGEST_MS_MAX = 2_000
/** What the sender of the flood makes in a second of its own processor time at least. */
const RATE_MIN = 100_000
/** It offers so many times what becomes frames, at least. */
const OFFERED_MIN = 1.1
const GROWTH_MAX = 10e6
const HOSTS = ['h1', 'h2'] as const
type Host = (typeof HOSTS)[number]

const program = (name: string) => fileURLToPath(new URL(`${name}.js`, import.meta.url))
const linkShape = z.array(
  z.object({ stats64: z.object({ tx: z.object({ packets: z.number(), dropped: z.number() }) }) }),
)
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const sum = (drops: StatusResponse['drops']) => Object.values(drops).reduce((total, n) => total + n, 0)

/** What a daemon has done between two readings of its counters. */
class Between {
  constructor(
    readonly before: StatusResponse,
    readonly after: StatusResponse,
  ) {}

  of(counter: string): number {
    return (this.after.counters[counter] ?? NaN) - (this.before.counters[counter] ?? NaN)
  }
  dropped(reason: string): number {
    return (this.after.drops[reason] ?? NaN) - (this.before.drops[reason] ?? NaN)
  }
  get dropsOnTheWay(): number {
    // Drops of the devices come behind the decision about the packet.
    return (
      sum(this.after.drops) - sum(this.before.drops) - this.dropped('send-failed') - this.dropped('tun-write-failed')
    )
  }
}

async function ended<T>(child: ChildProcess, word: string): Promise<T> {
  const line = lineOf(child, word)
  child.stdin?.end()
  return JSON.parse(await line)
}

/** Asks daemons on connections that stay; closed at the end. */
class Daemons {
  readonly #clients = new Map<string, ControlClient>()

  constructor(private readonly net: Fixture) {}

  async client(host: Host): Promise<ControlClient> {
    const known = this.#clients.get(host) ?? (await ControlClient.connect(this.net.lab.path(host, 'control.sock')))
    this.#clients.set(host, known)
    return known
  }
  async status(host: Host): Promise<StatusResponse> {
    return (await this.client(host)).call('status', {})
  }
  /** When what was under way has arrived: nothing is counted any more but what daemons say to each other. */
  async settled(host: Host): Promise<StatusResponse> {
    let last = await this.status(host)
    await this.net.until(
      `${host} has dealt with everything`,
      async () => {
        const before = last
        last = await this.status(host)
        const still = ['tunPacketsIn', 'packetsOut', 'packetsIn', 'tunPacketsOut']
        return still.every((counter) => before.counters[counter] === last.counters[counter])
      },
      30_000,
    )
    return last
  }
  close(): void {
    for (const client of this.#clients.values()) client.close()
  }
}

const SERVER = `require('http').createServer((_, response) => response.end('here')).listen(8080, '::', () => console.log('listening'))`

test('a flood of small datagrams', async (t) => {
  const net = await Fixture.up(t, HOSTS)
  const daemons = new Daemons(net)
  t.teardown(() => daemons.close())
  await net.start('h2', [process.execPath, '-e', SERVER], /listening/)
  const sink = net.open('h2', [process.execPath, program('flood'), 'sink', '0.0.0.0', '9000'])
  await lineOf(sink, 'ready')
  const exposed = await net.caracal('h2', 'expose', 'box', '--tcp', '80:8080', '--udp', '9000')
  t.equal(exposed.code, 0, exposed.err)
  await net.knows('h1', 'box', ['h2'])
  const client = await daemons.client('h1')
  const dialled = (await client.call('resolve', { name: 'box' })).addresses.v4
  if (dialled === null) throw new Error('no IPv4 address')
  const askers = await Promise.all(
    HOSTS.map(async (host) => {
      const { v4 } = (await daemons.status(host)).addresses.dns
      const words = [net.lab.path(host, 'control.sock'), v4 ?? '', 'box.svc.internal', '50']
      const asker = net.open(host, [process.execPath, program('asker'), ...words])
      await lineOf(asker, 'ready')
      return { host, asker }
    }),
  )
  const flood = net.open('h1', [process.execPath, program('flood'), 'send', dialled, '9000', '32'])
  await lineOf(flood, 'ready')

  const resident = async (host: Host) => {
    const text = readFileSync(`/proc/${(await daemons.status(host)).pid}/status`, 'utf8')
    return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1])
  }
  const device = async () => {
    const { out } = await net.run('h1', ['ip', '-s', '-j', 'link', 'show', 'caracal0'])
    return linkShape.parse(JSON.parse(out))[0]!.stats64.tx
  }
  const half = async () => {
    flood.stdin?.write('start\n')
    await wait(HALF_MS)
    const stopped = lineOf(flood, 'stopped')
    flood.stdin?.write('stop\n')
    const count: FloodCount = JSON.parse(await stopped)
    return count
  }
  /** The daemon's and the device's counts of one moment: what the kernel sends by itself may come in between. */
  const counted = async () => {
    for (let earlier = await device(); ;) {
      const status = await daemons.settled('h1')
      const later = await device()
      if (later.packets === earlier.packets) return { status, device: later }
      earlier = later
    }
  }
  // The hosts go on talking to each other meanwhile: what the first one has sent is counted before, and after, what has come to the other one.
  const first1 = await counted()
  const first2 = await daemons.settled('h2')
  await half()
  const between = { h1: await resident('h1'), h2: await resident('h2') }
  const count = await half()
  const last2 = await daemons.settled('h2')
  const last1 = await counted()
  const atOnce = await net.run('h1', ['curl', '-sS', '-m', '5', 'http://box.svc.internal/'])
  t.equal(atOnce.out, 'here', `a program is served at once ${atOnce.err}`)
  const grown = { h1: (await resident('h1')) - between.h1, h2: (await resident('h2')) - between.h2 }
  const asked = await Promise.all(
    askers.map(async ({ host, asker }) => ({ host, ...(await ended<Asked>(asker, 'asked')) })),
  )
  const taken = await ended<FloodCount>(sink, 'count')

  const rate = Math.round((count.datagrams / count.ms) * 1000)
  const [h1, h2] = [new Between(first1.status, last1.status), new Between(first2, last2)]
  const sent = last1.device.packets - first1.device.packets
  const overrun = last1.device.dropped - first1.device.dropped
  t.comment(
    `${rate} datagrams a second, the sender busy for ${Math.round(count.busyMs)} of ${Math.round(count.ms)} ms, ${Math.round((h1.of('packetsOut') / count.ms) * 1000)} of them became frames; ` +
      `${taken.datagrams} came to the server; ${JSON.stringify({ asked, grown, sent, overrun })}`,
  )
  const perBusySecond = Math.round((count.datagrams / count.busyMs) * 1000)
  t.ok(perBusySecond >= RATE_MIN, `its sender makes ${perBusySecond} in a second of its own`)
  t.ok(overrun > 0, `${rate} datagrams a second are more than can be moved`)
  t.ok(count.datagrams >= OFFERED_MIN * h1.of('packetsOut'), 'many more than become frames')

  await t.test('everybody else is served', async (t) => {
    for (const { host, unanswered, questions, median, most, longest } of asked) {
      t.equal(unanswered, 0, `${host} answered everything`)
      t.ok(questions > 4 * 20, `${host}: ${questions} questions`)
      for (const [kind, ms] of Object.entries(median)) t.ok(ms <= MEDIAN_MS_MAX, `${host}: ${kind} takes ${ms} ms`)
      for (const [kind, ms] of Object.entries(most)) t.ok(ms <= MOST_MS_MAX, `${host}: ${kind} rarely takes ${ms} ms`)
      for (const [kind, ms] of Object.entries(longest))
        t.ok(ms <= LONGEST_MS_MAX, `${host}: ${kind} took ${ms} ms once`)
    }
  })
  await t.test('memory does not grow', async (t) => {
    for (const host of HOSTS) t.ok(grown[host] <= GROWTH_MAX, `${host} has grown by ${grown[host]} bytes`)
  })
  await t.test('each packet is accounted for', async (t) => {
    t.ok(sent + overrun >= count.datagrams, 'the device counts every datagram')
    t.equal(h1.of('tunPacketsIn'), sent, 'the daemon counts what it takes from the device')
    t.equal(h1.of('wireFramesOut') - h1.of('wireSingleFramesOut'), h1.of('packetsOut'), 'each packet became a frame')
    for (const [host, it] of [
      ['h1', h1],
      ['h2', h2],
    ] as const) {
      const went = ['packetsOut', 'framesDelivered', 'framesTaken', 'wireClearFramesIn'].map((name) => it.of(name))
      t.equal(
        it.of('tunPacketsIn') + it.of('wireFramesIn'),
        went.reduce((total, n) => total + n, 0) + it.dropsOnTheWay,
        `${host}: what came in went on or was dropped`,
      )
    }
    const carried = h1.of('wireFramesOut') - h1.dropped('send-failed')
    t.ok(h2.of('wireFramesIn') <= carried, 'no more frames came than went')
  })
})

const ROWS = 24
/** h2: says everything back; keeps what is open. */
const ECHO = `require('net').createServer((socket) => socket.on('error', () => undefined).pipe(socket)).listen(8081, '::', () => console.log('listening'))`
/** h1: a stream that is compared as it comes back; says how much did when its stdin ends. */
const STREAM = `
const socket = require('net').connect({ port: 81, host: 'box.svc.internal', family: 4 })
const byte = (at) => (at * 31 + (at >> 8)) & 255
let [sent, received] = [0, 0]
const more = () => socket.write(Buffer.from(Array.from({ length: 1000 }, () => byte(sent++))))
socket.on('data', (chunk) => {
  for (const one of chunk) if (one !== byte(received++)) throw new Error('another byte at ' + received)
  if (received === sent) setTimeout(more, 5)
  if (received === 1000) console.log('ready {}')
})
socket.on('close', () => { throw new Error('closed') })
more()
process.stdin.resume().once('end', () => {
  console.log('whole ' + received)
  process.exit(0)
})`
/** h1: this many connections more, at the same time; says what became of each in the end, and closes them when its stdin ends. */
const CROWD = `
const outcomes = new Map()
const settled = (socket, outcome) => {
  outcomes.set(socket, outcome)
  if (outcomes.size < ${3 * ROWS}) return
  const all = [...outcomes.values()]
  const errors = all.filter((one) => one !== 'open')
  console.log('crowd ' + JSON.stringify({ open: all.length - errors.length, errors }))
}
for (let i = 0; i < ${3 * ROWS}; i++) {
  const socket = require('net').connect({ port: 81, host: 'box.svc.internal', family: 4 })
  // Open is what the other end answers on: "connect" alone also comes of a connection that is refused while it is waited for.
  socket.once('connect', () => socket.write('x'))
  socket.once('data', () => settled(socket, 'open'))
  socket.once('error', (error) => settled(socket, error.code))
}
process.stdin.resume().once('end', () => process.exit(0))`
const crowdShape = z.object({ open: z.number(), errors: z.array(z.string()) })

for (const small of HOSTS) {
  test(`a full flow table on ${small === 'h1' ? "the clients' host" : "the server's host"}`, async (t) => {
    const file = join(t.testdir({}), 'caracal.yaml')
    writeFileSync(file, `limits: { flows: ${ROWS} }\n`)
    const net = await Fixture.up(t, HOSTS, { upArguments: (host) => (host === small ? ['--config', file] : []) })
    const daemons = new Daemons(net)
    t.teardown(() => daemons.close())
    await net.start('h2', [process.execPath, '-e', ECHO], /listening/)
    const exposed = await net.caracal('h2', 'expose', 'box', '--tcp', '81:8081')
    t.equal(exposed.code, 0, exposed.err)
    await net.knows('h1', 'box', ['h2'])
    const before = await daemons.status(small)
    t.equal(before.flows.capacity, ROWS)
    const stream = net.open('h1', [process.execPath, '-e', STREAM])
    await lineOf(stream, 'ready')
    const crowd = net.open('h1', [process.execPath, '-e', CROWD])
    const { open, errors } = crowdShape.parse(JSON.parse(await lineOf(crowd, 'crowd')))
    const full = await daemons.status(small)
    const rows = small === 'h1' ? ROWS : ROWS / 2
    t.strictSame(
      { open: open + 1, errors, flows: full.flows.open },
      { open: rows, errors: errors.map(() => 'EHOSTUNREACH'), flows: rows },
      'as many as there is room for; the others are told at once',
    )
    const between = new Between(before, full)
    // A kernel that is told while it is busy with the socket sends its SYN again.
    t.ok(between.dropped('flow-table-full') >= errors.length, 'each of them is counted')
    t.equal(between.dropsOnTheWay, between.dropped('flow-table-full'), 'and nothing else was dropped')
    crowd.stdin?.end()
    await net.until('there is room again', async () => {
      const probe = `require('net').connect(81, 'box.svc.internal').on('connect', () => process.exit(0)).on('error', () => process.exit(1))`
      return (await net.run('h1', [process.execPath, '-e', probe])).code === 0
    })
    const whole = lineOf(stream, 'whole')
    stream.stdin?.end()
    t.ok(Number(await whole) > 1000, 'the first connection has lived through it')
  })
}
