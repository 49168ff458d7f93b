// Directories in virtual time: hosts, links with delay and loss, and a trust that is cheap to check.

import type { Primitives } from '../../lib/crypto/primitives.js'
import { Directory, directoryDefaults, type DirectoryOptions } from '../../lib/service/directory.js'
import type { RecordChange } from '../../lib/service/host-records.js'
import type { Trust } from '../../lib/service/trust.js'
import { concat, utf8 } from '../../lib/wire/bytes.js'
import { CONTROL_MESSAGE_MAX } from '../../lib/wire/constants.js'
import { fromHex, hostId, toHex, type HostId } from '../../lib/wire/ids.js'
import type { SignedBlob } from '../../lib/wire/signed.js'

/** Uniform in [0, 1), the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Signatures are hashes with the host's ID as key: forgeable, but a changed byte is noticed as with real ones. */
export class FakeTrust implements Trust {
  readonly #members = new Map<HostId, Uint8Array>()
  readonly #revoked = new Map<string, Uint8Array>()
  readonly #rules = new Map<string, Uint8Array>()

  constructor(
    readonly self: HostId,
    readonly primitives: Pick<Primitives, 'blake2b'>,
  ) {
    this.learn(FakeTrust.membershipOf(self), self)
  }

  static membershipOf(host: HostId, version = 1): Uint8Array {
    return concat([utf8('member '), fromHex(host), Uint8Array.of(version)])
  }

