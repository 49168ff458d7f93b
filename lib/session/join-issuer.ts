import { isStaticKeyOf, type HostKey } from '../crypto/host-key.js'
import { Handshake, NO_PSK, type NoiseOptions } from '../crypto/noise.js'
import type { Primitives } from '../crypto/primitives.js'
import type { IssuedToken, LedgerProblem } from '../crypto/token-ledger.js'
import { SKEW_SECONDS, wallText } from '../crypto/validity.js'
import { FrameType } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { HandshakeView } from '../wire/handshake.js'
import { toHex, type NetworkId } from '../wire/ids.js'
import { noiseOptions } from './identity.js'
import { IndexTable } from './index-table.js'
import {
  decodeJoinRequest,
  encodeJoinAnswer,
  type JoinGrant,
  type JoinRefusal,
  type JoinRequest,
  type ReadRequest,
} from './join-payload.js'
import { HandshakeMacs } from './macs.js'
import type { JoinResponder } from './session-components.js'

/** What an issuer's host decides about those who come with a token. */
export interface JoinAuthority {
  /** The token for this host, nothing used up: TokenLedger.find. */
  find(tokenId: Uint8Array, host: JoinRequest['host'], wallNow: number): IssuedToken | LedgerProblem
  /**
   * Counts the use durably (TokenLedger.redeem, and to disk before this returns), checks the name and signs the membership. May be asked again for the same
   * host and token, which must not use up anything more.
   */
  admit(request: JoinRequest, token: IssuedToken, wallNow: number): JoinGrant | JoinRefusal
  /** Who joined or was refused, for the log. */
  joined?(request: JoinRequest, outcome: JoinGrant | JoinRefusal): void
}

export interface JoinIssuerComponents {
  readonly primitives: Primitives
  readonly hostKey: HostKey
  readonly network: NetworkId
  readonly authority: JoinAuthority
  readonly sendDatagram: (bytes: Uint8Array, address: Uint8Array) => void
}

export interface JoinIssuerOptions {
  /** Default: SKEW_SECONDS. */
  readonly skewSeconds?: number
}

/** Grants remembered, so that a repeated request gets the same membership. */
const GRANTS_MAX = 256
const GRANT_LIFE_MS = 60_000

const problems: Readonly<Record<LedgerProblem, JoinRefusal>> = {
  unknown: { refusal: 'unknown-token', detail: 'the issuer does not know this token; it may have been withdrawn' },
  expired: { refusal: 'expired', detail: 'the token has expired' },
  'used-up': {
    refusal: 'used-up',
    detail: 'the token has been used as often as it may be',
  },
}

/** The issuer's end of joins. Give it to the SessionTable, whose guard stands before it. */
export class JoinIssuer implements JoinResponder {
  readonly #c: JoinIssuerComponents
  readonly #noise: NoiseOptions
  readonly #indexes: IndexTable<never>
  readonly #skewSeconds: number
  readonly #grants = new Map<string, { readonly grant: JoinGrant; readonly at: number }>()

  constructor(components: JoinIssuerComponents, options: JoinIssuerOptions = {}) {
    const { primitives, hostKey, network } = components
    this.#c = components
    this.#noise = noiseOptions(primitives, hostKey, network, 'join')
    this.#indexes = new IndexTable(primitives)
    this.#skewSeconds = options.skewSeconds ?? SKEW_SECONDS
  }

  /** Answers a join that has passed the guard; why it was dropped without an answer, or undefined. */
  answer(view: HandshakeView, address: Uint8Array, now: number, wallNow: number): DropReason | undefined {
    const { primitives, network, hostKey } = this.#c
    const handshake = Handshake.respond(this.#noise)
    const message = handshake.readMessage1(view.noise)
    const read = message && decodeJoinRequest(primitives, message.payload)
    if (message === undefined || read === undefined) return 'handshake-failed'
    const { request } = read
    if (!isStaticKeyOf(primitives, request.host, message.remoteStatic)) return 'handshake-failed'
    if (request.network !== network || request.issuer !== hostKey.id) return 'not-ours'

    const { outcome, psk } = this.#decide(read, now, wallNow)
    const noise = handshake.writeMessage2(encodeJoinAnswer(outcome, wallNow), psk)
    if (noise === undefined) return 'handshake-failed'
    const sender = this.#indexes.random()
    const reply = HandshakeView.encode({ type: FrameType.joined, sender, receiver: view.sender, noise })
    if (reply.bytes.length > 3 * view.bytes.length) return 'amplification'
    new HandshakeMacs(primitives, message.remoteStatic).sign(reply)
    this.#c.sendDatagram(reply.bytes, address)
    return undefined
  }

  #decide(
    read: ReadRequest,
    now: number,
    wallNow: number,
  ): { readonly outcome: JoinGrant | JoinRefusal; readonly psk: Uint8Array } {
    const { request } = read
    const { authority } = this.#c
    const token = authority.find(request.tokenId, request.host, wallNow)
    if (typeof token === 'string') return this.#refuse(request, problems[token], NO_PSK)
    if (!read.provenBy(token.psk)) return this.#refuse(request, problems.unknown, NO_PSK)
    const skew = request.wallNow - wallNow
    if (Math.abs(skew) > this.#skewSeconds) {
      const clocks = `this host's says ${wallText(request.wallNow)}, the issuer's ${wallText(Math.floor(wallNow))}`
      return this.#refuse(request, { refusal: 'clock-skew', detail: `the clocks differ: ${clocks}` }, token.psk)
    }
    const key = `${toHex(request.tokenId)} ${request.host} ${request.name} ${request.tags.join(',')}`
    const known = this.#grants.get(key)
    if (known !== undefined && now - known.at < GRANT_LIFE_MS) return { outcome: known.grant, psk: token.psk }
    const outcome = authority.admit(request, token, wallNow)
    if ('refusal' in outcome) return this.#refuse(request, outcome, token.psk)
    this.#remember(key, outcome, now)
    authority.joined?.(request, outcome)
    return { outcome, psk: token.psk }
  }

  #refuse(
    request: JoinRequest,
    outcome: JoinRefusal,
    psk: Uint8Array,
  ): { readonly outcome: JoinRefusal; readonly psk: Uint8Array } {
    this.#c.authority.joined?.(request, outcome)
    return { outcome, psk }
  }

  #remember(key: string, grant: JoinGrant, now: number): void {
    this.#grants.delete(key)
    this.#grants.set(key, { grant, at: now })
    for (const oldest of this.#grants.keys()) {
      if (this.#grants.size <= GRANTS_MAX) break
      this.#grants.delete(oldest)
    }
  }
}
