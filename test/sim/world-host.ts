// One host of a simulated world: its daemon's engine, its kernel with programs, its addresses, and the timers of all of them.

import { HostKey } from '../../lib/crypto/host-key.js'
import type { TrustStore } from '../../lib/crypto/trust.js'
import type { LocalEndpoint } from '../../lib/flow/environment.js'
import { FlowMemory } from '../../lib/flow/flow-memory.js'
import { isPinned } from '../../lib/path/address-record.js'
import type { Locator } from '../../lib/path/locator.js'
import { Host } from '../../lib/host/host.js'
import type { Addresses, SavedMappings } from '../../lib/service/addresses.js'
import { parseServiceName } from '../../lib/service/service-id.js'
import type { RuleAction } from '../../lib/service/service-table.js'
import {
  ADDRESS_LOCAL,
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  PACKET_WORDS,
  RUN_WORDS,
  type FrameRuns,
  type PacketBatch,
} from '../../lib/wire/batch.js'
import { Protocol } from '../../lib/wire/constants.js'
import type { DropReason } from '../../lib/wire/drop.js'
import type { HostId, ServiceId } from '../../lib/wire/ids.js'
import type { HostWorld } from './host-world.js'
import { locatorOf, prefixOf, type Site } from './underlay.js'
import { VirtualKernel, type Family, type TcpSocket, type UdpSocket } from './virtual-kernel.js'

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
/** Position in an address record. */
const ADDRESS = 8

/** An address of the host: as it has it itself, and where others see it, which is something else behind a NAT. */
interface Place {
  readonly own: string
  readonly seen: string
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

export class WorldHost implements Site {
  readonly key: HostKey
  readonly name: string
  readonly trust: TrustStore
  readonly kernel: VirtualKernel
  /** Hosts whose addresses it is told when it starts. */
  readonly hints: WorldHost[] = []
  /** What the daemon's events said, such as `up h1`. */
  readonly log: string[] = []
  /** What the daemon's flow table lies in, and whether the next daemon finds there what the last one left. */
  flowMemory: ArrayBuffer
  #kept = false
  /** ms that its daemon needs, after a start, until its services are restored. */
  restoring = 0
  /** The first is the one from which the kernel sends when nothing speaks for another. */
  #places: readonly Place[]
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
  #inbox: { readonly from: string; readonly to: string; readonly bytes: Uint8Array }[] = []
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
    this.#places = [placeAt(world.freshAddress())]
    this.flowMemory = newFlowMemory(this.#peerCapacity)
    this.kernel = new VirtualKernel({
      now: () => world.now,
      random: world.random,
      emit: (packet) => this.#emit(packet),
      // Also while no daemon runs: addresses are the kernel's.
      isLocal: (address, family) => this.#addresses?.isLocal(address, 0, family) ?? false,
    })
  }

  get #peerCapacity(): number {
    return this.world.options.host?.peerCapacity ?? PEER_CAPACITY
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
  /** Where others see its frames come from, when nothing speaks for another address; empty: it has none. */
  get address(): string {
    return this.#places[0]?.seen ?? ''
  }

  /** All of them, as others see them. */
  get addresses(): readonly string[] {
    return this.#places.map(({ seen }) => seen)
  }

  /** Where others see the own address of these bytes, as records have it; undefined: it is none. */
  seenOf(local: Uint8Array): string | undefined {
    return this.#places.find(({ own }) => this.#bytesOf(own).every((byte, i) => byte === local[i]))?.seen
  }

