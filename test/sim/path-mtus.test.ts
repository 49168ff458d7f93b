// What each path carries is known before frames go by it, or found out before any is too large for it.

import tap, { test, type Test } from 'tap'
import type { PathInfo } from '../../daemon/control/protocol.js'
import { pathsView } from '../../daemon/views.js'
import { IPV4_HEADER } from '../../lib/wire/ip.js'
import { UDP_HEADER } from '../../lib/wire/udp.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type LinkOptions, type WorldHost } from './host-world.js'
import { Streams, SERVICE } from './moves-matrix/streams.js'
import { inUse } from './moves-matrix/moves.js'
import { prefixOf } from './underlay.js'

tap.setTimeout(120_000)

const WIDE = 1_500
const NARROW = 1_400
/** Sizes so close together are not told apart. */
const GRANULARITY = 8
const PACE_MS = 5
const DELAY_MS = 5
/** A datagram so long is padded: other frames that an idle host sends are much smaller. */
const PADDED = 1_200
/** In how long a standby path that carries less is measured, as it is probed seldom, ms. */
const MEASURED_MS = 60_000

/** Two hosts, each with an address on so many networks, and streams with large datagrams between them. */
class Scene {
  readonly world: HostWorld
  readonly one: WorldHost
  readonly two: WorldHost
  streams!: Streams
  /** Networks, or addresses, by what their packets begin with, and what those carry. */
  readonly mtus = new Map<string, number>()
  readonly losses = new Map<string, number>()
  readonly dead = new Set<string>()
  /** Datagrams that were that long. */
  padded = 0

  constructor(networks: number, link: LinkOptions = { delay: DELAY_MS }) {
    const world = new HostWorld(sodium, 11, { link })
    this.world = world
    const [one, two] = [world.add(), world.add()]
    for (const host of world.hosts)
      host.settle(Array.from({ length: networks }, (_, network) => world.freshAddress(network)))
    this.one = one
    this.two = two
    two.hints.push(one)
    world.filter = ({ from, to, bytes }) => {
      const length = bytes.length + IPV4_HEADER + UDP_HEADER
      if (length > PADDED) this.padded++
      for (const address of [from, to]) {
        for (const prefix of this.dead) if (address.startsWith(prefix)) return false
        for (const [prefix, mtu] of this.mtus) if (address.startsWith(prefix) && length > mtu) return false
      }
      for (const [prefix, loss] of this.losses)
        if (from.startsWith(prefix) && to.startsWith(prefix) && world.random() < loss) return false
      return true
    }
  }

  meet(t: Test): void {
    const { world } = this
    for (const host of world.hosts) host.start()
    t.ok(
      world.until(() => world.converged, 60_000, 20),
      'the hosts know each other',
    )
  }

  talk(t: Test): void {
    const { world, one, two } = this
    this.streams = new Streams(one, two, { client: 4, server: 4 }, PACE_MS, true)
    const known = () => one.host.catalogue.byName(SERVICE)?.instances.length === 1
    t.ok(world.until(known, 60_000, 20), 'the service is known')
    this.streams.open()
    t.ok(
      world.until(() => this.streams.isOpen, 20_000, 5),
      'the streams are open',
    )
    this.streams.start()
  }

  /** The network by which both send to each other. */
  get network(): string {
    return prefixOf(inUse(this.one, this.two))
  }

  /** The paths of the host, as `caracal paths` shows them. */
  paths({ host }: WorldHost): PathInfo[] {
    return pathsView({ host, names: { peer: () => undefined }, underlay: { locals: [] } })
  }

  /** Both ends have measured all their proven paths, and found that those beside the one in use carry so much. */
  isMeasured(standby: number): boolean {
    return [this.one, this.two].every((host) => {
      const proven = this.paths(host).filter(({ state }) => state === 'proven')
      return proven.length > 1 && proven.every(({ inUse, mtu }) => mtu === (inUse ? WIDE : standby))
    })
  }

  /** Large datagrams sent since then that have not come. */
  lostSince(since: number): number {
    return this.streams.largeUdp.reduce((sum, way) => sum + way.lostOutside([{ from: -Infinity, to: since }]), 0)
  }

  finish(t: Test): void {
    this.streams.stop()
    this.world.runFor(1_000)
    for (const way of this.streams.largeUdp) t.ok(way.newest > 20, `${way.name}: ${way.newest} large datagrams`)
  }
}

