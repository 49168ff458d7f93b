// A host that has sessions and nothing else, and a network in virtual time that loses, repeats and reorders datagrams. Everything random comes from one seed.

import { Authority } from '../../lib/crypto/authority.js'
import { HostKey } from '../../lib/crypto/host-key.js'
import { issueMembership } from '../../lib/crypto/membership.js'
import { IPV4_POOL, ZONE } from '../../lib/crypto/network-profile.js'
import { portableAeads, PortableCodec } from '../../lib/crypto/portable-codec.js'
import type { Primitives } from '../../lib/crypto/primitives.js'
import { TrustStore } from '../../lib/crypto/trust.js'
import { encodeLocator } from '../../lib/path/locator.js'
import { PeerTable } from '../../lib/path/peers.js'
import type { JoinResponder, SessionOptions } from '../../lib/session/session-table.js'
import { SessionTable } from '../../lib/session/session-table.js'
import type { Established } from '../../lib/session/session-sink.js'
import {
  CLEAR,
  datagramBatch,
  frameRuns,
  Open,
  OPEN_WORDS,
  openBatch,
  OPENED,
  RUN_WORDS,
  Seal,
  sealBatch,
} from '../../lib/wire/batch.js'
import { FrameType, INNER_HEADER, INNER_KIND, Kind } from '../../lib/wire/constants.js'
import { DropCounters, dropReasons } from '../../lib/wire/drop.js'
import type { HostId } from '../../lib/wire/ids.js'
import { seededRandom } from '../tools/seeded-random.js'

/** Wall time at virtual time 0, seconds since the epoch. */
export const WALL_START = 1_800_000_000

export interface LinkOptions {
  readonly loss?: number
  readonly duplicate?: number
  /** One way, ms. */
  readonly delay?: number
  /** Added at random, so that datagrams overtake each other; 0: in order. */
  readonly jitter?: number
}

/** A datagram as a test sees it pass. */
export interface Passing {
  readonly from: string
  readonly to: string
  readonly bytes: Uint8Array
}

interface Event {
  readonly at: number
  readonly order: number
  readonly run: () => void
}

export class VirtualNetwork {
  now = 1000
  link: LinkOptions = {}
  /** Every datagram sent, before the link does anything to it; false: it is lost. */
  filter: (passing: Passing) => boolean = () => true
  readonly random: () => number
  readonly primitives: Primitives
  readonly authority: Authority
  readonly issuerKey: HostKey
  readonly certificate: Uint8Array
  readonly hosts = new Map<string, SessionHost>()
  readonly #events: Event[] = []
  #order = 0
  #serial = 0

  constructor(
    sodium: Primitives,
    readonly seed: number,
  ) {
    const random = seededRandom(seed)
    this.random = random
    this.primitives = { ...sodium, randomBytes: (length) => Uint8Array.from({ length }, () => random() * 256) }
    this.authority = Authority.generate(this.primitives)
    this.issuerKey = HostKey.generate(this.primitives)
    this.certificate = this.authority.certifyIssuer({
      host: this.issuerKey.id,
      tags: ['*'],
      notBefore: 0,
      notAfter: WALL_START + 10 * 86_400,
      serial: 1,
    })
  }

  get wallNow(): number {
    return WALL_START + this.now / 1000
  }

  trust(): TrustStore {
    const profile = { name: 'test', ipv4Pool: IPV4_POOL, zone: ZONE }
    return new TrustStore(this.primitives, { authority: this.authority.publicKey, profile })
  }

  membership(host: HostId, name: string, notAfter = WALL_START + 86_400): Uint8Array {
    const issuer = { certificate: this.certificate, authority: this.authority.publicKey }
    const serial = ++this.#serial
    return issueMembership(this.primitives, this.issuerKey, issuer, {
      host,
      name,
      tags: [],
      notBefore: 0,
      notAfter,
      serial,
    })
  }

  host(name: string, options: HostOptions = {}): SessionHost {
    const address = `10.0.0.${this.hosts.size + 1}:7474`
    const host = new SessionHost(this, name, address, options)
    this.hosts.set(address, host)
    return host
  }

