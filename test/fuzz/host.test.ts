// Hosts that talk to each other while they are given rubbish: from the underlay, from a member, from their own kernels. Nothing throws, the conversation goes on whole, and no table
// grows without bound.

import fc from 'fast-check'
import { test, type Test } from 'tap'
import { Channel } from '../../lib/host/control-channel.js'
import { INNER_HEADER, INNER_HOPS, INNER_KIND, INNER_PROTOCOL, VNET_HEADER } from '../../lib/wire/constants.js'
import { HostWorld, type WorldHost } from '../sim/host-world.js'
import type { TcpSocket } from '../sim/virtual-kernel.js'
import { sodium } from '../tools/sodium.js'
import { tcpPacket, udpPacket } from '../unit/flow/packets.js'

const RUNS = 4_000

/** Three hosts; the first serves, the second talks to it, the third may be up to something. */
class Scene {
  readonly world: HostWorld
  readonly server: WorldHost
  readonly client: WorldHost
  readonly forger: WorldHost
  readonly socket: TcpSocket
  /** Frames on their way between server and client, the latest ones. */
  readonly frames: { readonly from: string; readonly to: string; readonly bytes: Uint8Array }[] = []
  #n = 0

  constructor(seed: number) {
    this.world = new HostWorld(sodium, seed)
    const [server, client, forger] = this.world.mesh(3)
    this.server = server!
    this.client = client!
    this.forger = forger!
    this.world.until(() => this.world.converged, 5_000)
    this.server.expose('web', 80)
    this.world.runFor(500)
    for (const host of this.world.hosts) host.kernel.strict = false
    this.world.filter = (passing) => {
      this.frames.push({ ...passing, bytes: passing.bytes.slice() })
      if (this.frames.length > 64) this.frames.shift()
      return true
    }
    this.socket = this.client.connect('web', 80)
    this.world.runFor(100)
  }

  /** A little more is said, and time goes by. */
  step(): void {
    this.client.program(() => this.socket.write(Uint8Array.of(this.#n++ & 255)))
    this.world.runFor(2)
  }

  /** Ends the conversation and looks at what is left. */
  finish(t: Test): void {
    this.client.program(() => this.socket.close())
    this.world.runFor(10_000)
    t.equal(this.socket.state, 'established', 'the connection was never reset')
    t.ok(this.socket.done, 'the conversation came to its end')
    const echo = this.socket.received.slice(3, Infinity)
    t.strictSame(Buffer.from(echo).equals(this.socket.sent.slice(0, Infinity)), true, 'and every byte came back')
    for (const { name, host } of this.world.hosts) {
      t.ok(host.peers.size <= 3, `${name}: ${host.peers.size} peers`)
      t.ok(host.control.pending < 64, `${name}: ${host.control.pending} messages wait`)
      for (let peer = 1; peer < host.peers.size; peer++) {
        t.ok(host.prober.paths(peer).length <= 8, `${name}: ${host.prober.paths(peer).length} paths`)
      }
    }
    this.world.runFor(700_000)
    for (const { name, host } of this.world.hosts) t.equal(host.flows.table.count, 0, `${name} keeps no flow`)
    t.ok(this.world.converged, 'the hosts still agree')
  }
}

const place = fc.constantFrom('peer', 'stranger')
const bytes = fc.uint8Array({ maxLength: 1_500 })

type Mutation = (bytes: Uint8Array) => Uint8Array
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })).map(([at, mask]): Mutation => (frame) => {
    const copy = frame.slice()
    if (copy.length > 0) copy[at % copy.length]! ^= mask
    return copy
  }),
  fc.nat().map(
    (at): Mutation =>
      (frame) =>
        frame.slice(0, at % (frame.length + 1)),
  ),
  fc.uint8Array({ maxLength: 64 }).map(
    (tail): Mutation =>
      (frame) =>
        Uint8Array.of(...frame, ...tail),
  ),
  fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 16 })).map(([at, piece]): Mutation => (frame) => {
    const copy = frame.slice()
    copy.set(piece.slice(0, copy.length), copy.length === 0 ? 0 : at % Math.max(1, copy.length - piece.length + 1))
    return copy
  }),
)

test('garbage from the underlay', (t) => {
  const scene = new Scene(1)
  const datagram = fc.record({
    from: place,
    bytes,
    segment: fc.oneof(fc.constant(0), fc.integer({ min: 30, max: 2_000 })),
  })
  fc.assert(
    fc.property(fc.array(datagram, { minLength: 1, maxLength: 8 }), (datagrams) => {
      const places = { peer: scene.client.address, stranger: '192.0.2.66:6666' }
      scene.server.read(datagrams.map((d) => ({ ...d, from: places[d.from === 'peer' ? 'peer' : 'stranger'] })))
      scene.step()
    }),
    { numRuns: RUNS },
  )
  scene.finish(t)
  t.end()
})

