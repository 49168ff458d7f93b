// What a host costs that has nothing to do: `npm run bench:idle`, or by hand: node dist/test/bench/idle.js [HOSTS] [MINUTES]; with --real [PEERS] [SECONDS] [--settle SECONDS], see idle-real.ts.
//
// So many hosts in virtual time, each with a service, with real cryptography and the native codec. Counted is the processor time inside one host's handlers, asking the clock
// subtracted; sockets, the kernel and the process around the host come on top.

import { parseArgs } from 'node:util'
import { codecAddon, NativeCodec } from '../../daemon/native-codec.js'
import { loadPrimitives } from '../../daemon/node-primitives.js'
import type { Host } from '../../lib/host/host.js'
import { HostWorld } from '../sim/host-world.js'
import { enclosed } from './enclosed.js'
import { idleReal } from './idle-real.js'
import { Targets } from './targets.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { real: { type: 'boolean', default: false }, settle: { type: 'string', default: '130' } },
})
const [first, second] = positionals.map(Number)
if (values.real) {
  await enclosed()
  await idleReal({ peers: first ?? 100, seconds: second ?? 60, settle: Number(values.settle) })
  process.exit()
}
const HOSTS = first ?? 100
const MINUTES = second ?? 10
/** A requirement: percent of a core. */
const PERCENT_MAX = 0.2

/** Processor time inside the host's handlers, µs, and how often it was called. */
class Meter {
  spent = 0
  calls = 0
  readonly #asking: number

  constructor(host: Host) {
    this.#asking = askingCost()
    const measured = (work: (now: number) => void) => (now: number) => {
      const before = process.cpuUsage()
      work(now)
      const { user, system } = process.cpuUsage(before)
      this.spent += user + system - this.#asking
      this.calls++
    }
    host.wireRead = measured(host.wireRead.bind(host))
    host.handleTimeout = measured(host.handleTimeout.bind(host))
  }
}

/** µs between two questions for the processor time with nothing in between. */
function askingCost(): number {
  const rounds = 10_000
  let sum = 0
  for (let i = 0; i < rounds; i++) {
    const { user, system } = process.cpuUsage(process.cpuUsage())
    sum += user + system
  }
  return sum / rounds
}

const world = new HostWorld(await loadPrimitives(), 1, {
  realCrypto: true,
  codec: () => new NativeCodec(codecAddon()),
  host: { peerCapacity: 4 * HOSTS },
})
const hosts = world.mesh(HOSTS)
hosts.forEach((host, i) => host.expose(`service-${i}`, 80))
const knowsAll = () => hosts.every(({ host }) => host.directory.hosts().length === HOSTS)
if (!world.until(knowsAll, 120_000, 1_000)) throw new Error('the hosts did not find each other within 2 minutes')
// What is made anew in turns is so by then: no burst of the beginning is counted.
world.runFor(130_000)

const idle = hosts[HOSTS >> 1]!
let frames = 0
let bytes = 0
const kinds = new Map<string, number>()
world.filter = (passing) => {
  if (passing.from === idle.address || passing.to === idle.address) {
    frames++
    bytes += passing.bytes.length
    const kind = `${passing.from === idle.address ? 'out' : 'in'} ${passing.bytes.length}`
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  }
  return true
}
const meter = new Meter(idle.host)
world.runFor(MINUTES * 60_000)
const seconds = MINUTES * 60
if (process.env['BENCH_KINDS'] !== undefined) console.log([...kinds].sort((a, b) => b[1] - a[1]).slice(0, 20))
const percent = (meter.spent / 1e6 / seconds) * 100
const perSecond = { calls: meter.calls / seconds, frames: frames / seconds, bytes: bytes / seconds }
console.log(`${HOSTS} hosts, ${idle.host.sessions.count} sessions, ${MINUTES} minutes`)
console.log(`  of a core        ${percent.toFixed(3)} %`)
console.log(`  calls a second   ${perSecond.calls.toFixed(2)}`)
console.log(`  frames a second  ${perSecond.frames.toFixed(2)}, ${perSecond.bytes.toFixed(0)} bytes a second`)
const targets = new Targets()
targets.atMost(`percent of a core, one host's handlers, idle among ${HOSTS} hosts`, percent, PERCENT_MAX)
targets.print()
console.log(JSON.stringify({ hosts: HOSTS, minutes: MINUTES, percent, perSecond, targets: targets.judged }))
