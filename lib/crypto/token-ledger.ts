import { z } from 'zod'
import { HOST_ID_LENGTH, TOKEN_USES_MAX } from '../wire/constants.js'
import { fromHex, hostId, toHex, type HostId } from '../wire/ids.js'
import { bytesOf, fields, pack, unpack } from '../wire/pack.js'
import { Tags } from './names.js'
import { TOKEN_ID_LENGTH } from './token.js'
import { WallSeconds } from './validity.js'

export const LEDGER_TOKENS_MAX = 1024
/** Uses of all tokens together. */
const LEDGER_USES_MAX = 20_000
/** Bytes of an encoded ledger. */
export const LEDGER_MAX = 2 ** 21
/** An expired or used-up token is remembered this long after its expiry, so that who comes with it is told so. */
const REMEMBER_SECONDS = 86_400
const VERSION = 1

export interface IssuedToken {
  /** Hash of the secret, which is the handshake's psk: {@link tokenPsk}. */
  readonly psk: Uint8Array
  readonly tags: readonly string[]
  /** Seconds since the epoch. */
  readonly expiry: number
  readonly usesLeft: number
}
export type LedgerProblem = 'unknown' | 'expired' | 'used-up'

interface Entry {
  readonly psk: Uint8Array
  readonly tags: readonly string[]
  readonly expiry: number
  readonly uses: number
  readonly redeemedBy: Set<HostId>
}

/**
 * The tokens an issuer has given out and who came with them. Whoever redeems writes {@link encode}d bytes to disk before answering. A host that
 * comes again with the same token, its answer having been lost, uses nothing up.
 */
export class TokenLedger {
  readonly #entries = new Map<string, Entry>()

  /** A ledger from its file; undefined: damaged. */
  static decode(bytes: Uint8Array): TokenLedger | undefined {
    const value = unpack(bytes, LEDGER_MAX, Ledger)
    if (value === undefined) return undefined
    const ledger = new TokenLedger()
    for (const [tokenId, psk, tags, expiry, uses, redeemedBy] of value[1]) {
      const hosts = new Set(redeemedBy.map((bytes) => hostId(bytes)))
      ledger.#entries.set(toHex(tokenId), { psk, tags, expiry, uses, redeemedBy: hosts })
    }
    return ledger
  }

  encode(): Uint8Array {
    const entries = [...this.#entries].map(([tokenId, entry]) => {
      const hosts = [...entry.redeemedBy].map((host) => fromHex(host))
      return [fromHex(tokenId), entry.psk, entry.tags, entry.expiry, entry.uses, hosts]
    })
    return pack([VERSION, entries])
  }

  get size(): number {
    return this.#entries.size
  }

  /** Enters a new token. False: too many are open; wait for some to expire. Throws RangeError for uses out of 1..TOKEN_USES_MAX and bad lengths. */
  add(token: Omit<IssuedToken, 'usesLeft'> & { tokenId: Uint8Array; uses: number }, wallNow: number): boolean {
    const { tokenId, psk, tags, expiry, uses } = token
    if (!TokenRow.safeParse([tokenId, psk, tags, expiry, uses, []]).success) throw new RangeError('token out of bounds')
    this.#forgetOld(wallNow)
    let open = uses
    for (const entry of this.#entries.values()) open += entry.uses
    if (this.#entries.size >= LEDGER_TOKENS_MAX || open > LEDGER_USES_MAX) return false
    this.#entries.set(toHex(tokenId), { psk, tags, expiry, uses, redeemedBy: new Set() })
    return true
  }

  /** The token for this host, without using it up: what the handshake needs to answer. */
  find(tokenId: Uint8Array, host: HostId, wallNow: number): IssuedToken | LedgerProblem {
    const entry = this.#entries.get(toHex(tokenId))
    if (entry === undefined) return 'unknown'
    const usesLeft = entry.uses - entry.redeemedBy.size
    if (usesLeft <= 0 && !entry.redeemedBy.has(host)) return 'used-up'
    if (wallNow > entry.expiry) return 'expired'
    return { psk: entry.psk, tags: entry.tags, expiry: entry.expiry, usesLeft }
  }

  /** As {@link find}, and one use is counted, once a host. */
  redeem(tokenId: Uint8Array, host: HostId, wallNow: number): IssuedToken | LedgerProblem {
    const token = this.find(tokenId, host, wallNow)
    if (typeof token === 'string') return token
    const entry = this.#entries.get(toHex(tokenId))
    if (entry === undefined) return 'unknown'
    entry.redeemedBy.add(host)
    return { ...token, usesLeft: entry.uses - entry.redeemedBy.size }
  }

  /** Takes a token back. */
  withdraw(tokenId: Uint8Array): boolean {
    return this.#entries.delete(toHex(tokenId))
  }

  toJSON(): { tokens: number } {
    return { tokens: this.#entries.size }
  }

  #forgetOld(wallNow: number): void {
    for (const [tokenId, entry] of this.#entries)
      if (wallNow > entry.expiry + REMEMBER_SECONDS) this.#entries.delete(tokenId)
  }
}

const TokenRow = fields([
  bytesOf(TOKEN_ID_LENGTH),
  bytesOf(32),
  Tags,
  WallSeconds,
  z.number().int().min(1).max(TOKEN_USES_MAX),
  z.array(bytesOf(HOST_ID_LENGTH)).max(TOKEN_USES_MAX),
])
const Ledger = fields([z.literal(VERSION), z.array(TokenRow).max(LEDGER_TOKENS_MAX)])
