// Small datagrams as fast as one processor makes them, and the other end. usage:
//   node flood.js send ADDRESS PORT BYTES   from one port, each datagram a packet of its own, until stdin ends
//   node flood.js sink ADDRESS PORT         takes what comes; the first datagram of every sender is sent back
// `send` says `ready` when its first datagram has come back, then waits for a line on stdin for each start and stop; both say `count JSON` at the end of stdin.

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { NativeUdp } from '../../daemon/udp.js'
import { encodeLocator } from '../../lib/path/locator.js'
import { ADDRESS_RECORD, datagramBatch, DATAGRAM_WORDS, frameRuns, RUN_WORDS } from '../../lib/wire/batch.js'

export interface FloodCount {
  /** Datagrams that the kernel took, or that came. */
  readonly datagrams: number
  readonly ms: number
  /** Processor time that the sender took meanwhile. */
  readonly busyMs: number
}

const [mode = '', address = '', port = '', bytes = '32'] = process.argv.slice(2)
/** Messages of one system call, twice. */
const BATCH = 256
const ROUNDS = 8
const six = address.includes(':')
const wildcard = six ? '::' : '0.0.0.0'
const input = createInterface(process.stdin)
const say = (word: string, what: object = {}) => console.log(`${word} ${JSON.stringify(what)}`)

if (mode === 'sink') sink()
else await send()

function sink(): void {
  const udp = new NativeUdp({ address, port: Number(port) })
  const batch = datagramBatch(8)
  const known = new Set<string>()
  const back = frameRuns(65_536, 1)
  let datagrams = 0
  udp.onReadable(() => {
    for (let round = 0; round < ROUNDS && udp.recvBatch(batch) > 0; round++) {
      for (let i = 0; i < batch.count; i++) {
        const [from, total, size] = batch.desc.subarray(i * DATAGRAM_WORDS)
        datagrams += size! > 0 ? Math.ceil(total! / size!) : 1
        const record = batch.addresses.slice(i * ADDRESS_RECORD, (i + 1) * ADDRESS_RECORD)
        if (known.has(record.join())) continue
        known.add(record.join())
        const length = size! > 0 ? Math.min(size!, total!) : total!
        back.data.set(batch.data.subarray(from!, from! + length))
        back.desc.set([0, length, length, 0, 0, 0])
        back.count = 1
        udp.sendBatch(back, record)
      }
    }
  })
  say('ready')
  input.once('close', () => {
    say('count', { datagrams, ms: 0, busyMs: 0 } satisfies FloodCount)
    udp.close()
  })
}

async function send(): Promise<void> {
  const udp = new NativeUdp({ address: wildcard, port: 0, gso: false })
  const length = Number(bytes)
  const runs = frameRuns(length, BATCH)
  const record = encodeLocator({ address, port: Number(port) })
  const fill = (count: number) => {
    for (let i = 0; i < count; i++) runs.desc.set([0, length, length, 0, 0, 0], i * RUN_WORDS)
    runs.count = count
  }
  let answered = false
  const answers = datagramBatch(8)
  udp.onReadable(() => {
    while (udp.recvBatch(answers) > 0) answered = true
  })
  fill(1)
  while (!answered) {
    udp.sendBatch(runs, record)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  fill(BATCH)
  let running = false
  let datagrams = 0
  let [ms, busyMs] = [0, 0]
  let since = 0
  let usedAtStart = process.cpuUsage()
  const turn = () => {
    if (!running) return
    for (let i = 0; i < ROUNDS; i++) datagrams += udp.sendBatch(runs, record).sent
    setImmediate(turn)
  }
  input.on('line', () => {
    running = !running
    if (running) {
      since = performance.now()
      usedAtStart = process.cpuUsage()
      turn()
    } else {
      ms += performance.now() - since
      const { user, system } = process.cpuUsage(usedAtStart)
      busyMs += (user + system) / 1_000
      say('stopped', { datagrams, ms, busyMs } satisfies FloodCount)
    }
  })
  say('ready')
  await once(input, 'close')
  running = false
  say('count', { datagrams, ms, busyMs } satisfies FloodCount)
  udp.close()
}
