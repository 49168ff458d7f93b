import { z } from 'zod'
import { STAMP_MAX } from '../crypto/stamp.js'
import { WallSeconds } from '../crypto/validity.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import { fitsRecord } from '../service/record.js'
import { TAGS_MAX, type NameClaim } from '../service/registration.js'
import { parseServiceName } from '../service/service-id.js'
import type { Stamps } from '../service/stamps.js'
import type { MemberTrust } from '../service/trust.js'
import { SERVICE_ID_LENGTH } from '../wire/constants.js'
import { fromHex, serviceId, type HostId, type ServiceId } from '../wire/ids.js'
import type { IssuerAnswer } from '../wire/issuer-message.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from '../wire/pack.js'
import type { IssuerDesk } from './issuer-desk.js'
import type { IssuerLine } from './issuer-line.js'
import type { IssuingOptions } from './issuing-options.js'

export interface NameClaimsComponents {
  readonly self: HostId
  readonly members: MemberTrust
  readonly catalogue: ServiceCatalogue
  readonly stamps: Stamps
  readonly desk: IssuerDesk
  readonly line: IssuerLine
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** The claim says something else now. */
  readonly publish: (claim: NameClaim, now: number) => void
  /** What {@link NameClaims.encode} gives is to be kept over a restart. */
  readonly changed: () => void
}

interface Own {
  /** undefined: not offered at present, known from before a restart. */
  name: string | undefined
  readonly since: number
  stamp: Uint8Array | undefined
  /** When to look for a stamp; Infinity: there is none to be had, or one is there. */
  lookAt: number
  failures: number
  /** No issuer could be asked: the first that comes up will be. */
  waits: boolean
}

/** Claims kept of services that are not offered any more, and those that are. */
const CLAIMS_MAX = 256
/** Bytes of an encoded set of claims. */
const ENCODED_MAX = CLAIMS_MAX * (STAMP_MAX + 64)
/** After a refusal that will not be another one soon. */
const REFUSED_MS = 60_000
const VERSION = 1

/** What this host claims: since when, and with which stamp. Asks issuers for the stamps that are missing, again and again, ever more rarely. */
export class NameClaims {
  readonly #c: NameClaimsComponents
  readonly #options: IssuingOptions
  readonly #own = new Map<ServiceId, Own>()
  #lookAt = Infinity

  constructor(components: NameClaimsComponents, options: IssuingOptions, saved: Uint8Array | undefined) {
    this.#c = components
    this.#options = options
    const value = saved && unpack(saved, ENCODED_MAX, Saved)
    for (const [service, since, stamp] of value?.[1] ?? []) {
      const own = { name: undefined, since, stamp: stamp ?? undefined, lookAt: Infinity, failures: 0, waits: false }
      this.#own.set(serviceId(service), own)
    }
  }

