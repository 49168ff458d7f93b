// Two hosts in memory live through what a host lives through, before it counts: a handshake, packets, time that passes, addresses that come and go. What a process does for the first time takes
// many times as long, since its code has to be compiled, and packets wait for it. A daemon that begins anew has it behind it when the first packet comes, and one that is to take over from
// another one when that stops.

import type { Primitives } from '../lib/crypto/primitives.js'
import { Authority } from '../lib/crypto/authority.js'
import { HostKey } from '../lib/crypto/host-key.js'
import { issueMembership } from '../lib/crypto/membership.js'
import { IPV4_POOL, ZONE } from '../lib/crypto/network-profile.js'
import { TrustStore } from '../lib/crypto/trust.js'
import { FlowMemory } from '../lib/flow/flow-memory.js'
import { Host } from '../lib/host/host.js'
import type { HostEvents } from '../lib/host/host-options.js'
import type { Locator } from '../lib/path/locator.js'
import { checksumOf, sumBytes } from '../lib/wire/checksum.js'
import { Protocol, VNET_HEADER } from '../lib/wire/constants.js'
import { PacketHead, writeIpHeader } from '../lib/wire/headers.js'
import { FakeNetwork, FakeTun } from './fake-devices.js'
import type { NativeCodec } from './native-codec.js'
import { DeviceIo, monotonicNow } from './packet-loop.js'
import { Underlay } from './underlay.js'
import { wallNow } from './wall-clock.js'

const FLOWS = 64
const PEERS = 8
const DAY = 86_400
/** Steps of a millisecond: a handshake takes a few. */
const STEPS = 200
const ECHOES = 20
/** Time that passes then, ms of theirs, with an echo now and then: paths are probed and their MTU confirmed often enough for their code to be worth compiling. */
const LIFE_MS = 10_000
const ECHO_EVERY_MS = 1_000
/** Moves of each of them, and between the steps of a move, ms. */
const MOVES = 4
const MOVING_MS = 100
const IPV4_HEADER = 20
const ICMP = { request: 8, answer: 0, length: 16 } as const

const silent: HostEvents = {
  mappingChanged: () => undefined,
  localAddressesChanged: () => undefined,
  peer: () => undefined,
  revocationsChanged: () => undefined,
  namesRuled: () => undefined,
  claimsChanged: () => undefined,
  renewed: () => undefined,
  renewalFailed: () => undefined,
  expelled: () => undefined,
  dropped: () => undefined,
  remember: () => undefined,
}

/** One of the two. */
class Player {
  readonly tun = new FakeTun()
  readonly host: Host
  now: number

  constructor(
    primitives: Primitives,
    codec: NativeCodec,
    hostKey: HostKey,
    trust: TrustStore,
    network: FakeNetwork,
    readonly locators: readonly [Locator, Locator],
    now: number,
  ) {
    this.now = now
    const underlay = new Underlay(locators.map((locator) => network.open(locator)))
    const io = new DeviceIo()
    io.underlay = underlay
    io.tun = this.tun
    let stamp = BigInt(Date.now())
    let sequence = 0
    this.host = new Host(
      {
        ...{ primitives, codec, hostKey, trust, io, events: silent, wallNow },
        endpoints: { find: () => ({ family: 4, address: this.host.addresses.self(4), port: 0 }) },
        flowMemory: new ArrayBuffer(FlowMemory.bytesFor(FLOWS, PEERS)),
        random: Math.random,
        nextStamp: () => ++stamp,
        sequence: { next: () => ++sequence, raise: (above) => void (sequence = Math.max(sequence, above)) },
      },
      { flowCapacity: FLOWS, peerCapacity: PEERS, restore: false },
    )
    underlay.onReadable(this.host.dataPath.wireIn, () => this.host.wireRead(this.now))
    this.tun.onReadable(() => {
      while (this.tun.readBatch(this.host.dataPath.tunIn) > 0) this.host.tunRead(this.now)
    })
    this.host.setLocators(locators.slice(0, 1), now)
    this.host.loaded(now)
  }

  /** Is about to leave one of its addresses for the other one; `left`: has done so. */
  move(to: 0 | 1, left: boolean): void {
    const [here, there] = [this.locators[to], this.locators[to === 0 ? 1 : 0]]
    this.host.setLocators(left ? [here] : [here, { ...there, deprecated: true }], this.now)
  }

  /** How often its frames to the other one have gone another way since then. */
  get commits(): number {
    return [...this.host.prober.commits.values()].reduce((sum, count) => sum + count, 0)
  }