test('a standby path that carries less is known to when frames have to go by it', (t) => {
  const scene = new Scene(2)
  const { world, one, two } = scene
  const [dying, other] = ['10.0.', '10.1.'] as const
  scene.mtus.set(other, NARROW)
  scene.meet(t)
  t.equal(scene.network, dying, 'the wide network is in use')
  scene.talk(t)
  t.ok(
    world.until(() => scene.isMeasured(NARROW), MEASURED_MS, 100),
    'all paths are measured',
  )
  scene.dead.add(dying)
  const elsewhere = () => [one, two].every((host) => prefixOf(inUse(host, host === one ? two : one)) === other)
  t.ok(world.until(elsewhere, 1_000, 1), 'frames go by the other network')
  const since = world.now
  world.runFor(3_000)
  scene.finish(t)
  t.equal(scene.lostSince(since), 0, 'of large datagrams after that')
  t.end()
})

for (const mtu of [NARROW, WIDE]) {
  test(`a planned move to a path that carries ${mtu}`, (t) => {
    const scene = new Scene(1)
    const { world, one, two } = scene
    scene.meet(t)
    scene.talk(t)
    world.runFor(1_000)
    const { piecesOut: before } = two.host.flows.counters
    const old = one.address
    const next = world.freshAddress()
    scene.mtus.set(next, mtu)
    const { tooBig } = one.host.flows.counters
    one.settle([next, old])
    one.tell([old])
    t.ok(
      world.until(() => inUse(two, one) === next, 1_000, 1),
      'the peer has followed',
    )
    if (mtu === WIDE) {
      world.runFor(2 * DELAY_MS + 1)
      t.equal(one.host.flows.counters.piecesOut, 0, 'who moves has proven that by then')
      t.equal(one.host.flows.counters.tooBig, tooBig, 'and no program is told to send less')
    }
    world.runFor(50)
    one.settle([next])
    one.tell()
    world.runFor(3_000)
    scene.finish(t)
    t.equal(scene.lostSince(-Infinity), 0, 'of all large datagrams')
    t.ok(two.host.flows.counters.piecesOut - before < (mtu === WIDE ? 10 : Infinity), 'few go in pieces')
    for (const host of [one, two]) {
      const taken = scene.paths(host).find(({ inUse }) => inUse)?.mtu ?? 0
      t.ok(taken <= mtu && taken > mtu - GRANULARITY, `${host.name} takes it to carry ${taken}`)
    }
    t.end()
  })
}

test('a standby path that loses 13 of 100 frames is not taken for one that carries less', (t) => {
  const scene = new Scene(2)
  const { world, one, two } = scene
  scene.meet(t)
  scene.talk(t)
  const lossy = ['10.0.', '10.1.'].find((prefix) => prefix !== scene.network)!
  scene.losses.set(lossy, 0.13)
  t.ok(
    world.until(() => scene.isMeasured(WIDE), MEASURED_MS, 100),
    'all paths are measured',
  )
  scene.streams.stop()
  const seen = new Set<number | null>()
  for (let i = 0; i < 600; i++) {
    // Something concerns the peer, so that its paths are watched.
    for (const [host, other] of [
      [one, two],
      [two, one],
    ] as const)
      // prettier-ignore
      host.enter(({ peering, peers }) => peering.needed(peers.indexOf(other.id), world.now))
    world.runFor(1_000)
    for (const host of [one, two])
      for (const { local, remote, mtu, state } of scene.paths(host))
        if (local.startsWith(lossy) && remote.startsWith(lossy) && state === 'proven') seen.add(mtu)
  }
  t.strictSame([...seen], [WIDE])
  t.end()
})

test('hosts that have nothing to say to each other measure a standby path once, and confirm it seldom', (t) => {
  const scene = new Scene(2)
  const { world } = scene
  scene.meet(t)
  world.runFor(180_000)
  t.ok(scene.isMeasured(WIDE), 'it is measured')
  const probes = () => world.hosts.reduce((sum, { host }) => sum + host.prober.probes.sent, 0)
  const before = probes()
  scene.padded = 0
  world.runFor(3_600_000)
  const standby = probes() - before
  t.comment(JSON.stringify({ padded: scene.padded, probes: standby }))
  t.ok(scene.padded > 0, 'it is confirmed')
  t.ok(scene.padded <= 0.1 * standby, `${scene.padded} padded probes in an hour, beside ${standby} others`)
  t.end()
})