  at(time: number, run: () => void): void {
    const event = { at: time, order: this.#order++, run }
    let i = this.#events.length
    while (i > 0 && this.#events[i - 1]!.at > time) i--
    this.#events.splice(i, 0, event)
  }

  send(from: string, to: string, bytes: Uint8Array): void {
    const copy = bytes.slice()
    if (!this.filter({ from, to, bytes: copy })) return
    const { loss = 0, duplicate = 0, delay = 5, jitter = 0 } = this.link
    const copies = this.random() < duplicate ? 2 : 1
    for (let i = 0; i < copies; i++) {
      if (this.random() < loss) continue
      this.at(this.now + delay + this.random() * jitter, () => this.hosts.get(to)?.receive(copy.slice(), from))
    }
  }

  /** Runs until the virtual time, or until nothing is left to happen. */
  run(until: number): void {
    for (;;) {
      let host: SessionHost | undefined
      let next = this.#events[0]?.at ?? Infinity
      for (const candidate of this.hosts.values()) {
        const due = candidate.table.nextTimeout()
        if (due < next) {
          next = due
          host = candidate
        }
      }
      if (next > until) break
      this.now = Math.max(this.now, next)
      if (host !== undefined) host.table.handleTimeout(this.now)
      else this.#events.shift()!.run()
    }
    this.now = until
  }

  runFor(ms: number): void {
    this.run(this.now + ms)
  }
}

export interface HostOptions {
  readonly seed?: Uint8Array
  readonly membership?: Uint8Array
  readonly options?: SessionOptions
  readonly trust?: TrustStore
  readonly issuer?: (host: { send(bytes: Uint8Array, address: Uint8Array): void; key: HostKey }) => JoinResponder
}

export function record(address: string): Uint8Array {
  const [host, port] = address.split(':')
  return encodeLocator({ address: host!, port: Number(port) })
}

function text(record: Uint8Array): string {
  return `${record.slice(8, 12).join('.')}:${(record[2]! << 8) | record[3]!}`
}

export class SessionHost {
  readonly key: HostKey
  readonly trust: TrustStore
  table!: SessionTable
  peers!: PeerTable
  drops = new DropCounters()
  /** Sink events since the last start, as `established B` and so on. */
  events: string[] = []
  sessions: Established[] = []
  /** Texts that came, in their order. */
  received: string[] = []
  #codec!: PortableCodec
  /** Persisted ahead, so it goes on above after a restart. */
  #stamp = 0n
  readonly #runs = frameRuns(65_536, 16)
  readonly #open = openBatch(2 ** 18, 128)
  readonly #datagrams = datagramBatch(1)

  constructor(
    readonly network: VirtualNetwork,
    readonly name: string,
    public address: string,
    readonly options: HostOptions,
  ) {
    this.key =
      options.seed === undefined ? HostKey.generate(network.primitives) : new HostKey(network.primitives, options.seed)
    this.trust = options.trust ?? network.trust()
    this.start()
  }

  /** Starts, or starts again with nothing but what is on disk. */
  start(): void {
    const { network, key, options } = this
    const { primitives } = network
    const membership = options.membership ?? network.membership(key.id, this.name.toLowerCase())
    this.peers = new PeerTable(key.id, 64)
    this.#codec = new PortableCodec(portableAeads(primitives))
    this.events = []
    this.sessions = []
    this.received = []
    const send = (bytes: Uint8Array, address: Uint8Array) => network.send(this.address, text(address), bytes)
    const issuer = options.issuer?.({ send, key })
    this.table = new SessionTable(
      {
        primitives,
        codec: this.#codec,
        hostKey: key,
        network: this.trust.network,
        membership,
        trust: this.trust,
        peers: this.peers,
        drops: this.drops,
        nextStamp: () => ++this.#stamp,
        ...(issuer === undefined ? {} : { issuer }),
        sink: {
          sendDatagram: send,
          established: (peer, session) => {
            this.sessions.push(session)
            this.#note('established', peer)
            const slot = this.peers.addresses.acquire(session.address)
            this.peers.setPath(peer, slot)
            if (session.initiator) this.#sendFrame(peer, Kind.empty, '')
          },
          confirmed: (peer) => this.#note('confirmed', peer),
          lost: (peer, reason) => this.#note('lost', peer, reason),
          failed: (peer, reason) => this.#note('failed', peer, reason),
          proveAlive: (peer) => this.#sendFrame(peer, Kind.empty, ''),
        },
      },
      options.options,
    )
  }

  connect(other: SessionHost, ...addresses: string[]): number {
    const peer = this.peers.add(other.key.id)
    const records = (addresses.length === 0 ? [other.address] : addresses).map(record)
    this.table.connect(peer, records, this.network.now)
    return peer
  }

  peer(other: SessionHost): number {
    return this.peers.indexOf(other.key.id)
  }

  info(other: SessionHost) {
    return this.table.info(this.peer(other), this.network.now)
  }

  /** Sends a text; false: no session. */
  send(other: SessionHost, message: string): boolean {
    const peer = this.peer(other)
    if (peer < 0 || this.peers.sealSlot[peer]! < 0) return false
    this.#sendFrame(peer, Kind.control, message)
    this.table.dataSent(peer, this.network.now)
    return true
  }

  receive(bytes: Uint8Array, from: string): void {
    const { network, table } = this
    const batch = this.#datagrams
    const address = record(from)
    batch.data.set(bytes)
    batch.desc.set([0, bytes.length, 0, 0])
    batch.addresses.set(address)
    batch.count = 1
    this.#codec.open(batch, this.#open)
    for (let i = 0; i < this.#open.count; i++) {
      const desc = this.#open.desc.subarray(i * OPEN_WORDS)
      const status = desc[Open.status]!
      const offset = desc[Open.offset]!
      const length = desc[Open.length]!
      if (status === CLEAR) table.receive(batch.data, offset, length, address, network.now, network.wallNow)
      else if (status !== OPENED) this.drops.add(dropReasons[-status - 1]!)
      else {
        const peer = table.transportSeen(desc[Open.lane]!, network.now)
        const entry = this.#open.data.subarray(offset, offset + length)
        if ((entry[INNER_KIND]! & 15) === Kind.empty) continue
        table.dataReceived(peer, network.now)
        this.received.push(new TextDecoder().decode(entry.subarray(INNER_HEADER)))
      }
    }
  }

  #sendFrame(peer: number, kind: Kind, message: string): void {
    const payload = new TextEncoder().encode(message)
    const bytes = new Uint8Array(INNER_HEADER + payload.length)
    bytes[INNER_KIND] = kind
    bytes.set(payload, INNER_HEADER)
    const batch = sealBatch(bytes, 1)
    batch.desc[Seal.length] = bytes.length
    batch.desc[Seal.headerLength] = INNER_HEADER
    batch.desc[Seal.sealSlot] = this.peers.sealSlot[peer]!
    batch.desc[Seal.addressSlot] = this.peers.addressSlot[peer]!
    batch.count = 1
    this.#runs.count = 0
    this.#runs.used = 0
    this.#codec.seal(batch, 0, this.#runs)
    for (let i = 0; i < this.#runs.count; i++) {
      const run = this.#runs.desc.subarray(i * RUN_WORDS)
      const frame = this.#runs.data.subarray(run[0]!, run[0]! + run[1]!)
      this.network.send(this.address, text(this.peers.addresses.record(run[3]!)), frame)
    }
  }

  #note(event: string, peer: number, reason?: string): void {
    const id = this.peers.hostId(peer)
    const name = [...this.network.hosts.values()].find((host) => host.key.id === id)?.name ?? 'stranger'
    this.events.push(reason === undefined ? `${event} ${name}` : `${event} ${name} ${reason}`)
  }
}

export const isType = (passing: Passing, type: FrameType) => passing.bytes[0] === type