  /** What is to be kept over a restart. */
  encode(): Uint8Array {
    const rows = [...this.#own].map(([service, { since, stamp }]) => [fromHex(service), since, stamp ?? null])
    return pack([VERSION, rows.slice(-CLAIMS_MAX)])
  }

  /** This host's claim of the name, made now if there is none yet. Once it is published, {@link look} for its stamp. */
  claim(service: ServiceId, name: string): NameClaim {
    let own = this.#own.get(service)
    if (own === undefined) {
      this.#makeRoom()
      const since = Math.floor(this.#c.wallNow())
      own = { name, since, stamp: undefined, lookAt: Infinity, failures: 0, waits: false }
      this.#own.set(service, own)
      this.#c.changed()
    }
    own.name = name
    return this.#payload(service, name, own)
  }

  /** The name is given up, and its stamp with it. */
  drop(service: ServiceId): void {
    if (this.#own.delete(service)) this.#c.changed()
  }

  /** Sees to it that the claim gets a stamp, if it has none that is good. */
  look(service: ServiceId, now: number): void {
    const own = this.#own.get(service)
    if (own?.name === undefined || !this.#lacksStamp(service, own)) return
    this.#lookAgain(own, now)
    this.handleTimeout(now)
  }

  /** All claims are looked at: whose word counts may have changed. */
  lookAtAll(now: number): void {
    for (const [service, own] of this.#own) {
      if (own.lookAt === Infinity && own.name !== undefined && this.#lacksStamp(service, own))
        this.#lookAgain(own, now + this.#options.stampRetryMinMs)
    }
  }

  /** An issuer can be asked now. */
  issuerUp(now: number): void {
    for (const own of this.#own.values()) {
      if (!own.waits) continue
      own.failures = 0
      this.#lookAgain(own, now)
    }
  }

  /** Whether a stamp is missing for want of an issuer to ask. */
  get waits(): boolean {
    for (const own of this.#own.values()) if (own.waits) return true
    return false
  }

  nextTimeout(): number {
    return this.#lookAt
  }

  handleTimeout(now: number): void {
    if (now < this.#lookAt) return
    this.#lookAt = Infinity
    for (const [service, own] of this.#own) {
      if (own.lookAt <= now) this.#ask(service, own, now)
      this.#lookAt = Math.min(this.#lookAt, own.lookAt)
    }
  }

  #ask(service: ServiceId, own: Own, now: number): void {
    const { self, catalogue, desk, line } = this.#c
    own.lookAt = Infinity
    own.waits = false
    if (own.name === undefined || !this.#lacksStamp(service, own)) return
    const first = catalogue.firstClaim(service)
    // Another host's stamp is older than any that we would get.
    if (first?.title !== undefined && first.host !== self) return this.#later(own, REFUSED_MS, now)
    if (desk.issuer !== undefined) {
      const outcome = desk.stamp(self, service, now)
      if (outcome instanceof Uint8Array) this.#stamped(service, outcome, now)
      else this.#later(own, outcome.reason === 'claimed' ? REFUSED_MS : 0, now)
      return
    }
    const answered = (answer: IssuerAnswer | undefined, at: number) => this.#answered(service, answer, at)
    if (line.ask({ kind: 'stamp', service }, now, answered)) return
    own.waits = true
    this.#later(own, 0, now)
  }

  #answered(service: ServiceId, answer: IssuerAnswer | undefined, now: number): void {
    const own = this.#own.get(service)
    if (own === undefined) return
    if (answer?.kind === 'stamped') return this.#stamped(service, answer.stamp, now)
    this.#later(own, answer?.kind === 'refused' && answer.reason === 'claimed' ? REFUSED_MS : 0, now)
  }

  #stamped(service: ServiceId, stamp: Uint8Array, now: number): void {
    const { self, stamps, publish, changed } = this.#c
    const own = this.#own.get(service)
    if (own?.name === undefined) return
    const opened = stamps.open(self, { service, stamp })
    if (opened === undefined || stamps.title(opened)?.firm !== true) return this.#later(own, REFUSED_MS, now)
    own.stamp = stamp
    own.failures = 0
    changed()
    publish(this.#payload(service, own.name, own), now)
  }

  #later(own: Own, leastMs: number, now: number): void {
    const { stampRetryMinMs, stampRetryMaxMs } = this.#options
    const delay = Math.min(stampRetryMinMs * 2 ** Math.min(own.failures++, 20), stampRetryMaxMs)
    this.#lookAgain(own, now + Math.max(leastMs, delay))
  }

  #lookAgain(own: Own, at: number): void {
    own.lookAt = at
    this.#lookAt = Math.min(this.#lookAt, at)
  }

  /** Self-certifying names belong to a key: nobody claims them. */
  #lacksStamp(service: ServiceId, own: Own): boolean {
    const parsed = parseServiceName(own.name ?? '')
    if ('problem' in parsed || parsed.kind === 'key') return false
    const opened = own.stamp && this.#c.stamps.open(this.#c.self, { service, stamp: own.stamp })
    return opened === undefined || this.#c.stamps.title(opened)?.firm !== true
  }

  /** The first claim keeps the name for hosts that share a tag with this one; where there are no tags, for every member. A record has no room for everything: tags go before the stamp does. */
  #payload(service: ServiceId, name: string, { since, stamp }: Own): NameClaim {
    const { members, self } = this.#c
    const tags = (members.member(self)?.tags ?? []).slice(0, TAGS_MAX)
    const claim = { kind: 'name' as const, service, name, since, tags, hosts: [] }
    if (stamp === undefined) return claim
    for (let count = tags.length; count >= Math.min(1, tags.length); count--) {
      const stamped = { ...claim, tags: tags.slice(0, count), stamp }
      if (fitsRecord(stamped)) return stamped
    }
    return claim
  }

  #makeRoom(): void {
    if (this.#own.size < CLAIMS_MAX) return
    for (const [service, { name }] of this.#own) {
      if (name !== undefined) continue
      this.#own.delete(service)
      return
    }
  }
}

const Row = fields([bytesOf(SERVICE_ID_LENGTH), WallSeconds, bytesUpTo(STAMP_MAX, 1).nullable()])
const Saved = fields([z.literal(VERSION), z.array(Row).max(CLAIMS_MAX)])

/** Whether these are claims as {@link NameClaims.encode} gives them; total. */
export function areClaims(bytes: Uint8Array): boolean {
  return unpack(bytes, ENCODED_MAX, Saved) !== undefined
}
