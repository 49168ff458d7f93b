import { openIssuer, type Issuer } from '../crypto/authority.js'
import type { HostKey } from '../crypto/host-key.js'
import { renewMembership } from '../crypto/membership.js'
import type { Primitives } from '../crypto/primitives.js'
import { signStamp } from '../crypto/stamp.js'
import type { TrustStore } from '../crypto/trust.js'
import { checkValidity } from '../crypto/validity.js'
import type { ServiceCatalogue } from '../service/catalogue.js'
import type { Directory } from '../service/directory.js'
import type { RecordChange } from '../service/host-records.js'
import type { MemberTrust } from '../service/trust.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import type { RefusalReason } from '../wire/issuer-message.js'
import type { IssuingOptions } from './issuing-options.js'

export interface Refusal {
  readonly reason: RefusalReason
  readonly detail: string
}

export interface IssuerDeskComponents {
  readonly primitives: Primitives
  readonly hostKey: HostKey
  readonly trust: TrustStore
  readonly members: MemberTrust
  readonly catalogue: ServiceCatalogue
  readonly directory: Directory
  /** Seconds since the epoch. */
  readonly wallNow: () => number
}

/** A host that has claimed a name, as it came to be known here. */
interface Claimer {
  readonly host: HostId
  /** When its claim expired; undefined: it stands. */
  goneAt: number | undefined
  stamp: Uint8Array | undefined
}

const NAMES_MAX = 16_384
const CLAIMERS_MAX = 8
/** Signatures for one host at once, and how long until it may have one more. */
const BURST = 128
const REFILL_MS = 2_000
const HOSTS_MAX = 4_096
/** A membership that has been given is given again for so long: the answer may have been lost. */
const GIVE_AGAIN_MS = 3_600_000

/** What an issuer signs for members that ask over their session: stamps of their claims, and the renewal of their memberships. Hosts that are no issuers refuse. */
export class IssuerDesk {
  readonly #c: IssuerDeskComponents
  readonly #options: IssuingOptions
  /** Who claimed each name, in the order in which we heard of it. */
  readonly #claimers = new Map<ServiceId, Claimer[]>()
  readonly #budgets = new Map<HostId, { tokens: number; at: number }>()
  readonly #given = new Map<HostId, { readonly serial: number; readonly bytes: Uint8Array; readonly at: number }>()
  #opened: { readonly bytes: Uint8Array; readonly issuer: Issuer | undefined } | undefined
  #lastStamp = 0

  constructor(components: IssuerDeskComponents, options: IssuingOptions) {
    this.#c = components
    this.#options = options
  }

