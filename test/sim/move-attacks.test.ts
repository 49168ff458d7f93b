// Attacks on where hosts are taken to be: each is refused, counted, and harms no connection. HOST_SEED=n runs one seed.

import tap, { test, type Test } from 'tap'
import { CONTROL_CLASS, ownFrame } from '../../lib/host/own-frames.js'
import { decodeLocator, formatLocator, parseLocator } from '../../lib/path/locator.js'
import { Kind } from '../../lib/wire/constants.js'
import type { DropReason } from '../../lib/wire/drop.js'
import type { HostId } from '../../lib/wire/ids.js'
import { encodeMove, type MovedAddress } from '../../lib/wire/move.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, type Passing, type WorldHost } from './host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import type { TcpSocket } from './virtual-kernel.js'

const ONLY = process.env['HOST_SEED']
const SEEDS = 3
tap.setTimeout(120_000)

type Any = <T>(values: readonly T[]) => T

function seeds(t: Test, scenario: (attack: Attack, any: Any) => void): void {
  for (const seed of ONLY === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(ONLY)]) {
    const random = seededRandom(seed * 7919)
    const attack = new Attack(seed)
    scenario(attack, (values) => values[Math.floor(random() * values.length)]!)
    if (attack.problems.length > 0) t.fail(`HOST_SEED=${seed}`, { problems: attack.problems })
  }
  t.pass(`${SEEDS} seeds`)
  t.end()
}

/** A server, a client with a connection that writes all the while, and another member. */
class Attack {
  readonly world: HostWorld
  readonly server: WorldHost
  readonly client: WorldHost
  readonly member: WorldHost
  readonly socket: TcpSocket
  readonly problems: string[] = []
  /** Bytes that went from and to addresses where nobody is, by address. */
  readonly from = new Map<string, number>()
  readonly to = new Map<string, number>()
  #stopped = false

  constructor(seed: number) {
    this.world = new HostWorld(sodium, seed, { link: { delay: 5, jitter: 2 } })
    this.world.mesh(3)
    if (!this.world.until(() => this.world.converged, 10_000)) throw new Error('the hosts did not find each other')
    const [server, client, member] = this.world.hosts
    this.server = server!
    this.client = client!
    this.member = member!
    this.server.expose('web', 80)
    this.world.runFor(500)
    this.socket = this.client.connect('web', 80)
    this.#write()
    this.filter(() => true)
    this.world.runFor(500)
  }

  /** Sees all frames, and decides which go on. */
  filter(goesOn: (passing: Passing) => boolean): void {
    this.world.filter = (passing) => {
      this.to.set(passing.to, (this.to.get(passing.to) ?? 0) + passing.bytes.length)
      return goesOn(passing)
    }
  }

  /** The frame comes to the server from that address. */
  inject(from: string, bytes: Uint8Array): void {
    this.from.set(from, (this.from.get(from) ?? 0) + bytes.length)
    this.world.deliver(from, this.server.address, bytes)
  }

  /** Where the server sends the client's frames. */
  get inUse(): string | undefined {
    const { host } = this.server
    const path = host.prober.paths(host.peers.indexOf(this.client.id)).find(({ inUse }) => inUse)
    const locator = path && decodeLocator(host.peers.addresses.record(path.slot))
    return locator && formatLocator(locator)
  }

  drops(reason: DropReason): number {
    return this.server.host.drops.get(reason)
  }

  expect(what: string, holds: boolean): void {
    if (!holds) this.problems.push(what)
  }

  /** The client's frames go where it is, the connection is whole, and nobody else was sent more than three times what came from there. */
  unharmed(what: string, stallMs: number, strangers: readonly string[] = []): void {
    this.world.runFor(1_000)
    this.expect(`${what}: frames go to ${this.inUse}`, this.inUse === this.client.address)
    this.expect(`${what}: the connection is ${this.socket.state}`, this.socket.state === 'established')
    const waiting = this.socket.sent.length - this.socket.received.length
    this.expect(`${what}: ${waiting} bytes are missing`, waiting < 500)
    this.expect(`${what}: it stood still for ${this.socket.longestGap} ms`, this.socket.longestGap <= stallMs)
    for (const stranger of strangers) {
      const [to, from] = [this.to.get(stranger) ?? 0, this.from.get(stranger) ?? 0]
      this.expect(`${what}: ${to} bytes went to ${stranger} for ${from} that came from there`, to <= 3 * from)
    }
  }

