// Real hosts in one process, joined by memory instead of sockets, with the native codec. Counted is the processor time inside the hosts and of handing over what they send, in one
// piece whoever it is for; who gets it, and asking the clock, is not.

import { codecAddon, NativeCodec } from '../../daemon/native-codec.js'
import { tableMemory } from '../../daemon/table-memory.js'
import { HostKey } from '../../lib/crypto/host-key.js'
import { FlowMemory } from '../../lib/flow/flow-memory.js'
import { Host } from '../../lib/host/host.js'
import { PEER_CAPACITY, type HostOptions } from '../../lib/host/host-options.js'
import type { HostId, ServiceId } from '../../lib/wire/ids.js'
import {
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  PACKET_WORDS,
  frameRuns,
  Run,
  RUN_WORDS,
  type FrameRuns,
  type PacketBatch,
} from '../../lib/wire/batch.js'
import { HostWorld } from '../sim/host-world.js'
import { locatorOf } from '../sim/underlay.js'

const DATAGRAMS = 8
const DATAGRAM_BYTES = 65_536
const QUEUE_BYTES = 8 * 1024 * 1024
const QUEUE_WORDS = 4
const QUEUE = 8_192

/** A frame run under way, or a packet written to a TUN: bytes one after the other, and where each begins. */
export class Queue {
  readonly data = new Uint8Array(QUEUE_BYTES)
  readonly view = new DataView(this.data.buffer)
  readonly desc = new Int32Array(QUEUE * QUEUE_WORDS)
  count = 0
  used = 0
  /** Bytes since it was cleared. */
  bytesAdded = 0

  add(data: Uint8Array, offset: number, length: number, stride: number, from: number): void {
    if (this.count >= QUEUE || this.used + length > QUEUE_BYTES) throw new Error('queue full')
    this.data.set(data.subarray(offset, offset + length), this.used)
    const base = this.count++ * QUEUE_WORDS
    this.desc[base] = this.used
    this.desc[base + 1] = length
    this.desc[base + 2] = stride
    this.desc[base + 3] = from
    this.used = (this.used + length + 3) & ~3
    this.bytesAdded += length
  }

  clear(): void {
    this.count = 0
    this.used = 0
    this.bytesAdded = 0
  }
}

export interface Offered {
  readonly name: string
  readonly ports: readonly number[]
}

/** A host whose TUN and socket are queues. */
export class MemoryHost {
  readonly host: Host
  readonly address: string
  /** What was written to its TUN, until somebody takes it. */
  readonly written = new Queue()
  /** Frames that are on the way to it. */
  readonly incoming = new Queue()
  /** Frames it has sent. */
  framesSent = 0
  /** What it has sent and nobody has carried yet. */
  readonly #sent = frameRuns(QUEUE_BYTES, QUEUE)
  /** Frames to an address that is nobody's, by address record. */
  strayed: ((record: Uint8Array, data: Uint8Array, offset: number, length: number, stride: number) => void) | undefined
  readonly key: HostKey
  #stamp = 0n
  #sequence = 0

  constructor(
    readonly link: MemoryLink,
    readonly number: number,
    options: HostOptions,
  ) {
    const { world } = link
    this.key = HostKey.generate(world.primitives)
    this.address = world.freshAddress()
    const served = new Map<ServiceId, readonly number[]>()
    this.#served = served
    this.host = new Host(
      {
        primitives: { ...world.primitives, randomBytes: link.randomBytes },
        codec: new NativeCodec(codecAddon()),
        hostKey: this.key,
        trust: world.trust(this.key.id, `h${number}`),
        io: {
          writeTun: (batch) => this.#writeTun(batch),
          sendFrames: (runs) => this.#sendFrames(runs),
        },
        events: {
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
        },
        endpoints: {
          find: (service, _protocol, port) =>
            served.get(service)?.includes(port) === true
              ? { family: 4, address: this.host.addresses.served(service, 4), port }
              : 'refused',
        },
        flowMemory: tableMemory(FlowMemory.bytesFor(options.flowCapacity, options.peerCapacity ?? PEER_CAPACITY)),
        wallNow: () => world.wallNow,
        random: world.random,
        nextStamp: () => ++this.#stamp,
        sequence: {
          next: () => ++this.#sequence,
          raise: (above) => {
            this.#sequence = Math.max(this.#sequence, above)
          },
        },
      },
      options,
    )
    this.host.setLocators([locatorOf(this.address)], link.now)
  }

  readonly #served: Map<ServiceId, readonly number[]>

  get id(): HostId {
    return this.host.id
  }

  offer({ name, ports }: Offered): ServiceId {
    const service = this.link.world.service(name)
    this.#served.set(service, ports)
    const mappings = ports.map((port) => ({ protocol: 'tcp' as const, port, localPort: port }))
    const offer = {
      service,
      name,
      ports: mappings,
      priority: 100,
      weight: 100,
      state: 'up' as const,
      move: 'drain' as const,
    }
    this.host.offer(offer, this.link.now)
    return service
  }

