// Whole hosts in virtual time: each has a daemon's engine, a kernel with programs, and a place on an underlay that delays, loses, doubles and reorders. There is no clock and no
// timer; everything random comes from one seed, so that a run is the same every time.

import { Authority } from '../../lib/crypto/authority.js'
import type { AeadName, FrameCodec } from '../../lib/crypto/codec.js'
import { HostKey } from '../../lib/crypto/host-key.js'
import { issueMembership } from '../../lib/crypto/membership.js'
import { IPV4_POOL, ZONE } from '../../lib/crypto/network-profile.js'
import { portableAeads, PortableCodec } from '../../lib/crypto/portable-codec.js'
import type { Primitives } from '../../lib/crypto/primitives.js'
import { TrustStore } from '../../lib/crypto/trust.js'
import { FlowMemory } from '../../lib/flow/flow-memory.js'
import type { LocalEndpoint } from '../../lib/flow/environment.js'
import { Host } from '../../lib/host/host.js'
import type { HostOptions } from '../../lib/host/host-options.js'
import { encodeLocator, parseLocator, type Locator } from '../../lib/path/locator.js'
import type { Addresses, SavedMappings } from '../../lib/service/addresses.js'
import { parseServiceName, serviceIdOf } from '../../lib/service/service-id.js'
import type { RuleAction } from '../../lib/service/service-table.js'
import { ADDRESS_RECORD, DATAGRAM_WORDS, PACKET_WORDS, RUN_WORDS, type FrameRuns } from '../../lib/wire/batch.js'
import type { PacketBatch } from '../../lib/wire/batch.js'
import { Protocol } from '../../lib/wire/constants.js'
import type { DropReason } from '../../lib/wire/drop.js'
import type { HostId, ServiceId } from '../../lib/wire/ids.js'
import { EventQueue } from './event-queue.js'
import { standInAead, standInPrimitives } from './stand-in-crypto.js'
import { VirtualKernel, type Family, type TcpSocket, type UdpSocket } from './virtual-kernel.js'
import { seededRandom } from '../tools/seeded-random.js'

/** Wall time at virtual time 0, seconds since the epoch. */
export const WALL_START = 1_800_000_000
const START = 1_000
const DATAGRAM_BUFFER = 65_536
const DATAGRAMS = 8
const FLOW_CAPACITY = 512
/** Packets that a TUN device keeps while nobody reads them. */
const TUN_QUEUE = 500
const PEER_CAPACITY = 256
/** Calls at one instant after which a timer counts as one that stays due. */
const STUCK = 100
/** ms after which a daemon says what it has, restored or not. */
const LOADING_MAX = 10_000

export interface LinkOptions {
  readonly loss?: number
  readonly duplicate?: number
  /** One way, ms. */
  readonly delay?: number
  /** Added at random, ms, so that datagrams overtake each other; 0: in order. */
  readonly jitter?: number
}

/** A frame as a test sees it pass. */
export interface Passing {
  readonly from: string
  readonly to: string
  readonly bytes: Uint8Array
}

export interface WorldOptions {
  readonly link?: LinkOptions
  /** Real cryptography instead of the stand-in. */
  readonly realCrypto?: boolean
  /** Another codec than the portable one; for real cryptography only. */
  readonly codec?: () => FrameCodec
  readonly host?: Partial<HostOptions>
  /** The first host is the issuer of all memberships, and has the authority's key. */
  readonly issuer?: boolean
  /** How long memberships are valid from when their host is added, s; a day when it is left out. */
  readonly membershipSeconds?: number
  /** How long the issuer's certificate is valid, s; ten days when it is left out. */
  readonly certificateSeconds?: number
}

export class HostWorld {
  link: LinkOptions
  /** Every frame sent, before the link does anything to it; false: it is lost. */
  filter: (passing: Passing) => boolean = () => true
  /** Whether what a host says in the directory is heard by the other; set before the hosts start. Where somebody is not heard, all count as told everything. */
  hears: ((host: WorldHost, from: WorldHost) => boolean) | undefined
  readonly random: () => number
  readonly primitives: Primitives
  readonly authority: Authority
  readonly hosts: WorldHost[] = []
  readonly events = new EventQueue(START)
  readonly #issuer: HostKey
  readonly #certificate: Uint8Array
  readonly #byAddress = new Map<string, WorldHost>()
  readonly #records = new Map<string, Uint8Array>()
  #serial = 1
  #address = 0