  stop(): void {
    this.#stopped = true
  }

  #write(): void {
    if (this.#stopped) return
    this.client.program(() => this.socket.write(Uint8Array.of(1, 2, 3, 4)))
    this.world.events.at(this.world.now + 20, () => this.#write())
  }
}

/** A frame of this host that says that `host` has these addresses. */
function sayMove(
  by: WorldHost,
  to: WorldHost,
  host: HostId,
  sequence: number,
  addresses: readonly MovedAddress[],
): number {
  const frame = ownFrame(Kind.move, encodeMove({ kind: 'move', host, sequence, addresses }))
  by.enter((engine) => {
    const peer = engine.peers.indexOf(to.id)
    const slot = engine.prober.paths(peer).find(({ inUse }) => inUse)!.slot
    engine.dataPath.frameTo(peer, slot, frame, CONTROL_CLASS)
    engine.dataPath.flush(by.world.now)
  })
  return frame.length + 32
}

function addressAt(text: string): MovedAddress {
  const { address, port } = parseLocator(text)!
  return { address: Uint8Array.from(address.split('.').map(Number)), port, standing: 'usable' }
}

test('a recorded MOVE, sent again: at once, from elsewhere, later, after a session change', (t) => {
  seeds(t, (a) => {
    const { world, server, client } = a
    const stranger = world.freshAddress()
    const recorded: Uint8Array[] = []
    a.filter(({ to, bytes }) => {
      if (to === server.address) recorded.push(bytes.slice())
      return true
    })
    const replay = (from: string) => {
      for (const [i, bytes] of recorded.entries()) {
        a.inject(from, bytes)
        if (i % 10 === 0) world.runFor(1)
      }
    }
    const first = client.address
    client.move(world.freshAddress(), true)
    world.runFor(500)
    a.expect('no MOVE was recorded', server.host.peering.ways.rebinding.received > 0)
    a.filter(() => true)
    const moves = server.host.peering.ways.rebinding.received
    const replayed = a.drops('replayed')

    replay(first)
    a.unharmed('from where it was', 600)
    replay(client.address)
    replay(stranger)
    a.unharmed('from where it is, and from elsewhere', 600)
    a.expect('replays are counted', a.drops('replayed') >= replayed + 3 * recorded.length)

    client.move(world.freshAddress(), true)
    world.runFor(500)
    replay(first)
    replay(stranger)
    a.unharmed('after another move', 600)

    client.enter((host) => host.sessions.renew(host.peers.indexOf(server.id), world.now))
    world.runFor(500)
    replay(first)
    replay(stranger)
    a.unharmed('after a new handshake', 600)
    const received = server.host.peering.ways.rebinding.received - moves
    a.expect(`${received} messages were taken for new`, received === 1)

    // Its connection ends with it.
    a.stop()
    const { address } = client
    server.restart()
    a.expect(
      'the server is back',
      world.until(() => server.running && world.converged, 5_000),
    )
    const unknown = a.drops('unknown-lane')
    replay(first)
    replay(stranger)
    world.runFor(1_000)
    a.expect(`after a restart: frames go to ${a.inUse}`, a.inUse === address)
    a.expect('frames of the old session are counted', a.drops('unknown-lane') > unknown)
    a.expect(`${a.to.get(stranger)} bytes went to the stranger`, !a.to.has(stranger))
  })
})

test('a MOVE of another member for a host that it is not, and its frames for a flow that it does not have', (t) => {
  seeds(t, (a) => {
    const { world, server, client, member } = a
    const elsewhere = world.freshAddress()
    for (const sequence of [1, 2 ** 40]) sayMove(member, server, client.id, sequence, [addressAt(elsewhere)])
    world.runFor(100)
    a.expect(`${a.drops('not-entitled')} were refused as not-entitled`, a.drops('not-entitled') === 2)
    const flows = [...server.host.flows.flows()].map(({ id }) => Uint8Array.from(Buffer.from(id, 'hex')))
    a.expect('there is a flow', flows.length > 0)
    member.enter((host) => {
      const peer = host.peers.indexOf(server.id)
      const { slot } = host.prober.paths(peer).find(({ inUse }) => inUse)!
      for (const id of flows)
        for (const kind of [Kind.data, Kind.close, Kind.notHere]) {
          const frame = new Uint8Array(12 + 40)
          // Slot and generation are little endian on the wire.
          for (let i = 0; i < 4; i++) [frame[i], frame[4 + i]] = [id[3 - i]!, id[7 - i]!]
          frame.set([kind, 0, 64, 6], 8)
          // Five words of TCP header.
          frame[12 + 8] = 0x50
          host.dataPath.frameTo(peer, slot, frame, 0)
        }
      host.dataPath.flush(world.now)
    })
    world.runFor(100)
    a.expect(`${a.drops('unknown-flow')} were refused as unknown-flow`, a.drops('unknown-flow') >= flows.length)
    a.unharmed('forged by a member', 100, [elsewhere])
    a.expect('nothing went there', !a.to.has(elsewhere))
    a.stop()
  })
})

test('frames that somebody on the way sends on from an address of his', (t) => {
  seeds(t, (a, any) => {
    const { world, server, client } = a
    const strangers = Array.from({ length: 12 }, () => world.freshAddress())
    // Each is new to the server, as nobody else has let it through; which one goes where changes, or does not.
    const each = any([1, 3, 1_000])
    let n = 0
    a.filter(({ from, to, bytes }) => {
      if (from !== client.address || to !== server.address) return true
      a.inject(strangers[Math.floor(n++ / each) % strangers.length]!, bytes)
      return false
    })
    for (let i = 0; i < 200; i++) {
      world.runFor(10)
      if (a.inUse !== client.address) a.expect(`frames go to ${a.inUse}`, false)
    }
    a.filter(() => true)
    a.unharmed('by an address that does not answer', 300, strangers)
    a.stop()
  })
})

test('an address that one small frame has come from, while the host itself is silent, gets three times that and no more', (t) => {
  seeds(t, (a, any) => {
    const { world, server, client } = a
    const stranger = world.freshAddress()
    let redirected = false
    a.filter(({ from, to, bytes }) => {
      if (from !== client.address || to !== server.address) return true
      if (!redirected && bytes.length < 120) {
        redirected = true
        a.inject(stranger, bytes)
      }
      return false
    })
    world.runFor(any([2_000, 5_000]))
    a.expect('one was redirected', redirected)
    a.expect('the rest was refused as amplification', a.drops('amplification') > 0)
    a.filter(() => true)
    a.unharmed('after the silence', 10_000, [stranger])
    a.expect('it was challenged', (a.to.get(stranger) ?? 0) > 0)
    a.stop()
  })
})

test('addresses of others that a member names as its own get three times what it said and no more', (t) => {
  seeds(t, (a) => {
    const { world, server, client } = a
    const victims = Array.from({ length: 7 }, () => world.freshAddress())
    const named = [client.address, ...victims].map(addressAt)
    let bytes = 0
    for (let sequence = 2 ** 40; sequence < 2 ** 40 + 3; sequence++)
      bytes += sayMove(client, server, client.id, sequence, named)
    // Longer than the pause after which one that was tried in vain is tried again.
    world.runFor(7_000)
    const to = victims.reduce((sum, victim) => sum + (a.to.get(victim) ?? 0), 0)
    a.expect('they were tried', to > 0)
    a.expect(`${to} bytes went to them for ${bytes}`, to <= 3 * bytes)
    a.expect('the rest was refused as amplification', a.drops('amplification') > 0)
    a.unharmed('its own connection', 100)
    a.stop()
  })
})

test('nor from all addresses together of a host that has several', (t) => {
  seeds(t, (a) => {
    const { world, server, client } = a
    server.settle([server.address, world.freshAddress(), world.freshAddress(), world.freshAddress()])
    server.tell()
    world.runFor(1_000)
    const victim = world.freshAddress()
    const bytes = sayMove(client, server, client.id, 2 ** 40, [client.address, victim].map(addressAt))
    world.runFor(4_000)
    const to = a.to.get(victim) ?? 0
    a.expect('it was tried', to > 0)
    // Half of what was said is for the client's own address.
    a.expect(`${to} bytes went there for ${bytes}`, to <= 1.5 * bytes)
    a.unharmed('its own connection', 100)
    a.stop()
  })
})