  /** What the device does before {@link Host.wireRead}: up to eight datagrams, from `from` on. Returns the first that is left. */
  fillWire(from: number): number {
    const { incoming } = this
    const { wireIn } = this.host.dataPath
    let next = from
    wireIn.count = 0
    while (next < incoming.count && wireIn.count < DATAGRAMS) {
      const base = next++ * QUEUE_WORDS
      const offset = incoming.desc[base]!
      const length = incoming.desc[base + 1]!
      const stride = incoming.desc[base + 2]!
      const at = wireIn.count * DATAGRAM_BYTES
      wireIn.data.set(incoming.data.subarray(offset, offset + length), at)
      wireIn.desc.set([at, length, length > stride ? stride : 0, 0], wireIn.count * DATAGRAM_WORDS)
      wireIn.addresses.set(this.link.records[incoming.desc[base + 3]!]!, wireIn.count * ADDRESS_RECORD)
      wireIn.count++
    }
    return next
  }

  #writeTun(batch: PacketBatch): void {
    for (let i = 0; i < batch.count; i++) {
      const length = batch.desc[i * PACKET_WORDS + 1]!
      if (length >= 0) this.written.add(batch.data, batch.desc[i * PACKET_WORDS]!, length, 0, 0)
    }
  }

  #sendFrames(runs: FrameRuns): void {
    const sent = this.#sent
    if (sent.count + runs.count > QUEUE || sent.used + runs.data.length > QUEUE_BYTES) throw new Error('queue full')
    // Runs are made one behind the other.
    const last = (runs.count - 1) * RUN_WORDS
    const [from, to] = [runs.desc[Run.offset]!, runs.desc[last + Run.offset]! + runs.desc[last + Run.length]!]
    sent.data.set(runs.data.subarray(from, to), sent.used)
    sent.desc.set(runs.desc.subarray(0, runs.count * RUN_WORDS), sent.count * RUN_WORDS)
    for (let i = 0; i < runs.count; i++) sent.desc[(sent.count + i) * RUN_WORDS + Run.offset]! += sent.used - from
    sent.count += runs.count
    sent.used += to - from
  }

  /** Brings what it has sent to where it goes. */
  carry(): void {
    const { data, desc, count } = this.#sent
    const { records } = this.host.peers.addresses
    for (let base = 0; base < count * RUN_WORDS; base += RUN_WORDS) {
      const offset = desc[base + Run.offset]!
      const length = desc[base + Run.length]!
      const stride = desc[base + Run.stride]!
      const slot = desc[base + Run.addressSlot]!
      this.framesSent += Math.ceil(length / Math.max(1, stride))
      const to = this.link.at(records, slot * ADDRESS_RECORD)
      if (to !== undefined) to.incoming.add(data, offset, length, stride, this.number)
      else {
        const record = records.subarray(slot * ADDRESS_RECORD, (slot + 1) * ADDRESS_RECORD)
        this.strayed?.(record, data, offset, length, stride)
      }
    }
    this.#sent.count = 0
    this.#sent.used = 0
  }
}

/** The hosts, their time, and the processor time that was spent inside them. */
export class MemoryLink {
  now = 1_000
  readonly hosts: MemoryHost[] = []
  /** Address records by number: first those of the hosts. */
  readonly records: Uint8Array[] = []
  /** µs of processor time inside the hosts since {@link start}. */
  spent = 0

  /** What asking for the processor time costs, µs. */
  #clock = 0

  constructor(
    readonly world: HostWorld,
    /** As a daemon's; the world's own are made of its seed, slowly. */
    readonly randomBytes: (length: number) => Uint8Array,
  ) {
    const count = 20_000
    for (let i = 0; i < count; i++) this.counted(() => undefined)
    this.#clock = this.spent / count
    this.spent = 0
  }

  add(options: HostOptions): MemoryHost {
    const host = new MemoryHost(this, this.hosts.length, options)
    this.hosts.push(host)
    this.records.push(this.world.record(host.address))
    return host
  }

  /** Host at an address record. Hosts' addresses differ in their last two bytes. */
  at(records: Uint8Array, offset: number): MemoryHost | undefined {
    for (let i = 0; i < this.hosts.length; i++) {
      const record = this.records[i]!
      let same = true
      for (let j = 8; j < 12 && same; j++) same = record[j] === records[offset + j]
      if (same) return this.hosts[i]
    }
    return undefined
  }

  /** Calls into a host, counted. */
  counted(work: () => void): void {
    const before = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(before)
    this.spent += user + system - this.#clock
    for (const host of this.hosts) host.carry()
  }

  /** Lets a host read what has come for it; true: there was something. */
  deliver(to: MemoryHost): boolean {
    const { count } = to.incoming
    if (count === 0) return false
    // The host may send to itself or be answered meanwhile: only what is there now.
    this.counted(() => {
      for (let next = 0; next < to.incoming.count;) {
        next = to.fillWire(next)
        to.host.wireRead(this.now)
      }
    })
    to.incoming.clear()
    return true
  }

  /** Lets all frames arrive. */
  settle(): void {
    for (let any = true; any;) {
      any = false
      for (const host of this.hosts) host.carry()
      for (const host of this.hosts) any = this.deliver(host) || any
    }
  }

  /** Some time goes by; what is due is done. */
  pass(ms: number): void {
    this.now += ms
    for (const { host } of this.hosts) {
      if (host.nextTimeout() <= this.now) this.counted(() => host.handleTimeout(this.now))
    }
    this.settle()
  }

  until(condition: () => boolean): void {
    for (let i = 0; i < 2_000; i++) {
      if (condition()) return
      this.pass(10)
    }
    throw new Error('it does not come about')
  }
}
