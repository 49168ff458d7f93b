// Somebody on the way hears a peer's frames, and sends them on from his own address before they arrive: authentic frames whose source is forged. All that goes there until something is
// proven is counted, data and all.

import tap, { test } from 'tap'
import { FrameType } from '../../lib/wire/constants.js'
import { sodium } from '../tools/sodium.js'
import { DatagramStream } from './datagram-stream.js'
import { HostWorld, type WorldHost } from './host-world.js'

tap.setTimeout(120_000)
const FORGED = ['192.0.2.66:6666', '192.0.2.67:6666', '192.0.2.66:7777']

/** Sends frames of `victim` to `other` on from forged addresses, and counts. */
class Forger {
  came = 0
  went = 0
  on = false
  #turn = 0

  constructor(
    readonly world: HostWorld,
    victim: WorldHost,
    other: WorldHost,
    /** Whether the frames themselves arrive, too, later; or when. */
    passes: () => boolean,
    /** Sources that he takes in turns, every so many frames. */
    readonly every: number,
  ) {
    world.filter = ({ from, to, bytes }) => {
      if (FORGED.includes(to)) this.went += bytes.length
      if (!this.on || from !== victim.address || to !== other.address) return true
      if (bytes[0] !== FrameType.transport) return true
      this.came += bytes.length
      world.deliver(FORGED[Math.floor(this.#turn++ / every) % FORGED.length]!, to, bytes)
      return passes()
    }
  }
}

function scene(seed: number, delay: number) {
  const world = new HostWorld(sodium, seed, { link: { delay } })
  const [server, client] = world.mesh(3)
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  server!.expose('web', 80)
  world.runFor(500)
  return { world, server: server!, client: client! }
}

test('attack: frames sent on first from forged addresses move nothing, cost no datagram, and draw no more than three times their bytes', async (t) => {
  for (const [i, delay] of [0.2, 5, 40].entries())
    for (const every of [1, 50, 10_000]) {
      const { world, server, client } = scene(10 + i, delay)
      const stream = new DatagramStream(client, 'web', 80, 7, 300)
      const forger = new Forger(world, client, server, () => true, every)
      world.runFor(1_000)
      forger.on = true
      world.runFor(4_000)
      forger.on = false
      world.runFor(500)
      stream.stop()
      world.runFor(2_000)
      const name = `delay ${delay}, every ${every}`
      t.ok(forger.went <= 3 * forger.came, `${name}: ${forger.went} bytes for ${forger.came}`)
      t.strictSame(
        stream.problems().filter((text) => !text.includes('late')),
        [],
        name,
      )
      t.notOk(
        server.log.some((line) => FORGED.some((address) => line.includes(address))),
        `${name}: nothing has moved`,
      )
    }
})

test('attack: who takes a peer’s frames and sends them on from forged addresses draws no more than three times their bytes', async (t) => {
  for (const [i, delay] of [0.2, 40].entries())
    for (const every of [1, 10_000]) {
      const { world, server, client } = scene(20 + i, delay)
      const stream = new DatagramStream(client, 'web', 80, 1, 1_000)
      const forger = new Forger(world, client, server, () => false, every)
      world.runFor(1_000)
      forger.on = true
      world.runFor(3_000)
      const name = `delay ${delay}, every ${every}`
      t.ok(forger.came > 0 && forger.went > 0, name)
      t.ok(forger.went <= 3 * forger.came, `${name}: ${forger.went} bytes for ${forger.came}`)
      forger.on = false
      world.runFor(1_000)
      const before = stream.received
      world.runFor(200)
      t.ok(stream.received >= before + 190, `${name}: it ends when he does`)
      stream.stop()
    }
})
