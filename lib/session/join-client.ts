import { staticKeyOf, type HostKey } from '../crypto/host-key.js'
import { isMembershipProblem, type Membership } from '../crypto/membership.js'
import type { NetworkProfile } from '../crypto/network-profile.js'
import { NO_PSK } from '../crypto/noise.js'
import type { Primitives } from '../crypto/primitives.js'
import type { InviteToken } from '../crypto/token.js'
import { TrustStore } from '../crypto/trust.js'
import { wallText } from '../crypto/validity.js'
import { encodeLocator, parseLocator } from '../path/locator.js'
import { ADDRESS_RECORD } from '../wire/batch.js'
import { FrameType, UDP_PORT } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { CookieView, HandshakeView } from '../wire/handshake.js'
import { noiseOptions } from './identity.js'
import { IndexTable } from './index-table.js'
import { Initiation } from './initiation.js'
import {
  decodeJoinAnswer,
  encodeJoinRequest,
  type JoinAnswer,
  type JoinGrant,
  type MemberLocator,
  type Refusal,
} from './join-payload.js'
import { HandshakeMacs } from './macs.js'
import { Schedule, type ScheduleOptions } from './schedule.js'

export interface Joined {
  /** Verified, and ours. */
  readonly membership: Membership
  readonly profile: NetworkProfile
  readonly locators: readonly MemberLocator[]
  /** The issuer's clock, seconds since the epoch. */
  readonly issuerWallNow: number
}

export interface JoinFailure {
  readonly problem: Refusal | 'no-answer' | 'bad-token' | 'bad-answer'
  /** One sentence for people, without a full stop. */
  readonly detail: string
}

export interface JoinSink {
  /** The bytes are only valid during the call. */
  sendDatagram(bytes: Uint8Array, address: Uint8Array): void
  /** The end, well; called once. */
  joined(result: Joined): void
  /** The end, else; called once. */
  failed(failure: JoinFailure): void
}

export interface JoinComponents {
  readonly primitives: Primitives
  readonly hostKey: HostKey
  readonly token: InviteToken
  readonly sink: JoinSink
}

/** What the new host would like to be. */
export interface JoinWish {
  /** A label of 1 to 63 characters. */
  readonly name: string
  readonly tags?: readonly string[]
}

/** The joining host's end: asks the token's issuer for a membership until it gets one, is refused, or the time is up. */
export class JoinClient {
  readonly #c: JoinComponents
  readonly #wish: JoinWish
  readonly #options: ScheduleOptions
  readonly #indexes: IndexTable<JoinClient>
  readonly #ownMacs: HandshakeMacs
  #initiation: Initiation | undefined

  /** Gives up after 10 s unless told otherwise. */
  constructor(components: JoinComponents, wish: JoinWish, options: ScheduleOptions = {}) {
    this.#c = components
    this.#wish = wish
    this.#options = { giveUpMs: 10_000, ...options }
    this.#indexes = new IndexTable(components.primitives)
    this.#ownMacs = new HandshakeMacs(components.primitives, components.hostKey.staticKey)
  }

  /** Whether it goes on. */
  get running(): boolean {
    return this.#initiation !== undefined
  }

  /** Begins. `wallNow`: seconds since the epoch. `more`: address records besides the token's locators. Throws RangeError for a name or tags that no host may have. */
  start(now: number, wallNow: number, more: readonly Uint8Array[] = []): void {
    if (this.#initiation !== undefined) return
    const { primitives, hostKey, token, sink } = this.#c
    const { network, issuer, tokenId } = token
    const remoteStatic = staticKeyOf(primitives, issuer)
    if (remoteStatic === undefined)
      return sink.failed({ problem: 'bad-token', detail: "the token's issuer is not a host" })
    const psk = token.psk(primitives)
    const payload = (at: number) =>
      encodeJoinRequest(primitives, hostKey, psk, {
        network,
        issuer,
        tokenId,
        name: this.#wish.name,
        tags: this.#wish.tags ?? [],
        wallNow: wallNow + (at - now) / 1000,
      })
    payload(now)
    const addresses = [...recordsOf(token.locators), ...more.map((address) => address.slice(0, ADDRESS_RECORD))]
    this.#initiation = new Initiation({
      type: FrameType.join,
      noise: noiseOptions(primitives, hostKey, network, 'join'),
      remoteStatic,
      macs: new HandshakeMacs(primitives, remoteStatic),
      schedule: new Schedule(addresses, now, () => primitives.randomBytes(1)[0]! / 256, this.#options),
      psks: [psk, NO_PSK],
      payload,
      indexes: this.#indexes.of(this),
    })
    this.handleTimeout(now)
  }

