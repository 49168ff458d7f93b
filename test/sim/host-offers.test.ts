import { test } from 'tap'
import { OFFERS_MAX } from '../../lib/host/offers.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld } from './host-world.js'

test('a host offers as many services as its records hold; one more is refused and harms nothing', (t) => {
  const world = new HostWorld(sodium, 7)
  const [a, b] = world.mesh(2)
  world.runFor(3_000)
  for (let n = 0; n < OFFERS_MAX; n++) a!.expose(`service-${n}`, 1_000 + n)
  t.throws(() => a!.expose('one-more', 9_000), RangeError)
  t.ok(world.until(() => b!.host.catalogue.services().length === OFFERS_MAX, 10_000))
  // Another's claims make the host settle and publish its own again.
  b!.expose('another', 9_001)
  world.runFor(5_000)
  t.equal(a!.host.catalogue.services().length, OFFERS_MAX + 1)
  t.ok(a!.running)
  t.end()
})
