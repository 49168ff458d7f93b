// What the two large tables cost at a million entries. Run by hand: node --expose-gc dist/test/bench/tables.js [ENTRIES] [plain]
// `plain`: without large pages.
//
// Every operation of the service table is timed by itself, and in tens; the clock's own time (median of an empty measurement) is subtracted. The percentiles are
// those of the median round. "cpu" is processor time of the process, garbage collection included, and is the steadier figure on a machine that others use too.

import { tableMemory } from '../../daemon/table-memory.js'
import { FlowState, FlowTable, Row } from '../../lib/flow/flow-table.js'
import { ReadAhead } from '../../lib/flow/read-ahead.js'
import { Generations } from '../../lib/flow/flow-id.js'
import { ServiceTable, type Rule } from '../../lib/service/service-table.js'
import type { ServicePrefix } from '../../lib/service/service-id.js'
import { packetBatch, PACKET_WORDS } from '../../lib/wire/batch.js'
import { VNET_HEADER } from '../../lib/wire/constants.js'
import { hostId, serviceId, type ServiceId } from '../../lib/wire/ids.js'
import { seededRandom } from '../tools/seeded-random.js'
import { Targets } from './targets.js'

const ENTRIES = Number(process.argv[2] ?? 1_000_000)
const memoryFor = process.argv[3] === 'plain' ? (bytes: number) => new ArrayBuffer(bytes) : tableMemory
/** Requirements, at a million entries. */
const LOOKUP_P99_US = 1
const INSERT_US = 5
const FLOW_TABLE_MB = 256
const FLOW_LOOKUP_US = 0.15
const LOOKUPS = 100_000
const ROUNDS = 7
const random = seededRandom(1)
const word = (): number => Math.floor(random() * 2 ** 32)
const hex = (value: number): string => (value >>> 0).toString(16).padStart(8, '0')
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!

const clock = (() => {
  const times = Float64Array.from({ length: 100_000 }, () => -performance.now() + performance.now()).sort()
  return times[times.length >> 1]!
})()
const results: Record<string, number> = {}

function report(what: string, figures: Record<string, number>): void {
  const digits = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2))
  const shown = Object.entries(figures).map(([name, value]) => `${name} ${digits(value)}`)
  for (const [name, value] of Object.entries(figures)) results[`${what}: ${name}`] = Number(value.toFixed(3))
  console.log(`${what.padEnd(52)} ${shown.join('   ')}`)
}

const at = (sorted: Float64Array, part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

/** Times each of `count` operations, µs, sorted. */
function each(count: number, operation: (i: number) => void): { readonly times: Float64Array; readonly cpu: number } {
  const times = new Float64Array(count)
  const before = process.cpuUsage()
  for (let i = 0; i < count; i++) {
    const start = performance.now()
    operation(i)
    times[i] = (performance.now() - start - clock) * 1e3
  }
  const { user, system } = process.cpuUsage(before)
  return { times: times.sort(), cpu: (user + system) / count - clock * 1e3 }
}

/** Percentiles over rounds of `count` operations, one by one and in tens; µs an operation. */
function rounds(what: string, count: number, operation: (i: number) => void): void {
  const single: Float64Array[] = []
  const tens: Float64Array[] = []
  const cpu: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    single.push(each(count, operation).times)
    const ten = (i: number) => {
      for (let j = 0; j < 10; j++) operation(10 * i + j)
    }
    const { times, cpu: used } = each(count / 10, ten)
    tens.push(times.map((time) => time / 10))
    cpu.push(used / 10)
  }
  const of = (all: readonly Float64Array[], part: number) => median(all.map((times) => at(times, part)))
  report(what, {
    'p50 us': of(single, 0.5),
    'p99 us': of(single, 0.99),
    'tens p50 us': of(tens, 0.5),
    'tens p99 us': of(tens, 0.99),
    'cpu us': median(cpu),
  })
}