  /** This host's own certificate while it is valid and not revoked. */
  get issuer(): Issuer | undefined {
    const { trust, hostKey, members } = this.#c
    const bytes = trust.issuerCertificate
    if (bytes === undefined || members.isRevoked(hostKey.id)) return undefined
    if (this.#opened?.bytes !== bytes)
      this.#opened = { bytes, issuer: openIssuer(this.#c.primitives, bytes, trust.authority) }
    const { issuer } = this.#opened
    if (issuer?.host !== hostKey.id || trust.revocations.coversIssuer(issuer.host, issuer.serial)) return undefined
    return checkValidity('', issuer, this.#wallNow(), 0) === undefined ? issuer : undefined
  }

  /** A claim came, changed or went; `withdrawn`: its host took it back. */
  recordChanged({ host, record, before }: RecordChange, withdrawn: boolean, now: number): void {
    if (this.#c.trust.issuerCertificate === undefined) return
    if (record?.payload.kind === 'name') this.#arrived(record.payload.service, host, now)
    else if (before?.payload.kind === 'name') this.#gone(before.payload.service, host, withdrawn, now)
  }

  /** A stamp of the host's claim. It is refused while another host is known to have claimed the name before, by a stamp or because we heard of it first. */
  stamp(host: HostId, service: ServiceId, now: number): Uint8Array | Refusal {
    const { members, catalogue, directory, trust, hostKey } = this.#c
    const { issuer } = this
    const certificate = trust.issuerCertificate
    if (issuer === undefined || certificate === undefined) return refuse('not-issuer', 'this host is no issuer')
    if (members.member(host) === undefined) return refuse('not-member', 'only members claim names')
    if (directory.record(host, `name/${service}`) === undefined)
      return refuse('not-synced', 'the claim is not known here yet')
    const claimer = this.#arrived(service, host, now)
    if (claimer === undefined) return refuse('busy', 'too many names are claimed')
    const first = catalogue.firstClaim(service)
    if (first?.title !== undefined && first.host !== host) return refuse('claimed', claimedBy(first.host))
    // Whoever holds a stamp of an issuer that was revoked is the first still.
    if (catalogue.titleOf(service, host) === undefined) {
      if (!directory.synced) return refuse('not-synced', 'the issuer does not know yet what has been claimed')
      const earliest = this.#claimers.get(service)?.[0]
      if (earliest !== undefined && earliest !== claimer) return refuse('claimed', claimedBy(earliest.host))
    }
    if (claimer.stamp !== undefined) return claimer.stamp
    if (!this.#mayHave(host, now)) return refuse('busy', 'too many stamps in a short time')
    this.#lastStamp = Math.max(this.#lastStamp, this.#wallNow())
    if (this.#lastStamp > issuer.notAfter) return refuse('not-issuer', "the issuer's certificate has expired")
    claimer.stamp = signStamp(hostKey, certificate, { network: trust.network, service, host }, this.#lastStamp)
    return claimer.stamp
  }

  /** A new membership in the place of the host's present one, which must be valid: same name, same tags, later end. */
  renew(host: HostId, now: number): Uint8Array | Refusal {
    const { primitives, members, trust, hostKey } = this.#c
    const { issuer } = this
    const certificate = trust.issuerCertificate
    if (issuer === undefined || certificate === undefined) return refuse('not-issuer', 'this host is no issuer')
    const current = members.member(host)
    if (current === undefined) return refuse('not-member', 'its membership has expired or was revoked')
    const given = this.#given.get(host)
    if (given?.serial === current.serial + 1 && now - given.at < GIVE_AGAIN_MS) return given.bytes
    const wall = this.#wallNow()
    const { membershipSeconds: seconds } = this.#options
    if (current.notAfter - wall > seconds / 2) return refuse('too-early', 'most of the membership is still left')
    if (Math.min(wall + seconds, issuer.notAfter) <= current.notAfter)
      return refuse('not-entitled', "the issuer's own certificate ends before")
    if (!this.#mayHave(host, now)) return refuse('busy', 'asked too often')
    let bytes: Uint8Array
    try {
      const authority = { certificate, authority: trust.authority }
      bytes = renewMembership(primitives, hostKey, authority, current, wall, seconds)
    } catch (error) {
      return refuse('not-entitled', error instanceof Error ? error.message : 'it cannot be signed')
    }
    this.#given.delete(host)
    makeRoom(this.#given, HOSTS_MAX)
    this.#given.set(host, { serial: current.serial + 1, bytes, at: now })
    return bytes
  }

  #wallNow(): number {
    return this.#c.trust.observe(this.#c.wallNow())
  }

  /** The host's place among those who claim the name, at the end for a new one; undefined: no room. */
  #arrived(service: ServiceId, host: HostId, now: number): Claimer | undefined {
    const claimers = this.#present(service, now)
    const known = claimers?.find((one) => one.host === host)
    if (known !== undefined) {
      known.goneAt = undefined
      return known
    }
    if (claimers === undefined ? !this.#hasRoom(now) : claimers.length >= CLAIMERS_MAX) return undefined
    const claimer = { host, goneAt: undefined, stamp: undefined }
    if (claimers === undefined) this.#claimers.set(service, [claimer])
    else claimers.push(claimer)
    return claimer
  }

  #gone(service: ServiceId, host: HostId, withdrawn: boolean, now: number): void {
    const claimer = this.#claimers.get(service)?.find((one) => one.host === host)
    if (claimer === undefined) return
    claimer.goneAt = withdrawn ? -Infinity : now
    this.#present(service, now)
  }

  /** Those whose claim stands or expired lately, without those that are members no more; undefined: none. */
  #present(service: ServiceId, now: number): Claimer[] | undefined {
    const claimers = this.#claimers.get(service)
    if (claimers === undefined) return undefined
    const { rememberMs } = this.#options
    const left = claimers.filter(
      ({ host, goneAt }) =>
        (goneAt === undefined || now - goneAt < rememberMs) && this.#c.members.member(host) !== undefined,
    )
    if (left.length === 0) {
      this.#claimers.delete(service)
      return undefined
    }
    this.#claimers.set(service, left)
    return left
  }

  #hasRoom(now: number): boolean {
    if (this.#claimers.size < NAMES_MAX) return true
    const [oldest] = this.#claimers.keys()
    return oldest !== undefined && this.#present(oldest, now) === undefined
  }

  #mayHave(host: HostId, now: number): boolean {
    const { tokens, at } = this.#budgets.get(host) ?? { tokens: BURST, at: now }
    const left = Math.min(BURST, tokens + (now - at) / REFILL_MS)
    this.#budgets.delete(host)
    makeRoom(this.#budgets, HOSTS_MAX)
    this.#budgets.set(host, { tokens: left < 1 ? left : left - 1, at: now })
    return left >= 1
  }
}

function refuse(reason: RefusalReason, detail: string): Refusal {
  return { reason, detail }
}

function claimedBy(host: HostId): string {
  return `host ${host.slice(0, 8)} claimed the name before`
}

function makeRoom<K, V>(map: Map<K, V>, max: number): void {
  const [oldest] = map.keys()
  if (map.size >= max && oldest !== undefined) map.delete(oldest)
}
