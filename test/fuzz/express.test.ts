// Two worlds out of the same seed, to which the same happens: in one of them all packets go by the host, in the other express is tried first. Every frame, every packet and all that
// the hosts remember must be the same, byte for byte.

import { t as root, test, type Test } from 'tap'
import { codecAddon, NativeCodec } from '../../daemon/native-codec.js'
import { native } from '../../daemon/native.js'
import type { AeadName } from '../../lib/crypto/codec.js'
import type { Family } from '../../lib/flow/environment.js'
import type { FlowSnapshot } from '../../lib/flow/flow-snapshot.js'
import { ADDRESS_RECORD, DATAGRAM_WORDS } from '../../lib/wire/batch.js'
import { HostWorld, type WorldHost } from '../sim/host-world.js'
import { seededRandom } from '../tools/seeded-random.js'
import { sodium } from '../tools/sodium.js'
import { ACK, echoPacket, FIN, PSH, RST, SYN, tcpPacket, udpPacket } from '../unit/flow/packets.js'

// many runs, and the machine may be busy
root.setTimeout(180_000)

const SEEDS = 12
const STEPS = 600
/** Frames that may come late, twice or changed. */
const POOL = 64

type Random = () => number

/** A frame or packet that went out. */
type Out = readonly [who: string, what: 'frame' | 'packet', bytes: Buffer]

class Side {
  readonly world: HostWorld
  readonly hosts: readonly WorldHost[]
  outs: Out[] = []
  /** Packets that passed express. */
  passed = 0
  /** Frames that went out lately. */
  readonly frames: { readonly from: number; readonly bytes: Uint8Array }[] = []
  readonly #codecs: NativeCodec[] = []
  readonly #express: number[] = []
  readonly #out = new Uint8Array(4_096)

  constructor(
    seed: number,
    aead: AeadName,
    readonly withExpress: boolean,
  ) {
    const codec = () => {
      const made = new NativeCodec(codecAddon(), { offer: [aead, 'chacha20-poly1305'], implementation: 'openssl' })
      this.#codecs.push(made)
      return made
    }
    this.world = new HostWorld(sodium, seed, { realCrypto: true, codec })
    this.hosts = this.world.mesh(2)
    this.world.until(() => this.world.converged, 5_000)
    const [server, client] = [this.hosts[0]!, this.hosts[1]!]
    server.expose('four', 80, { family: 4 })
    server.expose('six', 81, { family: 6 })
    this.world.runFor(500)
    for (const family of [4, 6] as const) this.#open(client, family)
    this.world.runFor(500)
    this.world.filter = ({ from, bytes }) => {
      const number = this.hosts.findIndex(({ address }) => address === from)
      this.#sent(number, bytes)
      return false
    }
    for (const { kernel, name } of this.hosts)
      kernel.receive = (packet) => void this.outs.push([name, 'packet', Buffer.from(packet)])
    if (!withExpress) return
    for (const [i, { host }] of this.hosts.entries()) {
      this.#express.push(native().expressOpen(this.#codecs[i]!.share(), host.express.memory, this.world.now))
      host.express.use(true, this.world.now)
    }
  }

