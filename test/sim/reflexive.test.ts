// A host behind a NAT learns from its peers where they see it, and tells others, who reach it there.

import tap, { test } from 'tap'
import { formatLocator } from '../../lib/path/locator.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type WorldHost } from './host-world.js'

tap.setTimeout(60_000)

const connected = (a: WorldHost, b: WorldHost): boolean =>
  a.host.sessions.info(a.host.peers.indexOf(b.id), a.world.now).connected

test('a third host reaches a host where others see it', async (t) => {
  const world = new HostWorld(sodium, 5, { link: { delay: 5 } })
  const hosts = world.mesh(3)
  t.ok(world.until(() => world.converged, 10_000))
  const [first, second, hidden] = hosts
  const seen = world.freshAddress()
  t.strictSame(hidden!.host.seenAt, [], 'nobody sees it elsewhere yet')
  // Its own address is none that others could reach from now on.
  hidden!.move(seen, false)
  t.ok(
    world.until(() => hidden!.host.seenAt.length > 0, 60_000, 100),
    'two peers agree',
  )
  t.strictSame(hidden!.host.seenAt.map(formatLocator), [seen])
  const told = () => first!.host.directory.locatorsOf(hidden!.id)
  t.ok(world.until(() => told().length === 2, 5_000))
  t.match(told()[1], { reflexive: true })
  const late = world.add()
  late.hints.push(second!)
  late.start()
  t.ok(
    world.until(() => connected(late, hidden!), 30_000, 50),
    'the newcomer, which only knows another one',
  )
  // It rebinds: what is seen no more is told no more.
  const next = world.freshAddress()
  hidden!.move(next, false)
  t.ok(world.until(() => hidden!.host.seenAt.map(formatLocator).join() === next, 120_000, 500))
})

test('a host that everybody reaches where it says it is tells of nothing else', async (t) => {
  const world = new HostWorld(sodium, 6, { link: { delay: 5 } })
  world.mesh(4)
  t.ok(world.until(() => world.converged, 10_000))
  world.hosts[1]!.move(world.freshAddress(), true)
  world.runFor(120_000)
  for (const { host } of world.hosts) t.strictSame(host.seenAt, [])
})

test('the record of where a host is has another address a moment later, as packets come first, and one less at once', async (t) => {
  const world = new HostWorld(sodium, 7, { link: { delay: 5 } })
  world.mesh(2)
  t.ok(world.until(() => world.converged, 10_000))
  world.runFor(1_000)
  const [one, other] = world.hosts
  const told = () => other!.host.directory.locatorsOf(one!.id).map(formatLocator)
  const before = one!.address
  const next = world.freshAddress()
  const toldAfter = (addresses: readonly string[]) => {
    const began = world.now
    one!.settle(addresses)
    one!.tell()
    t.ok(
      world.until(() => told().toSorted().join() === addresses.toSorted().join(), 1_000, 1),
      `told of ${addresses.join()}`,
    )
    return world.now - began
  }
  const more = toldAfter([next, before])
  t.ok(more >= 20 && more < 30, `another one: after ${more} ms`)
  const fewer = toldAfter([next])
  t.ok(fewer < 10, `one less: after ${fewer} ms`)
})
