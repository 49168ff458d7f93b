// What programs notice while a host has no address at all, and when the next one comes: nothing is lost, nothing comes twice, and what comes is in order.

import tap, { test } from 'tap'
import type { FlowOptions } from '../../lib/flow/flow-options.js'
import { sodium } from '../tools/sodium.js'
import { DatagramStream } from './datagram-stream.js'
import { HostWorld } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'

const ONLY = process.env['HOST_SEED']
tap.setTimeout(240_000)

function meet(seed: number, hosts: number, delay: number, flow: Partial<FlowOptions> = {}): HostWorld {
  const world = new HostWorld(sodium, seed, { link: { delay }, host: { flow } })
  world.mesh(hosts)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  world.hosts[0]!.expose('web', 80)
  world.runFor(500)
  return world
}

test('an address vanishes and another appears later: no datagram is lost or out of order, and TCP goes on at once', async (t) => {
  const seeds = ONLY === undefined ? Array.from({ length: 20 }, (_, i) => i + 1) : [Number(ONLY)]
  for (const seed of seeds) {
    const random = seededRandom(seed * 104_729)
    const any = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!
    const delay = any([0.1, 5, 20, 40])
    const world = meet(seed, any([2, 3]), delay)
    const [server, client] = world.hosts
    const moving = any([server!, client!])
    const told = any([true, false])
    const outage = any([50, 120, 300, 500])
    const stream = new DatagramStream(client!, 'web', 80, any([1, 5]), any([100, 1_000]))
    const tcp = client!.connect('web', 80)
    const write = () => {
      if (stream.stopped) return
      client!.program(() => tcp.write(Uint8Array.of(7)))
      world.events.at(world.now + 5, write)
    }
    write()
    world.runFor(1_000)
    for (let i = 0; i < 2; i++) {
      moving.vanish(told)
      world.runFor(outage)
      moving.move(world.freshAddress(), true)
      world.runFor(1_200)
    }
    stream.stop()
    world.runFor(2_000)
    const problems = stream.problems()
    // A moving host says at once where it is; its peers prove that before they send, which takes them a round trip and a half more.
    if (tcp.longestGap > outage + 6 * delay + 25) problems.push(`TCP stalled for ${tcp.longestGap} ms`)
    if (outage + 4 * delay < 190 && tcp.timeouts > 0) problems.push(`TCP ran into ${tcp.timeouts} time-outs`)
    const scene = JSON.stringify({ moving: moving.name, told, outage, delay, every: stream.every, size: stream.size })
    if (problems.length > 0) t.fail(`HOST_SEED=${seed} ${scene}`, { problems })
  }
  t.pass(`${seeds.length} seeds`)
})

test('what waits stays within its bounds, the newest is kept, and each datagram that is not is counted', async (t) => {
  const limits = { waitingBytes: 64 * 1024, waitingBytesTotal: 96 * 1024, waitingTimeout: 400 }
  for (const [size, outage] of [
    [1_000, 300],
    [60, 1_000],
  ] as const) {
    const world = meet(3, 2, 5, limits)
    const [server, client] = world.hosts
    const stream = new DatagramStream(client!, 'web', 80, 1, size)
    world.runFor(500)
    client!.vanish(true)
    const { drops, flows } = client!.host
    const dropped = () => drops.get('queue-full') + drops.get('queue-expired')
    let most = 0
    for (let i = 0; i < outage; i++) {
      world.runFor(1)
      most = Math.max(most, flows.waiting.bytes)
    }
    const { count } = flows.waiting
    t.ok(most <= limits.waitingBytes, `${size}: ${most} bytes at most`)
    t.ok(count > 50 && count <= limits.waitingTimeout + 1, `${size}: ${count} wait`)
    const lost = dropped()
    t.ok(lost > 0 && count + lost <= outage + 1 && count + lost >= outage - 1, `${size}: ${lost} are counted`)
    client!.move(world.freshAddress(), true)
    world.runFor(300)
    stream.stop()
    world.runFor(1_000)
    const missing = stream.missing(0, stream.sent)
    t.equal(missing.length, lost, `${size}: no other is missing`)
    t.equal(missing.at(-1)! - missing[0]! + 1, lost, `${size}: the oldest`)
    t.equal(flows.waiting.count, 0)
    t.equal(server!.host.flows.waiting.count, 0)
  }
})