  step(now: number): void {
    this.now = now
    if (this.host.nextTimeout() <= now) this.host.handleTimeout(now)
  }

  /** A session with the other one is up. */
  connected(other: Player): boolean {
    const peer = this.host.peers.indexOf(other.host.id)
    return peer >= 0 && this.host.peers.sealSlot[peer]! >= 0
  }
}

/** Takes some tenths of a second, and touches nothing outside this process. Returns how many packets came back, and how often frames went another way than before. */
export function rehearse(primitives: Primitives, codec: () => NativeCodec): { echoes: number; commits: number } {
  const wall = Math.floor(wallNow())
  const began = monotonicNow()
  const authority = Authority.generate(primitives)
  const profile = { name: 'rehearsal', ipv4Pool: IPV4_POOL, zone: ZONE }
  const keys = [HostKey.generate(primitives), HostKey.generate(primitives)] as const
  const span = { notBefore: wall - DAY, notAfter: wall + DAY, serial: wall }
  const certificate = authority.certifyIssuer({ host: keys[0].id, tags: ['*'], ...span })
  const network = new FakeNetwork()
  const [a, b] = keys.map((key, i) => {
    const store = new TrustStore(primitives, { authority: authority.publicKey, profile, floor: wall - DAY })
    store.adoptIssuerCertificate(certificate)
    const member = { host: key.id, name: `h${i}`, tags: [], ...span }
    const issuer = { certificate, authority: authority.publicKey }
    store.adoptMembership(key.id, issueMembership(primitives, keys[0], issuer, member), wall)
    // As it is read from its file.
    const trust = TrustStore.decode(primitives, store.encode()) ?? store
    const locators = [1, 101].map((n) => ({ address: `192.0.2.${n + i}`, port: 1 })) as [Locator, Locator]
    return new Player(primitives, codec(), key, trust, network, locators, began)
  }) as [Player, Player]
  a.host.neighbours.hint(b.host.id, b.locators[0], began)
  let now = began
  const stepTo = (next: number) => {
    now = next
    for (const player of [a, b]) player.step(now)
    network.settle()
  }
  for (let i = 0; i < STEPS && !(a.connected(b) && b.connected(a)); i++) stepTo(now + 1)
  const dialled = a.host.addresses.dialledAddress({ kind: 'host', host: b.host.id }, 4)
  let echoes = 0
  const ask = () => {
    if (dialled === undefined) return
    a.tun.fromKernel(echo(ICMP.request, a.host.addresses.self(4), dialled, 7, echoes))
    stepTo(now + 1)
    for (const packet of b.tun.toKernel.splice(0)) b.tun.fromKernel(answerTo(packet.subarray(VNET_HEADER)))
    stepTo(now + 1)
    echoes += a.tun.toKernel.splice(0).length
  }
  const live = (ms: number) => {
    for (const end = now + ms; now < end;)
      stepTo(Math.min(end, Math.max(now + 1, Math.min(a.host.nextTimeout(), b.host.nextTimeout()))))
  }
  for (let i = 0; i < ECHOES; i++) ask()
  for (const end = now + LIFE_MS; now < end;) {
    live(ECHO_EVERY_MS)
    ask()
  }
  for (let i = 0; i < MOVES; i++)
    for (const player of [a, b])
      for (const left of [false, true]) {
        player.move(i % 2 === 0 ? 1 : 0, left)
        live(MOVING_MS)
        ask()
      }
  return { echoes, commits: a.commits + b.commits }
}

function echo(type: number, source: Uint8Array, destination: Uint8Array, id: number, sequence: number): Uint8Array {
  const bytes = new Uint8Array(IPV4_HEADER + ICMP.length)
  const view = new DataView(bytes.buffer)
  bytes[IPV4_HEADER] = type
  view.setUint16(IPV4_HEADER + 4, id)
  view.setUint16(IPV4_HEADER + 6, sequence)
  view.setUint16(IPV4_HEADER + 2, checksumOf(sumBytes(bytes, view, IPV4_HEADER, ICMP.length)))
  const head = new PacketHead()
  head.protocol = Protocol.icmp
  head.source = source
  head.destination = destination
  writeIpHeader(bytes, view, 0, ICMP.length, head)
  return bytes
}

/** What a kernel says to an echo request. */
function answerTo(request: Uint8Array): Uint8Array {
  const [high = 0, low = 0, ...sequence] = request.subarray(IPV4_HEADER + 4, IPV4_HEADER + 8)
  const number = (sequence[0]! << 8) | sequence[1]!
  return echo(ICMP.answer, request.subarray(16, 20), request.subarray(12, 16), (high << 8) | low, number)
}