function memory(): number {
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

/** What one read of memory of the same kind takes here, when each waits for the one before it, ns: a table cannot be faster than the reads it needs. */
function readTime(megabytes: number): number {
  const next = new Int32Array(memoryFor(megabytes * 2 ** 20))
  for (let i = 0; i < next.length; i++) next[i] = i
  for (let i = next.length - 1; i > 0; i--) {
    const j = Math.floor(random() * i)
    const value = next[i]!
    next[i] = next[j]!
    next[j] = value
  }
  const reads = 1_000_000
  let at = 0
  const before = process.cpuUsage()
  for (let i = 0; i < reads; i++) at = next[at]!
  const { user, system } = process.cpuUsage(before)
  if (at < 0) throw new Error('out of range')
  return ((user + system) / reads) * 1e3
}

// ---- Service table ----

const network = hex(word()) + hex(word())
const label = () => hex(word() & 0x7fffffff)
const tops = Array.from({ length: 2_000 }, label)
const seconds = Array.from({ length: 40_000 }, () => pick(tops) + hex(word()))
const thirds = Array.from({ length: 60_000 }, () => pick(seconds) + hex(word()))

/** IDs as names have them: one to four labels, a tenth of them self-certifying. */
function anyId(): ServiceId {
  const kind = random() * 20
  const name = hex(word()) + hex(word())
  if (kind < 2)
    return serviceId(network + hex(word() | 0x80000000) + Array.from({ length: 5 }, () => hex(word())).join(''))
  const levels =
    kind < 6 ? label() : kind < 12 ? pick(tops) + hex(word()) : (kind < 17 ? pick(seconds) : pick(thirds)) + hex(word())
  return serviceId(network + levels.padEnd(32, '0') + name)
}
const keyId = (): ServiceId =>
  serviceId(network + hex(word() | 0x80000000) + Array.from({ length: 5 }, () => hex(word())).join(''))
const domain = (levels: string): ServicePrefix => ({
  id: serviceId((network + levels).padEnd(64, '0')),
  length: 64 + 4 * levels.length,
})

function services(): void {
  const prefixes = [...tops.slice(0, 1_000), ...seconds.slice(0, 20_000), ...thirds.slice(0, 30_000)].map(domain)
  prefixes.length = Math.min(prefixes.length, ENTRIES >> 1)
  prefixes.push(domain(''))
  const exact = Array.from({ length: ENTRIES - prefixes.length }, anyId)
  for (const id of exact) prefixes.push({ id, length: 256 })
  for (let i = prefixes.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[prefixes[i], prefixes[j]] = [prefixes[j]!, prefixes[i]!]
  }
  const hosts = Array.from({ length: 1_000 }, () => hostId(Uint8Array.from({ length: 32 }, () => word() & 255)))
  const rules = hosts.map((host): Rule => ({
    action: { kind: 'forward', to: 'instance', host },
    priority: 100,
    weight: 100,
  }))
  const keys = hosts.map((host) => `instance/${host}`)

  // Code that runs for the first time is not what is measured.
  const small = new ServiceTable(memoryFor)
  for (let i = 0; i < 20_000; i++) small.set(prefixes[i % prefixes.length]!, keys[i % 1000]!, rules[i % 1000]!)
  for (let i = 0; i < 20_000; i++) small.delete(prefixes[i % prefixes.length]!, keys[i % 1000]!)

  const table = new ServiceTable(memoryFor)
  const before = memory()
  const inserted = each(prefixes.length, (i) => table.set(prefixes[i]!, keys[i % 1000]!, rules[i % 1000]!))
  const bytes = (memory() - before) / table.size
  report(`services: insert, ${table.size} in all`, {
    'mean us': inserted.times.reduce((sum, time) => sum + time, 0) / prefixes.length,
    'cpu us': inserted.cpu,
    'p50 us': at(inserted.times, 0.5),
    'p99 us': at(inserted.times, 0.99),
    'p99.99 us': at(inserted.times, 0.9999),
    'max us': at(inserted.times, 1),
    'bytes an entry': bytes,
  })

  // Other strings than those in the table, as they come from a decoder.
  const copies = Array.from({ length: LOOKUPS }, () => serviceId(Buffer.from(pick(exact), 'hex')))
  const fresh = Array.from({ length: LOOKUPS }, anyId)
  const alone = Array.from({ length: LOOKUPS }, keyId)
  const kinds = [copies, copies, fresh, alone]
  const mixed = copies.map((_, i) => kinds[i % 4]![i]!)
  let sum = 0
  const look = (ids: readonly ServiceId[]) => (i: number) => {
    sum += table.lookup(ids[i]!)?.rules[0]?.priority ?? NaN
  }
  const few = copies.map((_, i) => copies[i % 1_000]!)
  rounds('services: lookup of the same 1,000 IDs', LOOKUPS, look(few))
  rounds('services: lookup of an ID that is there', LOOKUPS, look(copies))
  rounds('services: lookup that a domain or the network answers', LOOKUPS, look(fresh))
  rounds('services: lookup that only the network answers', LOOKUPS, look(alone))
  rounds('services: lookup, half of the first, a quarter each', LOOKUPS, look(mixed))
  if (Number.isNaN(sum)) throw new Error('a lookup found nothing')

  const removed = each(prefixes.length, (i) => void table.delete(prefixes[i]!, keys[i % 1000]!))
  if (table.size !== 0) throw new Error('something was left')
  report('services: removal of all', {
    'cpu us': removed.cpu,
    'p50 us': at(removed.times, 0.5),
    'p99 us': at(removed.times, 0.99),
    'max us': at(removed.times, 1),
  })
}

// ---- Flow table ----

const PEERS = 1_000
const PACKET = 40
/** Packets that a TUN hands over at a time. */
const BATCH = 64

function flows(): void {
  const generations = new Generations((length) => Uint8Array.from({ length }, () => word() & 255))
  const table = new FlowTable(memoryFor(FlowTable.bytesFor(ENTRIES)), ENTRIES, generations)
  const packets = new Uint8Array(PACKET * LOOKUPS)
  const view = new DataView(packets.buffer)
  const local = Uint8Array.of(198, 18, 0, 1)
  const remote = (row: number) => Uint8Array.of(198, 18, 128 + ((row >> 8) & 63), row & 255)
  const remotes = Array.from({ length: 16_384 }, (_, row) => remote(row))
  const ports = (row: number) => [(row >> 5) & 0xffff, 443 + (row % 7)] as const
  const inserted = each(ENTRIES, (row) => {
    const [client, server] = ports(row)
    const made = table.allocate(FlowState.established)
    table.link(made, 4, 6, local, remotes[(row * 31) & 16_383]!, client, server)
    table.set(made, Row.peer, row % PEERS)
    table.set(made, Row.remoteSlot, row)
    table.set(made, Row.remoteGeneration, row + 1)
    table.linkRemote(made)
  })
  report(`flows: insert, ${table.count} in all`, {
    'cpu us': inserted.cpu,
    'p50 us': at(inserted.times, 0.5),
    'p99 us': at(inserted.times, 0.99),
    'MB a million': FlowTable.bytesFor(1_000_000) / 1e6,
  })
  const rows = Int32Array.from({ length: LOOKUPS }, () => Math.floor(random() * ENTRIES))
  const few = rows.map((row) => row % 1_000)
  const portsOf = (row: number) => {
    const [client, server] = ports(row)
    return (client << 16) | server
  }
  const words = { rows: rows.map(portsOf), few: few.map(portsOf) }
  let found = 0
  for (const [name, chosen, lookedUp] of [
    ['any of them', rows, words.rows],
    ['the same 1,000', few, words.few],
  ] as const) {
    chosen.forEach((row, i) => {
      packets.set(local, i * PACKET + 12)
      packets.set(remotes[(row * 31) & 16_383]!, i * PACKET + 16)
    })
    rounds(`flows: lookup by 5-tuple, ${name}`, LOOKUPS, (i) => {
      if (table.find(view, i * PACKET + 12, i * PACKET + 16, 4, 6, lookedUp[i]!) === chosen[i]) found++
    })
    const slots = chosen.map((row) => row)
    const generationsOf = chosen.map((row) => table.get(row, Row.generation))
    rounds(`flows: lookup by flow ID, ${name}`, LOOKUPS, (i) => {
      if (table.resolve(slots[i]!, generationsOf[i]!, chosen[i]! % PEERS) === chosen[i]) found++
    })
  }
  if (found !== 2 * 2 * 2 * ROUNDS * LOOKUPS) throw new Error(`found ${found}`)

  // As the data path does it: a batch of packets as they come from the TUN, whose rows are read ahead before they are looked up one by one.
  const ahead = new ReadAhead(table)
  const batch = packetBatch(BATCH * 64, BATCH)
  const [ip, transport] = [VNET_HEADER, VNET_HEADER + 20]
  for (let i = 0; i < BATCH; i++) {
    const at = i * 64 + 2
    batch.data.set([0x45, 0, 0, PACKET, 0, 0, 0x40, 0, 64, 6], at + ip)
    batch.data.set(local, at + ip + 12)
    batch.desc.set([at, VNET_HEADER + PACKET], i * PACKET_WORDS)
  }
  batch.count = BATCH
  const lookUp = (chosen: Int32Array, ports: Int32Array, readAhead: boolean) => {
    const times: number[] = []
    for (let first = 0; first + BATCH <= LOOKUPS; first += BATCH) {
      for (let i = 0; i < BATCH; i++) {
        const at = batch.desc[i * PACKET_WORDS]!
        batch.data.set(remotes[(chosen[first + i]! * 31) & 16_383]!, at + ip + 16)
        batch.view.setInt32(at + transport, ports[first + i]!)
      }
      const start = performance.now()
      if (readAhead) ahead.packets(batch)
      for (let i = 0; i < BATCH; i++) {
        const at = batch.desc[i * PACKET_WORDS]!
        const row = table.find(batch.view, at + ip + 12, at + ip + 16, 4, 6, batch.view.getInt32(at + transport))
        if (row === chosen[first + i]) found++
      }
      times.push(((performance.now() - start - clock) * 1e3) / BATCH)
    }
    return Float64Array.from(times).sort()
  }
  for (const [name, chosen, ports] of [
    ['any of them', rows, words.rows],
    ['the same 1,000', few, words.few],
  ] as const) {
    found = 0
    const [plain, read]: [Float64Array[], Float64Array[]] = [[], []]
    for (let round = 0; round < ROUNDS; round++) {
      plain.push(lookUp(chosen, ports, false))
      read.push(lookUp(chosen, ports, true))
    }
    if (found !== 2 * ROUNDS * Math.floor(LOOKUPS / BATCH) * BATCH) throw new Error(`found ${found}`)
    const of = (all: readonly Float64Array[], part: number) => median(all.map((times) => at(times, part)))
    report(`flows: a batch of ${BATCH} by 5-tuple, ${name}`, {
      'p50 us': of(read, 0.5),
      'p99 us': of(read, 0.99),
      'not read ahead p50 us': of(plain, 0.5),
      'p99 us ': of(plain, 0.99),
    })
  }
  const released = each(ENTRIES, (row) => table.release(row))
  report('flows: release of all', {
    'cpu us': released.cpu,
    'p50 us': at(released.times, 0.5),
    'p99 us': at(released.times, 0.99),
  })
}

console.log(
  `${ENTRIES} entries; the clock takes ${(clock * 1e6).toFixed(0)} ns, which is subtracted; ${ROUNDS} rounds of ${LOOKUPS} lookups`,
)
report('one read of memory, waited for, ns', {
  'in 1 MB': readTime(1),
  'in 8 MB': readTime(8),
  'in 64 MB': readTime(64),
  'in 176 MB': readTime(176),
})
services()
globalThis.gc?.()
flows()
const targets = new Targets()
const found = (name: string) => results[name] ?? NaN
for (const kind of ['of an ID that is there', 'that a domain or the network answers', 'that only the network answers'])
  targets.atMost(`services: lookup ${kind}, p99 us`, found(`services: lookup ${kind}: p99 us`), LOOKUP_P99_US)
for (const figure of ['cpu us', 'mean us'])
  targets.atMost(`services: insert, ${figure}`, found(`services: insert, ${ENTRIES} in all: ${figure}`), INSERT_US)
const tableMb = FlowTable.bytesFor(1_000_000) / 1e6
targets.atMost('flows: MB a million', tableMb, FLOW_TABLE_MB)
targets.atMost(
  'flows: lookup by 5-tuple as the data path does it, median us',
  found(`flows: a batch of ${BATCH} by 5-tuple, any of them: p50 us`),
  FLOW_LOOKUP_US,
)
targets.atMost(
  'flows: lookup by 5-tuple alone, median us',
  found('flows: lookup by 5-tuple, any of them: tens p50 us'),
  FLOW_LOOKUP_US,
)
targets.print()
console.log(JSON.stringify({ entries: ENTRIES, results, targets: targets.judged }))