  constructor(
    sodium: Primitives,
    readonly seed: number,
    readonly options: WorldOptions = {},
  ) {
    const random = seededRandom(seed)
    this.random = random
    this.link = options.link ?? {}
    const crypto = options.realCrypto === true ? sodium : standInPrimitives(sodium)
    this.primitives = { ...crypto, randomBytes: (length) => Uint8Array.from({ length }, () => random() * 256) }
    this.authority = Authority.generate(this.primitives)
    this.#issuer = HostKey.generate(this.primitives)
    const validity = { notBefore: 0, notAfter: WALL_START + (options.certificateSeconds ?? 10 * 86_400) }
    this.#certificate = this.authority.certifyIssuer({ host: this.#issuer.id, tags: ['*'], ...validity, serial: 1 })
  }

  get now(): number {
    return this.events.now
  }
  get wallNow(): number {
    return WALL_START + this.now / 1000
  }

  /** Another member, not started yet. */
  add(tags: readonly string[] = []): WorldHost {
    const host = new WorldHost(this, this.hosts.length, tags)
    this.hosts.push(host)
    return host
  }

  /** So many hosts, each of which knows where the first one is, all started at once. */
  mesh(count: number): WorldHost[] {
    for (let i = 0; i < count; i++) this.add()
    for (const host of this.hosts.slice(1)) host.hints.push(this.hosts[0]!)
    for (const host of this.hosts) host.start()
    return this.hosts
  }

  /** The key of a new host. */
  keyOf(number: number): HostKey {
    return this.options.issuer === true && number === 0 ? this.#issuer : HostKey.generate(this.primitives)
  }