test('frames of the conversation, changed', (t) => {
  const scene = new Scene(2)
  fc.assert(
    fc.property(fc.nat(63), fc.array(mutation, { minLength: 1, maxLength: 3 }), place, (pick, mutations, from) => {
      const frame = scene.frames[pick % scene.frames.length]!
      let changed = frame.bytes
      for (const mutate of mutations) changed = mutate(changed)
      if (Buffer.compare(changed, frame.bytes) !== 0) {
        const to = scene.world.hosts.find(({ address }) => address === frame.to)!
        to.read([{ from: from === 'peer' ? frame.from : '192.0.2.66:6666', bytes: changed, segment: 0 }])
      }
      scene.step()
    }),
    { numRuns: RUNS },
  )
  scene.finish(t)
  t.end()
})

test('frames that a member has sealed, with anything in them', (t) => {
  const scene = new Scene(3)
  const plaintext = fc
    .record({
      slot: fc.oneof(fc.nat(4), fc.nat(0xffffffff)),
      generation: fc.nat(0xffffffff),
      kind: fc.nat(255),
      hops: fc.nat(255),
      protocol: fc.oneof(fc.constantFrom(1, 6, 17), fc.nat(255)),
      body: fc.oneof(fc.uint8Array({ maxLength: 120 }), fc.uint8Array({ maxLength: 1_400 })),
    })
    .map(({ slot, generation, kind, hops, protocol, body }) => {
      const frame = new Uint8Array(INNER_HEADER + body.length)
      const view = new DataView(frame.buffer)
      view.setUint32(0, slot, true)
      view.setUint32(4, generation, true)
      frame[INNER_KIND] = kind
      frame[INNER_HOPS] = hops
      frame[INNER_PROTOCOL] = protocol
      frame.set(body, INNER_HEADER)
      return frame
    })
  fc.assert(
    fc.property(fc.array(plaintext, { minLength: 1, maxLength: 4 }), fc.boolean(), (plaintexts, toServer) => {
      const victim = toServer ? scene.server : scene.client
      scene.forger.enter((host) => {
        const peer = host.peers.indexOf(victim.id)
        for (const frame of plaintexts) host.dataPath.frameTo(peer, host.peers.addressSlot[peer]!, frame, 0)
        host.dataPath.flush(scene.world.now)
      })
      scene.step()
    }),
    { numRuns: RUNS },
  )
  scene.finish(t)
  t.end()
})

test('control messages of a member, with anything in them', (t) => {
  const scene = new Scene(4)
  const channels = Object.values(Channel).filter((channel) => channel !== Channel.farewell)
  const records: Uint8Array[] = []
  const { host } = scene.forger
  const { send } = host.control
  // What the forger's own directory says, to be changed and said again.
  host.control.send = (peer, channel, body, now) => {
    if (records.length < 64) records.push(body.slice())
    return send.call(host.control, peer, channel, body, now)
  }
  scene.forger.expose('mine', 80)
  scene.world.runFor(6_000)
  t.ok(records.length > 3)
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 1_100 }).map((anything) => () => anything),
    fc.tuple(fc.nat(63), mutation).map(
      ([pick, mutate]) =>
        () =>
          mutate(records[pick % records.length]!).slice(0, 1_100),
    ),
  )
  fc.assert(
    fc.property(fc.constantFrom(...channels), body, (channel, make) => {
      const message = make()
      scene.forger.enter(({ control, peers }) => {
        for (const victim of [scene.server, scene.client]) {
          send.call(control, peers.indexOf(victim.id), channel, message, scene.world.now)
        }
      })
      scene.step()
    }),
    { numRuns: RUNS },
  )
  scene.finish(t)
  t.end()
})

test('packets from the own kernel', (t) => {
  const scene = new Scene(5)
  const { addresses } = scene.client.host
  const service = scene.world.service('web')
  const valid = ([4, 6] as const).flatMap((family) => {
    const source = addresses.self(family)
    const destination = addresses.dialledAddress({ kind: 'service', service }, family)!
    const payload = Array.from({ length: 1_000 }, (_, i) => i & 255)
    const common = { family, source, destination, ports: [999, 80] as const }
    return [
      tcpPacket({ ...common, flags: 2, mss: 1_400 }),
      tcpPacket({ ...common, flags: 16, payload, gsoSize: 300 }),
      udpPacket({ ...common, payload }),
      udpPacket({ ...common, payload, gsoSize: 300 }),
    ]
  })
  const packet = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 1_500 }),
    fc.tuple(fc.nat(valid.length - 1), fc.array(mutation, { maxLength: 3 })).map(([pick, mutations]) => {
      let changed: Uint8Array = valid[pick]!
      for (const mutate of mutations) changed = mutate(changed)
      return changed.length > 0 ? changed : Uint8Array.of(0)
    }),
  )
  fc.assert(
    fc.property(fc.array(packet, { minLength: 1, maxLength: 8 }), (packets) => {
      for (const one of packets)
        scene.client.inject(one.length > VNET_HEADER ? one : Uint8Array.of(...one, ...new Uint8Array(VNET_HEADER)))
      scene.step()
    }),
    { numRuns: RUNS },
  )
  scene.finish(t)
  t.end()
})
