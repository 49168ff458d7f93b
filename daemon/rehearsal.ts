// A handshake and a few packets between two hosts in memory, before it counts. What a process does for the first time takes many times as long, since its code has to be compiled: a daemon that
// is to take over from another one has that behind it when the other one stops.

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
    readonly locator: Locator,
    now: number,
  ) {
    this.now = now
    const underlay = new Underlay([network.open(locator)])
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
    this.host.setLocators([locator], now)
    this.host.loaded(now)
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

/** Takes some tens of milliseconds, and touches nothing outside this process. Returns how many packets came back. */
export function rehearse(primitives: Primitives, codec: () => NativeCodec): number {
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
    const locator = { address: `192.0.2.${i + 1}`, port: 1 }
    return new Player(primitives, codec(), key, trust, network, locator, began)
  })
  if (a === undefined || b === undefined) return 0
  a.host.neighbours.hint(b.host.id, b.locator, began)
  let now = began
  const step = () => {
    now += 1
    for (const player of [a, b]) player.step(now)
    network.settle()
  }
  for (let i = 0; i < STEPS && !(a.connected(b) && b.connected(a)); i++) step()
  const dialled = a.host.addresses.dialledAddress({ kind: 'host', host: b.host.id }, 4)
  if (dialled === undefined) return 0
  let came = 0
  for (let i = 0; i < ECHOES; i++) {
    a.tun.fromKernel(echo(ICMP.request, a.host.addresses.self(4), dialled, 7, i))
    step()
    for (const packet of b.tun.toKernel.splice(0)) b.tun.fromKernel(answerTo(packet.subarray(VNET_HEADER)))
    step()
    came += a.tun.toKernel.splice(0).length
  }
  return came
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