  /** Whether frames to this address come to it. */
  isAt(address: string): boolean {
    return this.#places.some(({ seen }) => seen === address)
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
        peerCapacity: this.#peerCapacity,
        restore: this.#kept,
        mappings: this.#mappings,
        claims: this.#claims,
        ...(this.restoring > 0 ? { loadingUntil: world.now + LOADING_MAX } : {}),
        ...world.options.host,
      },
    )
    this.#addresses = this.#host.addresses
    this.#listen(this.#host)
    for (const { seen } of this.#places) world.occupy(seen, this)
    this.#restored = this.restoring === 0
    if (!this.#restored) this.#restoreLater()
    this.enter((host) => {
      host.setLocators(this.#locators([]), world.now)
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
    if (!keeps) this.flowMemory = newFlowMemory(this.#peerCapacity)
    this.#kept = keeps
    if (!keeps) this.#fromKernel = []
    this.#mappings = this.host.addresses.exportMappings()
    this.#remembered = this.host.neighbours.remembered()
    this.#host = undefined
    this.#inbox = []
    for (const { seen } of this.#places) this.world.occupy(seen, undefined)
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
    this.#settleAt([told ? placeAt(address) : { own: this.#places[0]?.own ?? address, seen: address }])
    if (told) this.tell()
  }

  /** The host has no address any more, until it is somewhere else. `told`: its daemon notices. */
  vanish(told: boolean): void {
    this.settle([])
    if (told) this.tell()
  }

  /** It has these addresses and no others from now on, as its kernel knows; its daemon does not before {@link tell}. */
  settle(addresses: readonly string[]): void {
    this.#settleAt(addresses.map(placeAt))
  }

  /** The daemon notices which addresses the host has, and that these of them are about to go. */
  tell(deprecated: readonly string[] = []): void {
    const { now } = this.world
    this.enter((host) => {
      host.setLocators(this.#locators(deprecated), now)
      host.linksChanged(now)
    })
  }

  #settleAt(places: readonly Place[]): void {
    const { world } = this
    for (const { seen } of this.#places) world.occupy(seen, undefined)
    this.#places = places
    if (this.#host !== undefined) for (const { seen } of places) world.occupy(seen, this)
  }

  #locators(deprecated: readonly string[]): (Locator & { readonly deprecated: boolean })[] {
    return this.#places.map(({ own }) => ({ ...locatorOf(own), deprecated: deprecated.includes(own) }))
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
  arrive(from: string, to: string, bytes: Uint8Array): void {
    if (this.#inbox.push({ from, to, bytes }) > 1) return
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
        const { from, to, bytes } = inbox.shift()!
        const word = wireIn.count * DATAGRAM_WORDS
        let offset = wireIn.count * DATAGRAM_BUFFER
        wireIn.desc.set([offset, bytes.length, 0, 0], word)
        wireIn.addresses.set(this.world.record(from), wireIn.count * ADDRESS_RECORD)
        const own = this.#places.find(({ seen }) => seen === to)?.own
        if (own !== undefined) wireIn.addresses.set(this.#bytesOf(own), wireIn.count * ADDRESS_RECORD + ADDRESS_LOCAL)
        wireIn.data.set(bytes, offset)
        // As the kernel's GRO would: frames of one size and source arrive as one datagram, the last may be shorter.
        for (let n = 1; n < 32 && bytes.length > 0; n++) {
          const next = inbox[0]
          if (next === undefined || next.from !== from || next.to !== to || next.bytes.length > bytes.length) break
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
      const to = this.world.textOf(addresses, slot! * ADDRESS_RECORD)
      const from = this.#sourceOf(addresses, slot! * ADDRESS_RECORD, to)
      if (from === undefined) continue
      for (let at = 0; at < length!; at += stride!) {
        const end = offset! + Math.min(at + stride!, length!)
        this.world.send(from, to, runs.data.subarray(offset! + at, end))
      }
    }
  }

  /** Where a frame goes out, as others see it; undefined: the kernel refuses it, for the host has no such address, or none of the family. */
  #sourceOf(records: Uint8Array, at: number, to: string): string | undefined {
    const places = this.#places
    if (isPinned(records, at)) return this.seenOf(records.subarray(at + ADDRESS_LOCAL, at + ADDRESS_RECORD))
    if (places.length === 1) return places[0]!.seen
    return (places.find(({ own }) => to.startsWith(prefixOf(own))) ?? places[0])?.seen
  }

  /** The address as records have it. */
  #bytesOf(address: string): Uint8Array {
    return this.world.record(address).subarray(ADDRESS, ADDRESS_LOCAL)
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

function placeAt(address: string): Place {
  return { own: address, seen: address }
}

function newFlowMemory(peerCapacity: number): ArrayBuffer {
  return new ArrayBuffer(FlowMemory.bytesFor(FLOW_CAPACITY, peerCapacity))
}