  #open(client: WorldHost, family: Family): void {
    const { addresses, id } = client.host
    client.program(() => {
      client.connect('four', 80, family)
      client.connect('six', 81, family)
      client.udp('four', 80, family).send('a')
      client.udp('six', 81, family).send('b')
    })
    const server = this.hosts[0]!
    const destination = addresses.dialledAddress({ kind: 'host', host: server.id }, family)
    if (destination === undefined || id === server.id) throw new Error('no address')
    client.inject(
      echoPacket({ family, source: addresses.self(family), destination, ports: [77, 0], payload: [1, 2, 3] }),
    )
    this.world.runFor(100)
    // The answer of the server's kernel, which has no echo of its own.
    const flow = this.flows(0).find((one) => one.protocol === 'icmp' && one.state !== 'established')
    if (flow === undefined) throw new Error('no echo has come')
    const { local, remote, localPort, remotePort } = flow
    const ports = [localPort, remotePort] as const
    server.inject(echoPacket({ family: flow.family, source: local, destination: remote, ports, payload: [1, 2, 3] }))
  }

  flows(host: number): FlowSnapshot[] {
    return [...this.hosts[host]!.host.flows.flows()]
  }

  #sent(from: number, bytes: Uint8Array): void {
    this.outs.push([this.hosts[from]!.name, 'frame', Buffer.from(bytes)])
    this.frames.push({ from, bytes: bytes.slice() })
    if (this.frames.length > POOL) this.frames.shift()
  }

  /** A packet of a program of this host. */
  fromTun(host: number, packet: Uint8Array): void {
    const { world } = this
    if (this.withExpress) {
      const data = packet.slice()
      const record = world.record(this.hosts[host]!.address)
      const length = native().expressTry(this.#express[host]!, true, data, data.length, record, 0, this.#out, world.now)
      if (length > 0) {
        this.passed++
        this.#sent(host, this.#out.subarray(0, length))
        return
      }
      if (!Buffer.from(data).equals(packet)) throw new Error('a packet that did not pass has been changed')
    }
    this.hosts[host]!.inject(packet)
  }

  /** A datagram comes to this host. */
  fromWire(to: number, from: string, bytes: Uint8Array, trafficClass: number): void {
    const { world } = this
    const host = this.hosts[to]!
    const record = world.record(from)
    if (this.withExpress) {
      const express = this.#express[to]!
      const length = native().expressTry(
        express,
        false,
        bytes,
        bytes.length,
        record,
        trafficClass,
        this.#out,
        world.now,
      )
      if (length > 0) {
        this.passed++
        this.outs.push([host.name, 'packet', Buffer.from(this.#out.subarray(0, length))])
        return
      }
    }
    const { wireIn } = host.host.dataPath
    wireIn.count = 1
    wireIn.data.set(bytes)
    wireIn.desc.set([0, bytes.length, 0, trafficClass])
    wireIn.addresses.set(record.subarray(0, ADDRESS_RECORD))
    wireIn.desc.fill(0, DATAGRAM_WORDS, 2 * DATAGRAM_WORDS)
    host.enter((engine) => engine.wireRead(world.now))
  }

  settle(): void {
    for (const host of this.hosts) host.enter((engine) => engine.settle(this.world.now))
  }

  /** What has come of the step, and when something is due. What the host says of it goes out when it settles: the order between that and what passed may be another one. */
  told(): { frames: string[]; packets: string[]; due: number[] } {
    const of = (kind: Out[1]) =>
      this.outs.flatMap(([who, what, bytes]) => (what === kind ? [`${who} ${bytes.toString('hex')}`] : []))
    return { frames: of('frame'), packets: of('packet'), due: this.hosts.map(({ host }) => host.nextTimeout()) }
  }

  /** All that the hosts know and count. */
  state(): Record<string, unknown>[] {
    return this.hosts.map(({ host, name }, i) => {
      const { dataPath, flows, prober, sessions, drops } = host
      const { ring } = dataPath.replay
      const { marks } = sessions
      return {
        name,
        flows: [...flows.flows()],
        counters: { ...flows.counters },
        drops: drops.toJSON(),
        path: {
          tunPacketsIn: dataPath.tunPacketsIn,
          tunPacketsOut: dataPath.tunPacketsOut,
          framesOut: dataPath.framesOut,
          singleFramesOut: dataPath.singleFramesOut,
          framesIn: dataPath.framesIn,
          bytesOut: dataPath.bytesOut,
          datagramsIn: dataPath.datagramsIn,
          bytesIn: dataPath.bytesIn,
        },
        heardAt: prober.heardAt(1),
        liveness: prober.liveness(1),
        paths: prober.paths(1),
        session: sessions.info(1, this.world.now),
        sealed: this.#codecs[i]!.sealed(host.peers.sealSlot[1]!),
        rows: bytesOf(flows.table.words.buffer),
        pathHeardAt: bytesOf(host.peers.heardAt.buffer),
        marks: Object.fromEntries(Object.entries(marks).map(([key, array]) => [key, bytesOf(array.buffer)])),
        ring: Buffer.from(ring.memory.subarray(ring.head.byteOffset - ring.memory.byteOffset)),
      }
    })
  }

  close(): void {
    for (const handle of this.#express) native().close(handle)
  }
}

const bytesOf = (buffer: ArrayBufferLike): Buffer => Buffer.from(new Uint8Array(buffer))

/** What happens to both worlds. */
type Step = (side: Side) => void

const pick = <T>(random: Random, from: readonly T[]): T => from[Math.floor(random() * from.length)]!
const below = (random: Random, end: number): number => Math.floor(random() * end)

/** A packet of one of the flows of this host, mostly an ordinary one. */
function packetOf(random: Random, flow: FlowSnapshot): Uint8Array {
  const { family, local: source, remote: destination, localPort, remotePort } = flow
  const size = pick(random, [0, 1, 2, 31, 64, 500, 600, 1_300, 1_380, 1_500])
  const common = {
    family,
    source,
    destination,
    ports: [localPort, remotePort] as const,
    payload: Array.from({ length: random() < 0.5 ? size : below(random, 200) }, () => below(random, 256)),
    trafficClass: random() < 0.5 ? 0 : below(random, 256),
    hopLimit: random() < 0.9 ? 64 : below(random, 4),
    partial: random() < 0.5,
  }
  if (flow.protocol === 'udp') return udpPacket(common)
  if (flow.protocol === 'icmp') return echoPacket(common)
  const special = random() < 0.02 ? pick(random, [SYN, FIN, RST, 32, SYN | RST]) : 0
  const flags = pick(random, [ACK, ACK | PSH, ACK | 64, ACK | 128, 0]) | special
  const number = () => 1_000 + below(random, 4_000) + (random() < 0.1 ? 0x7fff_0000 : 0)
  const mss = random() < 0.1 ? { mss: 1_460 } : {}
  return tcpPacket({ ...common, flags, sequence: number(), acknowledgement: number(), ...mss })
}

function changed(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice(0, random() < 0.2 ? below(random, bytes.length + 1) : bytes.length)
  for (let n = 1 + below(random, 3); n > 0 && copy.length > 0; n--)
    copy[random() < 0.7 ? below(random, Math.min(80, copy.length)) : below(random, copy.length)]! ^=
      1 << below(random, 8)
  return random() < 0.1 ? Uint8Array.of(...copy, 0, 0, 0) : copy
}

function stepOf(random: Random, side: Side): Step {
  const dice = random()
  const host = below(random, 2)
  const flow = pick(random, side.flows(host))
  if (dice < 0.45 && flow !== undefined) {
    const packet = packetOf(random, flow)
    const given = random() < 0.15 ? changed(random, packet) : packet
    return (one) => one.fromTun(host, given.length > 10 ? given : packet)
  }
  if (dice < 0.95 && side.frames.length > 0) {
    const index = random() < 0.7 ? side.frames.length - 1 : below(random, side.frames.length)
    const trafficClass = random() < 0.6 ? 0 : below(random, 256)
    const seed = random() < 0.15 ? below(random, 2 ** 31) : -1
    const astray = random() < 0.05
    return (one) => {
      const { from, bytes } = one.frames[index]!
      const frame = seed < 0 ? bytes : changed(seededRandom(seed), bytes)
      one.fromWire(1 - from, astray ? '192.0.2.9:9' : one.hosts[from]!.address, frame, trafficClass)
    }
  }
  const ms = pick(random, [1, 20, 60, 300, 2_500])
  return (one) => one.world.runFor(ms)
}

function same(t: Test, a: unknown, b: unknown, what: string): boolean {
  return t.strictSame(b, a, what)
}

/** One of the two takes part in every comparison; what differs ends the run. */
function compare(t: Test, seed: number, aead: AeadName): number {
  const slow = new Side(seed, aead, false)
  const fast = new Side(seed, aead, true)
  t.teardown(() => fast.close())
  const random = seededRandom(seed + 1_000)
  same(t, slow.state(), fast.state(), 'both begin alike')
  t.ok(slow.flows(0).filter(({ state }) => state === 'established').length >= 8, 'there are flows')
  let steps = 0
  for (; steps < STEPS; steps++) {
    const step = stepOf(random, slow)
    for (const side of [slow, fast]) {
      // What is due is done, or the next frame that comes to the host would have it done.
      side.world.runFor(0)
      side.outs = []
      step(side)
      side.settle()
    }
    const [a, b] = [slow.told(), fast.told()]
    if (JSON.stringify(a) !== JSON.stringify(b)) {
      same(t, a, b, `what goes out and what is due, step ${steps} of seed ${seed}`)
      return fast.passed
    }
    if (steps % 50 !== 49) continue
    if (!same(t, slow.state(), fast.state(), `what is known, step ${steps} of seed ${seed}`)) return fast.passed
  }
  return fast.passed
}

for (const aead of codecAddon().codecAeads()) {
  test(`packets pass express as they pass the host, with ${aead}`, (t) => {
    let passed = 0
    for (let seed = 1; seed <= SEEDS; seed++) passed += compare(t, seed, aead)
    t.comment(`${passed} of ${SEEDS * STEPS} steps were packets that passed`)
    t.ok(passed > SEEDS * STEPS * 0.3, `${passed} packets have passed`)
    t.end()
  })
}