  sign(label: string, body: Uint8Array): SignedBlob {
    return { body, signature: this.#signature(label, body, this.self) }
  }
  verify(label: string, blob: SignedBlob, host: HostId): boolean {
    return toHex(blob.signature) === toHex(this.#signature(label, blob.body, host))
  }
  learn(membership: Uint8Array, expected: HostId): boolean {
    const version = membership.at(-1) ?? 0
    if (toHex(membership) !== toHex(FakeTrust.membershipOf(expected, version))) return false
    if ((this.#members.get(expected)?.at(-1) ?? 0) >= version) return false
    this.#members.set(expected, membership)
    return true
  }
  membership(host: HostId): Uint8Array | undefined {
    return this.#revoked.has(host) ? undefined : this.#members.get(host)
  }
  revocations(): readonly Uint8Array[] {
    return [...this.#revoked.values()]
  }
  revocationDigest(): Uint8Array {
    return this.primitives.blake2b(utf8([...this.#revoked.keys()].sort().join(' ')), 32)
  }
  revoke(item: Uint8Array): boolean {
    const host = toHex(item)
    if (item.length !== 32 || this.#revoked.has(host)) return false
    this.#revoked.set(host, item)
    return true
  }

  /** Any three bytes or more are a rule. */
  nameRules(): readonly Uint8Array[] {
    return [...this.#rules.values()]
  }
  nameRuleDigest(): Uint8Array {
    return this.primitives.blake2b(utf8([...this.#rules.keys()].sort().join(' ')), 32)
  }
  addNameRule(item: Uint8Array): boolean {
    if (item.length < 3 || this.#rules.has(toHex(item))) return false
    this.#rules.set(toHex(item), item)
    return true
  }

  #signature(label: string, body: Uint8Array, host: HostId): Uint8Array {
    return this.primitives.blake2b(concat([utf8(label), fromHex(host), body]), 64)
  }
}

export interface Link {
  readonly delay: () => number
  readonly loss: number
}

/** One host of the world. `sequence` is what it has on disk. */
export class SimHost {
  sequence = 0
  trust: FakeTrust
  directory: Directory
  readonly changes: RecordChange[] = []
  readonly peers = new Set<SimHost>()

  constructor(
    readonly world: DirectoryWorld,
    readonly id: HostId,
  ) {
    this.trust = new FakeTrust(id, world.primitives)
    this.directory = this.#start()
  }

  /** A new process on this host; `lost`: its disk is gone too. */
  restart(lost: boolean): void {
    const peers = [...this.peers]
    for (const peer of peers) this.world.disconnect(this, peer)
    if (lost) this.sequence = 0
    this.trust = new FakeTrust(this.id, this.world.primitives)
    this.directory = this.#start()
    for (const peer of peers) this.world.connect(this, peer)
  }

  #start(): Directory {
    const sequence = {
      next: () => ++this.sequence,
      raise: (above: number) => {
        this.sequence = Math.max(this.sequence, above)
      },
    }
    return new Directory(
      this.world.options,
      { trust: this.trust, sequence, hasher: this.world.primitives, random: this.world.random },
      {
        send: (to, message) => this.world.send(this, to, message),
        changed: (change) => this.changes.push(change),
        revoked: () => undefined,
        namesRuled: () => undefined,
      },
    )
  }
}

interface Delivery {
  readonly at: number
  readonly from: SimHost
  readonly to: SimHost
  readonly bytes: Uint8Array
}

export class DirectoryWorld {
  now = 0
  messages = 0
  loss = 0
  readonly hosts: SimHost[] = []
  readonly random: () => number
  readonly options: DirectoryOptions
  #deliveries: Delivery[] = []

  constructor(
    readonly primitives: Pick<Primitives, 'blake2b'>,
    seed: number,
    count: number,
    readonly delay: (random: () => number) => number,
    options: Partial<DirectoryOptions> = {},
  ) {
    this.random = seeded(seed)
    this.options = { ...directoryDefaults, ...options }
    for (let i = 0; i < count; i++) {
      this.hosts.push(new SimHost(this, hostId(primitives.blake2b(utf8(`host ${i} of ${seed}`), 32))))
    }
  }

  /** A session comes up: as in the handshake, each learns the other's membership, unless that is revoked. */
  connect(a: SimHost, b: SimHost): void {
    if (a === b || a.peers.has(b)) return
    a.trust.learn(b.trust.membership(b.id) ?? FakeTrust.membershipOf(b.id), b.id)
    b.trust.learn(a.trust.membership(a.id) ?? FakeTrust.membershipOf(a.id), a.id)
    if (a.trust.membership(b.id) === undefined || b.trust.membership(a.id) === undefined) return
    a.peers.add(b)
    b.peers.add(a)
    a.directory.peerUp(b.id, this.now)
    b.directory.peerUp(a.id, this.now)
  }

  disconnect(a: SimHost, b: SimHost): void {
    a.peers.delete(b)
    b.peers.delete(a)
    a.directory.peerDown(b.id)
    b.directory.peerDown(a.id)
    this.#deliveries = this.#deliveries.filter((d) => !((d.from === a && d.to === b) || (d.from === b && d.to === a)))
  }

  send(from: SimHost, to: HostId, bytes: Uint8Array): void {
    if (bytes.length > CONTROL_MESSAGE_MAX) throw new Error(`message of ${bytes.length} bytes`)
    this.messages++
    const peer = [...from.peers].find((host) => host.id === to)
    if (peer === undefined || this.random() < this.loss) return
    this.#deliveries.push({ at: this.now + this.delay(this.random), from, to: peer, bytes })
  }

  /** Runs until the virtual time. */
  run(until: number): void {
    for (;;) {
      let next = until
      let delivery: Delivery | undefined
      for (const one of this.#deliveries) {
        if (one.at < next) {
          next = one.at
          delivery = one
        }
      }
      let timer: SimHost | undefined
      for (const host of this.hosts) {
        const at = Math.max(this.now, host.directory.nextTimeout())
        if (at < next) {
          next = at
          timer = host
          delivery = undefined
        }
      }
      this.now = next
      if (timer !== undefined) {
        timer.directory.handleTimeout(this.now)
        // A timer that does not move on would hang the simulation.
        if (timer.directory.nextTimeout() <= this.now) throw new Error('a timer stays due')
      } else if (delivery !== undefined) {
        const index = this.#deliveries.indexOf(delivery)
        this.#deliveries.splice(index, 1)
        delivery.to.directory.receive(delivery.from.id, delivery.bytes, this.now)
      } else return
    }
  }
}

/** What a host's directory says about all hosts: `host key text`, sorted. */
export function view(host: SimHost): string[] {
  const lines: string[] = []
  for (const id of host.directory.hosts()) {
    for (const record of host.directory.recordsOf(id))
      lines.push(`${id.slice(0, 8)} ${record.key} ${JSON.stringify(record.payload)}`)
  }
  return lines.sort()
}
