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
import type { Host } from '../../lib/host/host.js'
import type { HostOptions } from '../../lib/host/host-options.js'
import { parseServiceName, serviceIdOf } from '../../lib/service/service-id.js'
import type { HostId, ServiceId } from '../../lib/wire/ids.js'
import { seededRandom } from '../tools/seeded-random.js'
import { standInAead, standInPrimitives } from './stand-in-crypto.js'
import { Underlay, type LinkOptions } from './underlay.js'
import { WorldHost } from './world-host.js'

export type { LinkOptions, Passing } from './underlay.js'
export type { WorldHost } from './world-host.js'

/** Wall time at virtual time 0, seconds since the epoch. */
export const WALL_START = 1_800_000_000

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

export class HostWorld extends Underlay {
  /** Whether what a host says in the directory is heard by the other; set before the hosts start. Where somebody is not heard, all count as told everything. */
  hears: ((host: WorldHost, from: WorldHost) => boolean) | undefined
  readonly primitives: Primitives
  readonly authority: Authority
  readonly hosts: WorldHost[] = []
  readonly #issuer: HostKey
  readonly #certificate: Uint8Array
  #serial = 1

  constructor(
    sodium: Primitives,
    readonly seed: number,
    readonly options: WorldOptions = {},
  ) {
    const random = seededRandom(seed)
    super(random, options.link ?? {})
    const crypto = options.realCrypto === true ? sodium : standInPrimitives(sodium)
    this.primitives = { ...crypto, randomBytes: (length) => Uint8Array.from({ length }, () => random() * 256) }
    this.authority = Authority.generate(this.primitives)
    this.#issuer = HostKey.generate(this.primitives)
    const validity = { notBefore: 0, notAfter: WALL_START + (options.certificateSeconds ?? 10 * 86_400) }
    this.#certificate = this.authority.certifyIssuer({ host: this.#issuer.id, tags: ['*'], ...validity, serial: 1 })
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