  trust(host: HostId, name: string, tags: readonly string[] = []): TrustStore {
    const profile = { name: 'test', ipv4Pool: IPV4_POOL, zone: ZONE }
    const store = new TrustStore(this.primitives, { authority: this.authority.publicKey, profile })
    const issuer = { certificate: this.#certificate, authority: this.authority.publicKey }
    const wall = Math.floor(this.wallNow)
    const { membershipSeconds: seconds } = this.options
    const validity =
      seconds === undefined
        ? { notBefore: 0, notAfter: WALL_START + 86_400 }
        : { notBefore: wall, notAfter: wall + seconds }
    const membership = { host, name, tags, ...validity, serial: ++this.#serial }
    if (this.options.issuer === true && host === this.#issuer.id) store.adoptIssuerCertificate(this.#certificate)
    store.adoptMembership(host, issueMembership(this.primitives, this.#issuer, issuer, membership), this.wallNow)
    return store
  }

  /** A serial that no membership has exceeded yet. */
  get serial(): number {
    return this.#serial
  }

  codec(): FrameCodec {
    if (this.options.codec !== undefined) return this.options.codec()
    const name: AeadName = 'chacha20-poly1305'
    const real = this.options.realCrypto === true
    return new PortableCodec(real ? portableAeads(this.primitives) : new Map([[name, standInAead]]))
  }

  service(name: string): ServiceId {
    const parsed = parseServiceName(name)
    if ('problem' in parsed) throw new Error(parsed.problem)
    return serviceIdOf(parsed, this.authority.network, this.primitives)
  }

  // ---- The underlay ----

  /** An address that nobody has had yet. */
  freshAddress(): string {
    const n = ++this.#address
    return `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}:7474`
  }

  occupy(address: string, host: WorldHost | undefined): void {
    if (host === undefined) this.#byAddress.delete(address)
    else this.#byAddress.set(address, host)
  }

  record(address: string): Uint8Array {
    let record = this.#records.get(address)
    if (record === undefined) {
      record = encodeLocator(locatorOf(address))
      this.#records.set(address, record)
    }
    return record
  }

  send(from: string, to: string, bytes: Uint8Array): void {
    const frame = bytes.slice()
    if (!this.filter({ from, to, bytes: frame })) return
    const { loss = 0, duplicate = 0 } = this.link
    const copies = this.random() < duplicate ? 2 : 1
    for (let i = 0; i < copies; i++) if (this.random() >= loss) this.deliver(from, to, frame)
  }

  /** Puts a frame on the way that nothing but time happens to. */
  deliver(from: string, to: string, bytes: Uint8Array): void {
    const { delay = 5, jitter = 0 } = this.link
    const at = this.now + delay + (jitter > 0 ? this.random() * jitter : 0)
    this.events.at(at, () => this.#byAddress.get(to)?.arrive(from, bytes.slice()))
  }

  // ---- Time ----

  run(until: number): void {
    this.events.run(until)
  }
  runFor(ms: number): void {
    this.run(this.now + ms)
  }
  /** Runs until it holds; false: it did not within the time. */
  until(condition: () => boolean, ms: number, step = 10): boolean {
    for (const end = this.now + ms; this.now < end;) {
      if (condition()) return true
      this.runFor(step)
    }
    return condition()
  }

  /** Each running host has a session with each other one, knows its records and agrees on what they are. */
  get converged(): boolean {
    const running = this.hosts.filter((host) => host.running)
    return running.every(
      ({ host }) =>
        host.directory.synced &&
        running.every((other) => host.directory.record(other.id, 'locators') !== undefined) &&
        running.every((other) => sameRecords(host, other.host, other.id)),
    )
  }
}

function sameRecords(a: Host, b: Host, of: HostId): boolean {
  const text = (host: Host) =>
    JSON.stringify(
      host.directory
        .recordsOf(of)
        .map(({ key, sequence }) => [key, sequence])
        .sort(),
    )
  return text(a) === text(b)
}

export function locatorOf(address: string): Locator {
  const locator = parseLocator(address)
  if (locator === undefined) throw new Error(`no address: ${address}`)
  return locator
}

/** What a host offers: its programs listen on `port` + 8000, TCP and UDP. */
export interface Exposed {
  readonly name: string
  readonly port: number
  readonly family: Family
  readonly priority: number
  readonly weight: number
}

/** Ends what a daemon does, as kill -9 would. */
class Killed extends Error {
  constructor(readonly afterMs: number) {
    super('killed')
  }
}

export class WorldHost {
  readonly key: HostKey
  readonly name: string
  readonly trust: TrustStore
  readonly kernel: VirtualKernel
  /** Hosts whose addresses it is told when it starts. */
  readonly hints: WorldHost[] = []
  /** What the daemon's events said, such as `up h1`. */
  readonly log: string[] = []
  /** Where its frames come from at the moment. */
  address: string
  /** What the daemon's flow table lies in, and whether the next daemon finds there what the last one left. */
  flowMemory = newFlowMemory()
  #kept = false
  /** ms that its daemon needs, after a start, until its services are restored. */
  restoring = 0
  #restored = true
  #host: Host | undefined
  #addresses: Addresses | undefined
  #powered = true
  #life = 0
  #stamp = 0n
  #sequence = 0
  #mappings: SavedMappings | undefined
  #claims: Uint8Array | undefined
  #remembered: { readonly host: HostId; readonly locators: readonly Locator[] }[] = []
  readonly #exposed = new Map<ServiceId, Exposed>()
  #armedAt = Infinity
  #kernelAt = Infinity
  #stuckAt = -1
  #stuck = 0
  #toKernel: Uint8Array[] = []
  #fromKernel: Uint8Array[] = []
  #inbox: { readonly from: string; readonly bytes: Uint8Array }[] = []
  #entered = false
  #killed: { calls: number; readonly afterMs: number } | undefined

  constructor(
    readonly world: HostWorld,
    readonly number: number,
    tags: readonly string[] = [],
  ) {
    this.name = `h${number}`
    this.key = world.keyOf(number)
    this.trust = world.trust(this.key.id, this.name, tags)
    this.address = world.freshAddress()
    this.kernel = new VirtualKernel({
      now: () => world.now,
      random: world.random,
      emit: (packet) => this.#emit(packet),
      // Also while no daemon runs: addresses are the kernel's.
      isLocal: (address, family) => this.#addresses?.isLocal(address, 0, family) ?? false,
    })
  }

  get id(): HostId {
    return this.key.id
  }
  /** The engine; throws when the daemon does not run. */
  get host(): Host {
    if (this.#host === undefined) throw new Error(`${this.name} does not run`)
    return this.#host
  }
  get running(): boolean {
    return this.#host !== undefined
  }

  // ---- The daemon ----

  /** Starts the daemon, with what the last one left on disk. */
  start(): void {
    const { world, key, trust } = this
    const { primitives } = world
    this.#life++
    this.#armedAt = Infinity
    this.#host = new Host(
      {
        primitives,
        codec: world.codec(),
        hostKey: key,
        trust,
        io: {
          writeTun: (batch) => this.#written(batch),
          sendFrames: (runs, addresses) => this.#sendFrames(runs, addresses),
        },
        events: {
          mappingChanged: () => undefined,
          localAddressesChanged: () => undefined,
          peer: (host, what, detail) => this.log.push(`${what} ${this.#nameOf(host)} ${detail}`.trim()),
          revocationsChanged: () => undefined,
          namesRuled: () => undefined,
          claimsChanged: () => (this.#claims = this.#host?.exportClaims()),
          renewed: (what) => this.log.push(`renewed ${what}`),
          renewalFailed: (detail) => this.log.push(`not renewed: ${detail}`),
          expelled: (what, detail) => this.log.push(`${what}: ${detail}`),
          dropped: () => undefined,
          remember: () => undefined,
        },
        endpoints: { find: (service, protocol, port) => this.#endpoint(service, protocol, port) },
        flowMemory: this.flowMemory,
        wallNow: () => world.wallNow,
        random: world.random,
        nextStamp: () => ++this.#stamp,
        sequence: {
          next: () => ++this.#sequence,
          raise: (above) => {
            this.#sequence = Math.max(this.#sequence, above)
          },
        },
        authority: world.options.issuer === true && this.number === 0 ? world.authority : undefined,
      },
      {
        flowCapacity: FLOW_CAPACITY,
        peerCapacity: PEER_CAPACITY,
        restore: this.#kept,
        mappings: this.#mappings,
        claims: this.#claims,
        ...(this.restoring > 0 ? { loadingUntil: world.now + LOADING_MAX } : {}),
        ...world.options.host,
      },
    )
    this.#addresses = this.#host.addresses
    this.#listen(this.#host)
    world.occupy(this.address, this)
    this.#restored = this.restoring === 0
    if (!this.#restored) this.#restoreLater()
    this.enter((host) => {
      host.setLocators([locatorOf(this.address)], world.now)
      for (const other of this.hints) host.neighbours.hint(other.id, locatorOf(other.address), world.now)
      for (const { host: id, locators } of this.#remembered) {
        for (const locator of locators) host.neighbours.hint(id, locator, world.now)
      }
      if (this.#restored) for (const service of this.#exposed.keys()) this.#offer(host, service)
    })
  }

  #restoreLater(): void {
    const life = this.#life
    this.world.events.at(this.world.now + this.restoring, () => {
      if (life !== this.#life) return
      this.#restored = true
      this.enter((host) => {
        for (const service of this.#exposed.keys()) this.#offer(host, service)
        host.loaded(this.world.now)
      })
    })
  }

  /** Keeps from the directory what the world says is not heard. */
  #listen(host: Host): void {
    const { world } = this
    const { hears } = world
    if (hears === undefined) return
    const { directory } = host
    const receive = directory.receive.bind(directory)
    directory.receive = (from, message, now) => {
      const other = world.hosts.find(({ id }) => id === from)
      if (other !== undefined && hears(this, other)) receive(from, message, now)
    }
    directory.markSynced()
  }

  /** The daemon is killed; the kernel and its programs stay. `keeps`: so do the memory of its flow table, and the packets of the TUN device, as far as it has room for them. */
  kill(keeps = false): void {
    if (!keeps) this.flowMemory = newFlowMemory()
    this.#kept = keeps
    if (!keeps) this.#fromKernel = []
    this.#mappings = this.host.addresses.exportMappings()
    this.#remembered = this.host.neighbours.remembered()
    this.#host = undefined
    this.#inbox = []
    this.world.occupy(this.address, undefined)
  }

  /** Killed, and started again after so many ms. `keeps`: as for {@link kill}. */
  restart(afterMs = 0, keeps = false): void {
    this.kill(keeps)
    this.world.events.at(this.world.now + afterMs, () => this.start())
  }

  /** As {@link restart} with what it keeps, but in the middle of its work: instead of writing to a device for the `calls`th time from now on. */
  restartWithin(calls: number, afterMs: number): void {
    this.#killed = { calls, afterMs }
  }

  /** The machine is off: nothing of it does anything any more. */
  die(): void {
    this.kill()
    this.#powered = false
  }

  /** As `caracal down`: waits for the farewells, at most half a second. */
  leave(): void {
    const { world } = this
    this.enter((host) => host.leave(world.now))
    const end = world.now + 500
    const wait = () => {
      if (this.#host === undefined) return
      if (this.host.control.pending === 0 || world.now >= end) this.kill()
      else world.events.at(world.now + 5, wait)
    }
    wait()
  }

  /** The host is somewhere else from now on. `told`: its daemon notices and publishes it; else only the source of its frames changes, as behind a NAT. */
  move(address: string, told: boolean): void {
    this.world.occupy(this.address, undefined)
    this.address = address
    this.world.occupy(address, this)
    if (told) this.enter((host) => host.setLocators([locatorOf(address)], this.world.now))
  }

  /** Does something with the engine, and what follows from it between engine and kernel. */
  enter(work: (host: Host) => void): void {
    if (this.#host === undefined) return
    this.#inside(work)
    this.#settle()
  }

  #inside(work: (host: Host) => void): void {
    if (this.#entered) throw new Error('the engine was entered from inside')
    this.#entered = true
    try {
      work(this.host)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      this.restart(error.afterMs, true)
    } finally {
      this.#entered = false
    }
  }

  /** A device is written to. */
  #writes(): void {
    if (this.#killed === undefined || --this.#killed.calls > 0) return
    const { afterMs } = this.#killed
    this.#killed = undefined
    throw new Killed(afterMs)
  }

  // ---- Programs ----

  /** Programs listen for the service, TCP with a banner of the host's name and UDP, and the daemon offers it. */
  expose(name: string, port: number, options: Partial<Exposed> & { readonly listens?: boolean } = {}): ServiceId {
    const service = this.world.service(name)
    const { family = 4, priority = 100, weight = 100, listens = true } = options
    this.#exposed.set(service, { name, port, family, priority, weight })
    if (listens) this.listen(port)
    this.enter((host) => this.#offer(host, service))
    return service
  }

  /** The daemon takes the offer back; the programs go on listening. */
  unexpose(name: string): void {
    const service = this.world.service(name)
    this.#exposed.delete(service)
    this.enter((host) => host.withdraw(service, name, this.world.now))
  }

  /** Rules as its settings would have them: name, action or resolver. */
  rules(...rules: readonly (readonly [name: string, what: 'drop' | 'delay' | WorldHost])[]): void {
    const set = rules.map(([text, what]) => {
      const name = text === '*' ? undefined : parseServiceName(text)
      if (name !== undefined && 'problem' in name) throw new Error(name.problem)
      const action: RuleAction =
        typeof what === 'string' ? { kind: what } : { kind: 'forward', to: 'resolver', host: what.id }
      return { name, below: true, action, priority: what === 'drop' ? 0 : 65_535, weight: 1 }
    })
    this.enter((host) => host.setRules(set, this.world.now))
  }

  listen(port: number): void {
    this.kernel.listenTcp(port + 8_000, { banner: `${this.name}\n` })
    this.kernel.listenUdp(port + 8_000, `${this.name} `)
  }

  /** A program connects to a name. `at`: pinned to that host's instance. */
  connect(name: string, port: number, family: Family = 4, at?: WorldHost): TcpSocket {
    const { addresses } = this.host
    const remote = this.#dialled(name, family, at)
    const socket = this.kernel.connect(family, addresses.self(family), remote, port)
    this.#settle()
    return socket
  }

  udp(name: string, port: number, family: Family = 4): UdpSocket {
    return this.kernel.udp(family, this.host.addresses.self(family), this.#dialled(name, family), port)
  }

  /** A program does something with its sockets. */
  program(work: () => void): void {
    work()
    this.#settle()
  }

  #dialled(name: string, family: Family, at?: WorldHost): Uint8Array {
    const service = this.world.service(name)
    const target = { kind: 'service' as const, service, ...(at === undefined ? {} : { host: at.id }) }
    const address = this.host.addresses.dialledAddress(target, family)
    if (address === undefined) throw new Error('the pool is empty')
    return address
  }

  #offer(host: Host, service: ServiceId): void {
    const { name, port, priority, weight } = this.#exposed.get(service)!
    const ports = (['tcp', 'udp'] as const).map((protocol) => ({ protocol, port, localPort: port + 8_000 }))
    host.offer({ service, name, ports, priority, weight, state: 'up', move: 'drain' }, this.world.now)
  }

  #endpoint(service: ServiceId, protocol: number, port: number): LocalEndpoint | DropReason {
    const exposed = this.#exposed.get(service)
    if (exposed === undefined || !this.#restored) return 'no-instance'
    if (protocol !== Protocol.icmp && port !== exposed.port) return 'refused'
    const address = this.host.addresses.served(service, exposed.family)
    return { family: exposed.family, address, port: protocol === Protocol.icmp ? 0 : port + 8_000 }
  }

  // ---- Devices ----

  /** A frame has come. What comes in the same instant is read in one go. */
  arrive(from: string, bytes: Uint8Array): void {
    if (this.#inbox.push({ from, bytes }) > 1) return
    const life = this.#life
    this.world.events.at(this.world.now, () => {
      if (life === this.#life) this.#readInbox()
    })
  }

  /** Datagrams as the socket would hand them over: segment sizes as they are given. */
  read(datagrams: readonly { readonly from: string; readonly bytes: Uint8Array; readonly segment: number }[]): void {
    const { wireIn } = this.host.dataPath
    wireIn.count = 0
    for (const { from, bytes, segment } of datagrams.slice(0, DATAGRAMS)) {
      const offset = wireIn.count * DATAGRAM_BUFFER
      wireIn.data.set(bytes, offset)
      wireIn.desc.set([offset, bytes.length, segment, 0], wireIn.count * DATAGRAM_WORDS)
      wireIn.addresses.set(this.world.record(from), wireIn.count * ADDRESS_RECORD)
      wireIn.count++
    }
    this.enter((host) => host.wireRead(this.world.now))
  }

  #readInbox(): void {
    const inbox = this.#inbox
    this.#inbox = []
    while (inbox.length > 0 && this.#host !== undefined) {
      const { wireIn } = this.#host.dataPath
      wireIn.count = 0
      while (inbox.length > 0 && wireIn.count < DATAGRAMS) {
        const { from, bytes } = inbox.shift()!
        const word = wireIn.count * DATAGRAM_WORDS
        let offset = wireIn.count * DATAGRAM_BUFFER
        wireIn.desc.set([offset, bytes.length, 0, 0], word)
        wireIn.addresses.set(this.world.record(from), wireIn.count * ADDRESS_RECORD)
        wireIn.data.set(bytes, offset)
        // As the kernel's GRO would: frames of one size and source arrive as one datagram, the last may be shorter.
        for (let n = 1; n < 32 && bytes.length > 0; n++) {
          const next = inbox[0]
          if (next === undefined || next.from !== from || next.bytes.length > bytes.length) break
          if (next.bytes.length === 0 || this.world.random() < 0.2) break
          inbox.shift()
          offset += bytes.length
          wireIn.data.set(next.bytes, offset)
          wireIn.desc[word + 1]! += next.bytes.length
          wireIn.desc[word + 2] = bytes.length
          if (next.bytes.length < bytes.length) break
        }
        wireIn.count++
      }
      this.enter((host) => host.wireRead(this.world.now))
    }
  }

  #written(batch: PacketBatch): void {
    this.#writes()
    for (let i = 0; i < batch.count; i++) {
      const offset = batch.desc[i * PACKET_WORDS]!
      const length = batch.desc[i * PACKET_WORDS + 1]!
      if (length >= 0) this.#toKernel.push(batch.data.slice(offset, offset + length))
    }
  }

  #sendFrames(runs: FrameRuns, addresses: Uint8Array): void {
    this.#writes()
    for (let i = 0; i < runs.count; i++) {
      const [offset, length, stride, slot] = runs.desc.subarray(i * RUN_WORDS, i * RUN_WORDS + 4)
      const to = addressText(addresses, slot! * ADDRESS_RECORD)
      for (let at = 0; at < length!; at += stride!) {
        const end = offset! + Math.min(at + stride!, length!)
        this.world.send(this.address, to, runs.data.subarray(offset! + at, end))
      }
    }
  }

  #emit(packet: Uint8Array): void {
    if (!this.#powered) return
    if (this.#host !== undefined || (this.#kept && this.#fromKernel.length < TUN_QUEUE)) this.#fromKernel.push(packet)
  }

  /** A packet that no program of this kernel made. */
  inject(packet: Uint8Array): void {
    this.#emit(packet)
    this.#settle()
  }

  #settle(): void {
    for (let i = 0; this.#toKernel.length > 0 || (this.#fromKernel.length > 0 && this.#host !== undefined); i++) {
      if (i > 10_000) throw new Error(`${this.name}: kernel and engine do not come to rest`)
      const packets = this.#toKernel
      this.#toKernel = []
      for (const packet of packets) this.kernel.receive(packet)
      if (this.#fromKernel.length > 0) this.#readTun()
    }
    this.#arm()
  }

  #readTun(): void {
    const host = this.#host
    if (host === undefined) {
      if (!this.#kept) this.#fromKernel = []
      return
    }
    const { tunIn } = host.dataPath
    tunIn.count = 0
    let offset = 2
    for (const packet of this.#fromKernel.splice(0, 64)) {
      tunIn.data.set(packet, offset)
      tunIn.desc[tunIn.count * PACKET_WORDS] = offset
      tunIn.desc[tunIn.count * PACKET_WORDS + 1] = packet.length
      tunIn.count++
      tunIn.used = offset + packet.length
      offset = ((offset + packet.length + 1) & ~3) + 2
    }
    this.#inside((running) => running.tunRead(this.world.now))
  }

  // ---- Time ----

  #arm(): void {
    const { world } = this
    const life = this.#life
    if (this.#host !== undefined) {
      const next = Math.max(this.#host.nextTimeout(), world.now)
      if (next < this.#armedAt) {
        this.#armedAt = next
        world.events.at(next, () => {
          if (life === this.#life && this.#armedAt === next) this.#expire()
        })
      }
    }
    const next = this.#powered ? Math.max(this.kernel.nextTimeout(), world.now) : Infinity
    if (next < this.#kernelAt) {
      this.#kernelAt = next
      world.events.at(next, () => {
        if (this.#kernelAt !== next) return
        this.#kernelAt = Infinity
        if (this.#powered) this.kernel.handleTimeout()
        this.#settle()
      })
    }
  }

  #expire(): void {
    const { now } = this.world
    this.#armedAt = Infinity
    if (this.#host === undefined) return
    if (this.#host.nextTimeout() <= now) {
      this.#stuck = this.#stuckAt === now ? this.#stuck + 1 : 0
      this.#stuckAt = now
      if (this.#stuck > STUCK) throw new Error(`${this.name}: a timer stays due at ${now}`)
      this.enter((host) => host.handleTimeout(now))
    } else this.#arm()
  }

  #nameOf(id: HostId): string {
    return this.world.hosts.find((host) => host.id === id)?.name ?? 'stranger'
  }
}

function newFlowMemory(): ArrayBuffer {
  return new ArrayBuffer(FlowMemory.bytesFor(FLOW_CAPACITY, PEER_CAPACITY))
}

function addressText(records: Uint8Array, at: number): string {
  return `${records.subarray(at + 8, at + 12).join('.')}:${(records[at + 2]! << 8) | records[at + 3]!}`
}
