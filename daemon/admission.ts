import { nextSerial } from '../lib/crypto/authority.js'
import { issueMembership, MEMBERSHIP_SECONDS } from '../lib/crypto/membership.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { InviteToken, TOKEN_ID_LENGTH, TOKEN_SECRET_LENGTH, tokenPsk } from '../lib/crypto/token.js'
import type { IssuedToken, LedgerProblem } from '../lib/crypto/token-ledger.js'
import type { Host } from '../lib/host/host.js'
import { formatLocator, type Locator } from '../lib/path/locator.js'
import type { JoinAuthority } from '../lib/session/join-issuer.js'
import type { JoinGrant, JoinRefusal, JoinRequest, MemberLocator } from '../lib/session/join-payload.js'
import { TOKEN_USES_MAX } from '../lib/wire/constants.js'
import type { HostId } from '../lib/wire/ids.js'
import { CaracalError, messageOf } from './errors.js'
import { rejoin, stateFile, type Identity } from './identity.js'
import { LogLimit } from './log-limit.js'
import type { Log } from './log.js'
import { monotonicNow } from './packet-loop.js'
import type { StateDirectory } from './state-files.js'

export interface AdmissionComponents {
  readonly identity: Identity
  readonly primitives: Primitives
  readonly files: StateDirectory
  readonly locators: () => readonly Locator[]
  readonly hosts: () => Host
  readonly log: Log
  /** Monotonic ms; default: the process's clock. */
  readonly now?: () => number
}

export interface Invitation {
  readonly tags: readonly string[]
  readonly uses: number
  /** Seconds since the epoch. */
  readonly expiresAt: number
}

const LOCATORS_MAX = 8
const REFUSALS_EVERY_MS = 10_000

/** The issuer's side of this host: gives out tokens, and memberships to those who come with one. */
export class Admission implements JoinAuthority {
  readonly #c: AdmissionComponents
  /** Anybody can be refused as often as they like. */
  readonly #refusals
  #serial = 0

  constructor(components: AdmissionComponents) {
    this.#c = components
    this.#refusals = new LogLimit(REFUSALS_EVERY_MS, components.now ?? monotonicNow)
  }

  get isIssuer(): boolean {
    return this.#c.identity.trust.issuerCertificate !== undefined
  }

  /** A token, after it was written down. */
  async invite({ tags, uses, expiresAt }: Invitation, wallNow: number): Promise<string> {
    const { identity, primitives, files, locators } = this.#c
    const { trust, ledger, hostKey } = identity
    if (!this.isIssuer) {
      throw new CaracalError(
        'CARACAL_E_NOT_ISSUER',
        'this host may not invite',
        'run `caracal invite` on the host that created the network',
      )
    }
    const { revocation } = this.#c.hosts()
    if (revocation !== undefined)
      throw new CaracalError('CARACAL_E_MEMBERSHIP', `this host was revoked: ${revocation}`, rejoin)
    if (!Number.isInteger(uses) || uses < 1 || uses > TOKEN_USES_MAX) {
      throw new CaracalError('CARACAL_E_USAGE', `a token for ${uses} uses`, `choose 1 to ${TOKEN_USES_MAX}`)
    }
    const where = locators().slice(0, LOCATORS_MAX).map(formatLocator)
    if (where.length === 0) {
      throw new CaracalError(
        'CARACAL_E_LISTEN',
        'this host has no address that others could reach',
        'connect it to a network, or give --listen ADDR:PORT',
      )
    }
    const secret = primitives.randomBytes(TOKEN_SECRET_LENGTH)
    const tokenId = primitives.randomBytes(TOKEN_ID_LENGTH)
    const expiry = Math.floor(expiresAt)
    const token = new InviteToken(
      {
        network: trust.network,
        authority: trust.authority,
        profile: trust.profile,
        issuer: hostKey.id,
        locators: where,
        expiry,
        tokenId,
        tags,
      },
      secret,
    )
    let text: string
    try {
      text = token.text(primitives)
    } catch {
      throw new CaracalError(
        'CARACAL_E_USAGE',
        'these tags cannot be given',
        'a tag is 1 to 32 of a-z, 0-9 and hyphen, at most 16 of them',
      )
    }
    if (!ledger.add({ tokenId, psk: tokenPsk(primitives, secret), tags, expiry, uses }, wallNow)) {
      throw new CaracalError(
        'CARACAL_E_BUSY',
        'too many tokens are open',
        'wait until some expire, or allow fewer uses',
      )
    }
    await files.write(stateFile.tokens, ledger.encode())
    return text
  }

