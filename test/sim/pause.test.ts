// A daemon that another one is about to replace asks its peers to hold what goes to it: until the new session stands, nothing is sent to where nobody has the keys, and nothing is lost.

import tap, { test } from 'tap'
import { FrameType } from '../../lib/wire/constants.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type WorldHost } from './host-world.js'
import { DatagramStream } from './datagram-stream.js'

tap.setTimeout(60_000)

interface Scene {
  readonly world: HostWorld
  readonly server: WorldHost
  readonly stream: DatagramStream
}

function scene(seed: number, delay: number): Scene {
  const world = new HostWorld(sodium, seed, { link: { delay } })
  const [server, client] = world.mesh(3)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  server!.expose('web', 80)
  world.runFor(500)
  return { world, server: server!, stream: new DatagramStream(client!, 'web', 80, 1) }
}

/** Pauses the peers, and waits until all have acknowledged and a round trip more. */
function pause({ world, server }: Scene, ms: number): void {
  server.enter((host) => host.pausePeers(ms, world.now))
  if (!world.until(() => server.host.peering.pauses.pending === 0, 500, 1)) throw new Error('not acknowledged')
}

test('nothing of a flow is sent to a host that rests, and all of it goes to the process that takes its place', async (t) => {
  for (const [seed, delay] of [0.1, 5, 40].entries()) {
    const s = scene(seed + 1, delay)
    const { world, server, stream } = s
    world.runFor(300)
    pause(s, 2_000)
    world.runFor(1)
    let late = 0
    world.filter = ({ to, bytes }) => {
      // Longer than probes, echoes and keepalives: data.
      if (to === server.address && bytes[0] === FrameType.transport && bytes.length > 120) late++
      return to !== server.address
    }
    world.runFor(300)
    t.equal(late, 0, `delay ${delay}`)
    t.strictSame(stream.missing(0, stream.received), [], 'what was sent before had arrived')
    world.filter = () => true
    const { client } = stream
    const held = client.host.flows.waiting.count
    t.ok(held >= 300, `${held} wait`)
    server.restart()
    t.ok(world.until(() => client.host.flows.waiting.count === 0, 4 * delay + 100, 1))
    world.runFor(delay + 1)
    // The new process of this test has lost its flows: it counts what it cannot deliver.
    t.ok(server.host.drops.get('unknown-flow') >= held, `delay ${delay}`)
  }
})

test('the peers of a host that goes on after all, or never comes back, send again', async (t) => {
  for (const how of ['resume', 'time'] as const) {
    const s = scene(7, 5)
    const { world, server, stream } = s
    world.runFor(100)
    pause(s, how === 'time' ? 200 : 5_000)
    world.runFor(150)
    const held = stream.received
    world.runFor(40)
    t.equal(stream.received, held, `${how}: nothing came`)
    if (how === 'resume') server.enter((host) => host.resumePeers(world.now))
    world.runFor(200)
    t.ok(stream.received > held + 200, `${how}: all came`)
    stream.stop()
    world.runFor(1_000)
    t.strictSame(stream.problems(), [], how)
    t.notOk(server.log.some((line) => line.startsWith('dead') || line.startsWith('doubtful')))
    t.notOk(stream.client.log.some((line) => line.startsWith('dead') || line.startsWith('doubtful')))
  }
})