  /** One clear datagram; why it was dropped, or undefined. `wallNow`: seconds since the epoch. */
  receive(bytes: Uint8Array, offset: number, length: number, now: number, wallNow: number): DropReason | undefined {
    if (length > 0 && bytes[offset] === FrameType.cookie) return this.#takeCookie(bytes, offset, length, now)
    const view = HandshakeView.check(bytes, offset, length)
    if (typeof view === 'string') return view
    if (view.type !== FrameType.joined) return 'not-ours'
    const attempt = this.#initiation?.attempt(view.receiver)
    if (attempt === undefined) return 'handshake-failed'
    if (!this.#ownMacs.verify(view)) return 'bad-mac'
    const [withPsk, withoutPsk] = attempt.handshakes
    const granted = withPsk?.readMessage2(view.noise)
    const plain = granted ?? withoutPsk?.readMessage2(view.noise)
    if (plain === undefined) return 'handshake-failed'
    const answer = decodeJoinAnswer(plain)
    // Only who knows the token may grant.
    if (answer === undefined || (granted === undefined && !('refusal' in answer))) return 'handshake-failed'
    this.#finish(answer, wallNow)
    return undefined
  }

  nextTimeout(): number {
    return this.#initiation?.schedule.nextAt ?? Infinity
  }

  handleTimeout(now: number): void {
    const { sink, token } = this.#c
    let initiation = this.#initiation
    while (initiation !== undefined) {
      const attempt = initiation.next(now)
      if (attempt === undefined) break
      sink.sendDatagram(attempt.view.bytes, attempt.address)
      initiation = this.#initiation
    }
    if (initiation?.schedule.expired(now) !== true) return
    this.close()
    const places = token.locators.join(', ')
    const detail = `the issuer does not answer at ${places}; is its daemon up, and are these addresses reachable from here`
    sink.failed({ problem: 'no-answer', detail })
  }

  /** Ends it without a result. */
  close(): void {
    this.#initiation?.close()
    this.#initiation = undefined
  }

  #takeCookie(bytes: Uint8Array, offset: number, length: number, now: number): DropReason | undefined {
    const reply = CookieView.check(bytes, offset, length)
    if (typeof reply === 'string') return reply
    const attempt = this.#initiation?.attempt(reply.receiver)
    if (this.#initiation === undefined || attempt === undefined) return 'handshake-failed'
    if (!this.#initiation.takeCookie(attempt, reply, now)) return 'bad-mac'
    this.#c.sink.sendDatagram(attempt.view.bytes, attempt.address)
    return undefined
  }

  #finish(answer: JoinAnswer, wallNow: number): void {
    const { sink } = this.#c
    this.close()
    if ('refusal' in answer) return sink.failed({ problem: answer.refusal, detail: answer.detail })
    const result = this.#check(answer, answer.wallNow, wallNow)
    if ('problem' in result) sink.failed(result)
    else sink.joined(result)
  }

  #check(grant: JoinGrant, issuerWallNow: number, wallNow: number): Joined | JoinFailure {
    const { primitives, hostKey, token } = this.#c
    const profile = grant.profile ?? token.profile
    const membership = new TrustStore(primitives, { authority: token.authority, profile }).verify(
      grant.membership,
      wallNow,
    )
    if (isMembershipProblem(membership)) {
      const early = membership.problem === 'not-yet-valid' || membership.problem === 'expired'
      const detail = `${membership.detail}; the issuer's says ${wallText(issuerWallNow)}`
      return early ? { problem: 'clock-skew', detail } : { problem: 'bad-answer', detail: membership.detail }
    }
    if (membership.host !== hostKey.id)
      return { problem: 'bad-answer', detail: 'the issuer sent the membership of another host' }
    return { membership, profile, locators: grant.locators, issuerWallNow }
  }
}

/** Address records of the texts that are locators. */
function recordsOf(locators: readonly string[]): Uint8Array[] {
  const records: Uint8Array[] = []
  for (const text of locators) {
    const locator = parseLocator(text, UDP_PORT)
    if (locator !== undefined) records.push(encodeLocator(locator))
  }
  return records
}