  find(tokenId: Uint8Array, host: HostId, wallNow: number): IssuedToken | LedgerProblem {
    return this.#c.identity.ledger.find(tokenId, host, wallNow)
  }

  admit(request: JoinRequest, token: IssuedToken, wallNow: number): JoinGrant | JoinRefusal {
    const { identity, files } = this.#c
    const { trust, ledger } = identity
    const certificate = trust.issuerCertificate
    if (certificate === undefined) return { refusal: 'denied', detail: 'the host asked is no issuer' }
    const { members, revocation } = this.#c.hosts()
    if (revocation !== undefined) return { refusal: 'denied', detail: 'the host asked was revoked' }
    const namesake = members.members().find((member) => member.name === request.name)
    if (namesake !== undefined && namesake.host !== request.host) {
      return { refusal: 'name-taken', detail: `a host is called ${request.name} already` }
    }
    const membership = this.#membership(request, token, certificate, wallNow)
    if (!(membership instanceof Uint8Array)) return membership
    const redeemed = ledger.redeem(request.tokenId, request.host, wallNow)
    if (typeof redeemed === 'string') {
      const refusal = redeemed === 'unknown' ? 'unknown-token' : redeemed
      return { refusal, detail: 'the token is not valid any more' }
    }
    try {
      // On disk before the answer goes out, so that a crash does not give the use away twice.
      files.writeNow(stateFile.tokens, ledger.encode())
    } catch (error) {
      // Who comes again with the same key uses nothing more up.
      return { refusal: 'denied', detail: `the issuer cannot write it down: ${messageOf(error)}` }
    }
    members.learn(membership, request.host)
    return { membership, profile: trust.profile, locators: this.#locatorsOfHosts() }
  }

  #membership(
    request: JoinRequest,
    token: IssuedToken,
    certificate: Uint8Array,
    wallNow: number,
  ): Uint8Array | JoinRefusal {
    const { identity, primitives } = this.#c
    const { trust, hostKey } = identity
    // Above all that was revoked up to now, also within this second.
    this.#serial = nextSerial(wallNow * 1000, this.#serial)
    const now = Math.floor(wallNow)
    try {
      return issueMembership(
        primitives,
        hostKey,
        { certificate, authority: trust.authority },
        {
          host: request.host,
          name: request.name,
          tags: token.tags,
          serial: this.#serial,
          notBefore: now,
          notAfter: now + MEMBERSHIP_SECONDS,
        },
      )
    } catch (error) {
      return { refusal: 'denied', detail: `no membership can be signed: ${messageOf(error)}` }
    }
  }

  /** Where the members are, one place each, for who has just come. */
  #locatorsOfHosts(): MemberLocator[] {
    const { directory } = this.#c.hosts()
    return directory.hosts().flatMap((host) => {
      const [first] = directory.locatorsOf(host)
      return first === undefined ? [] : [{ host, locator: formatLocator(first) }]
    })
  }

  joined(request: JoinRequest, outcome: JoinGrant | JoinRefusal): void {
    const { log } = this.#c
    if ('refusal' in outcome) {
      const { refusal, detail } = outcome
      const unlogged = this.#refusals.take()
      if (unlogged === undefined) return
      const more = unlogged > 0 ? { unlogged } : {}
      log.warn({ name: request.name, refusal, detail, ...more }, 'a join was refused')
    } else log.info({ name: request.name, host: request.host.slice(0, 12) }, 'a host has joined')
  }
}
