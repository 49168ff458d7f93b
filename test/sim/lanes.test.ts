// Two hosts with several lanes in virtual time, whose lanes are all done by one thread.
import { test } from 'tap'
import { Host } from '../../lib/host/host.js'
import { ownFrame } from '../../lib/host/own-frames.js'
import { PeerTable } from '../../lib/path/peers.js'
import { FlowMemory } from '../../lib/flow/flow-memory.js'
import type { HostOptions } from '../../lib/host/host-options.js'
import { ADDRESS_RECORD, Run, RUN_WORDS, type FrameRuns } from '../../lib/wire/batch.js'
import { Kind } from '../../lib/wire/constants.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld } from './host-world.js'
import { locatorOf, type Site } from './underlay.js'

const LANES = 3
const PORT = 7474
const PEERS = 8
const FLOWS = 8
const DELAY_MS = 5
const nothing = () => undefined

class LaneHost implements Site {
  readonly host: Host
  #armedAt = Infinity

  constructor(
    private readonly world: HostWorld,
    number: number,
    public address: string,
    options: Partial<HostOptions>,
  ) {
    const hostKey = world.keyOf(number)
    let count = 0
    this.host = new Host(
      {
        ...{ primitives: world.primitives, codec: world.codec(), hostKey },
        lanes: {
          codecs: Array.from({ length: LANES - 1 }, () => world.codec()),
          ports: Array.from({ length: LANES - 1 }, (_, i) => PORT + 1 + i),
          records: new Uint8Array(PeerTable.recordBytes(PEERS)),
          settle: () => true,
        },
        trust: world.trust(hostKey.id, `h${number}`),
        io: { writeTun: nothing, sendFrames: (runs, addresses, lane) => this.#send(runs, addresses, lane) },
        events: {
          ...{ mappingChanged: nothing, localAddressesChanged: nothing, peer: nothing, revocationsChanged: nothing },
          ...{ namesRuled: nothing, claimsChanged: nothing, renewed: nothing, renewalFailed: nothing },
          ...{ expelled: nothing, dropped: nothing, remember: nothing },
        },
        endpoints: { find: () => 'no-instance' },
        flowMemory: new ArrayBuffer(FlowMemory.bytesFor(FLOWS, PEERS)),
        wallNow: () => world.wallNow,
        random: world.random,
        nextStamp: () => BigInt(++count),
        sequence: { next: () => ++count, raise: nothing },
      },
      { flowCapacity: FLOWS, peerCapacity: PEERS, ...options },
    )
    this.settleAt(address)
    this.do((host) => host.setLocators([locatorOf(`${address}:${PORT}`)], world.now))
  }

  /** It is there from now on; nobody is told. */
  settleAt(address: string): void {
    for (let lane = 0; lane < LANES; lane++) {
      this.world.occupy(`${this.address}:${PORT + lane}`, undefined)
      this.world.occupy(`${address}:${PORT + lane}`, this)
    }
    this.address = address
  }

  do(work: (host: Host) => void): void {
    work(this.host)
    const next = Math.max(this.host.nextTimeout(), this.world.now)
    if (next >= this.#armedAt) return
    this.#armedAt = next
    this.world.events.at(next, () => {
      if (this.#armedAt !== next) return
      this.#armedAt = Infinity
      this.do((host) => host.handleTimeout(this.world.now))
    })
  }

  arrive(from: string, to: string, bytes: Uint8Array): void {
    const { wireIn } = this.host.dataPath
    wireIn.data.set(bytes)
    wireIn.desc.set([0, bytes.length, 0, 0])
    wireIn.addresses.fill(0, 0, ADDRESS_RECORD)
    wireIn.addresses.set(this.world.record(from))
    wireIn.count = 1
    this.do((host) => host.wireRead(this.world.now, locatorOf(to).port - PORT))
  }

  #send({ data, desc, count }: FrameRuns, addresses: Uint8Array, lane: number): void {
    for (let i = 0; i < count; i++) {
      const base = i * RUN_WORDS
      const [offset, length, stride] = [desc[base + Run.offset]!, desc[base + Run.length]!, desc[base + Run.stride]!]
      const to = this.world.textOf(addresses, desc[base + Run.addressSlot]! * ADDRESS_RECORD)
      for (let at = 0; at < length; at += stride) {
        const frame = data.subarray(offset + at, offset + Math.min(at + stride, length))
        this.world.send(`${this.address}:${PORT + lane}`, to, frame)
      }
    }
  }

  peer(other: LaneHost): number {
    return this.host.peers.indexOf(other.host.id)
  }

  /** Lanes above the first that frames to the other host can go by. */
  working(other: LaneHost): number {
    return this.host.lanePaths.working(this.peer(other))
  }

  /** Where frames to the other host go. */
  sendsTo(other: LaneHost): string {
    const { peers } = this.host
    return this.world.textOf(peers.addresses.records, peers.pathSlot[this.peer(other)]! * ADDRESS_RECORD)
  }

  /** A frame to the other host on a lane. */
  sayOn(lane: number, other: LaneHost): void {
    this.do(({ peers, dataPath }) => {
      const peer = this.peer(other)
      dataPath.laneFrame(peer, lane, peers.laneAddressSlot[peers.laneAt(peer, lane)]!, ownFrame(Kind.empty), 0)
    })
  }
}

function pair(options: Partial<HostOptions> = {}) {
  const world = new HostWorld(sodium, 1, { link: { delay: DELAY_MS } })
  const a = new LaneHost(world, 1, '10.0.0.1', options)
  const b = new LaneHost(world, 2, '10.0.0.2', options)
  a.do((host) => host.neighbours.hint(b.host.id, locatorOf(`${b.address}:${PORT}`), world.now))
  const together = world.until(() => a.working(b) === LANES - 1 && b.working(a) === LANES - 1, 1_000, 1)
  return { world, a, b, together }
}

test('lanes that work go on over new sessions', (t) => {
  const { world, a, b, together } = pair({ session: { rekeyAfterMs: 1_000 } })
  t.ok(together)
  const rekeys = () => a.host.sessions.info(a.peer(b), world.now).rekeys
  const before = rekeys()
  let least = LANES
  for (const end = world.now + 60_000; rekeys() < before + 3 && world.now < end; world.runFor(1))
    least = Math.min(least, a.working(b), b.working(a))
  t.ok(rekeys() >= before + 3)
  t.equal(least, LANES - 1, 'at each moment')
  t.end()
})

test('heardAside: a frame that comes on a lane from another address has the peer followed there, in a round trip', (t) => {
  for (const lane of [1, 2]) {
    const { world, a, b, together } = pair()
    t.ok(together)
    world.runFor(1_000)
    a.settleAt('10.0.0.9')
    a.sayOn(lane, b)
    world.runFor(DELAY_MS)
    t.equal(b.sendsTo(a), '10.0.0.1:7474', 'not before it is proven')
    world.runFor(2 * DELAY_MS + 1)
    t.equal(b.sendsTo(a), '10.0.0.9:7474')
    t.ok(
      world.until(() => b.working(a) === LANES - 1, 100, 1),
      'and its lanes after it',
    )
  }
  t.end()
})

test('when a peer tries a lane, what has come by the first one goes before what comes by that one, for a while', (t) => {
  const { world, a, b, together } = pair()
  t.ok(together)
  for (const { host } of [a, b]) t.ok(host.lanePaths.joining(world.now))
  world.runFor(10_000)
  for (const { host } of [a, b]) t.notOk(host.lanePaths.joining(world.now))
  // Looks at lanes that are in use are no such thing.
  const at = a.host.peers.laneAt(a.peer(b), 1)
  for (let i = 0; i < 10; i++) {
    a.host.peers.laneUsed[at] = 1
    world.runFor(500)
  }
  t.notOk(b.host.lanePaths.joining(world.now))
  t.end()
})
