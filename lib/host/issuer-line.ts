import type { PeerTable } from '../path/peers.js'
import type { MemberTrust } from '../service/trust.js'
import type { HostId, ServiceId } from '../wire/ids.js'
import { encodeIssuerMessage, type IssuerAnswer } from '../wire/issuer-message.js'
import { Channel, type ControlChannel } from './control-channel.js'
import type { IssuingOptions } from './issuing-options.js'

export type Question = { readonly kind: 'stamp'; readonly service: ServiceId } | { readonly kind: 'renew' }

export interface IssuerLineComponents {
  readonly self: HostId
  readonly peers: PeerTable
  readonly control: ControlChannel
  readonly members: MemberTrust
  /** Whether anything is known of where the host is. */
  readonly known: (host: HostId) => boolean
  readonly wantSession: (peer: number, now: number) => void
}

interface Asked {
  readonly peer: number
  readonly until: number
  readonly answered: (answer: IssuerAnswer | undefined, now: number) => void
}

const ASKED_MAX = 256
/** How long it is gone by who signs memberships. */
const SIGNERS_MS = 1_000

/** Questions to issuers: finds one that can be asked, and brings back what it says. */
export class IssuerLine {
  readonly #c: IssuerLineComponents
  readonly #options: IssuingOptions
  readonly #asked = new Map<number, Asked>()
  /** Issuers that did not answer or turned out to be none, until when. */
  readonly #avoided = new Map<HostId, number>()
  #signers: { readonly hosts: readonly HostId[]; readonly until: number } = { hosts: [], until: -Infinity }
  #request = 0

  constructor(components: IssuerLineComponents, options: IssuingOptions) {
    this.#c = components
    this.#options = options
  }

  /** Asks an issuer that there is a session with; `answered` is called once, with undefined when no answer comes. False: there is none now, one is being connected to. */
  ask(question: Question, now: number, answered: Asked['answered']): boolean {
    // Who is no member any more gets nothing, and connects to nobody.
    if (this.#c.members.member(this.#c.self) === undefined) return false
    const issuers = this.#issuers(now)
    const host = issuers.find((one) => this.#isUp(one))
    if (host === undefined) {
      const known = issuers.find((one) => this.#c.known(one))
      const peer = known === undefined ? -1 : this.#c.peers.add(known)
      if (peer > 0) this.#c.wantSession(peer, now)
      return false
    }
    if (this.#asked.size >= ASKED_MAX) return false
    const peer = this.#c.peers.indexOf(host)
    const request = ++this.#request
    if (!this.#c.control.send(peer, Channel.issuing, encodeIssuerMessage({ ...question, request }), now)) return false
    this.#asked.set(request, { peer, until: now + this.#options.answerWithinMs, answered })
    return true
  }

  /** Whether the host signs memberships, as far as is known. */
  isIssuer(host: HostId, now: number): boolean {
    return this.#known(now).includes(host)
  }

  /** An answer from the peer; one that nobody waits for is nothing. */
  receive(peer: number, answer: IssuerAnswer, now: number): void {
    const asked = this.#asked.get(answer.request)
    if (asked?.peer !== peer) return
    this.#asked.delete(answer.request)
    const useless = answer.kind === 'refused' && (answer.reason === 'not-issuer' || answer.reason === 'not-entitled')
    if (useless) this.#avoid(peer, now)
    asked.answered(answer, now)
  }

  nextTimeout(): number {
    // In the order in which they were asked.
    const [first] = this.#asked.values()
    return first?.until ?? Infinity
  }

  handleTimeout(now: number): void {
    for (const [request, { peer, until, answered }] of this.#asked) {
      if (until > now) return
      this.#asked.delete(request)
      this.#avoid(peer, now)
      answered(undefined, now)
    }
  }

  #isUp(host: HostId): boolean {
    const peer = this.#c.peers.indexOf(host)
    return peer > 0 && this.#c.peers.sealSlot[peer]! >= 0
  }

  #avoid(peer: number, now: number): void {
    this.#avoided.set(this.#c.peers.hostId(peer), now + this.#options.avoidMs)
  }

  /** Who can be asked, in the order to try them. */
  #issuers(now: number): HostId[] {
    const { self, members } = this.#c
    for (const [host, until] of this.#avoided) if (until <= now) this.#avoided.delete(host)
    return this.#known(now).filter((host) => host !== self && !this.#avoided.has(host) && !members.isRevoked(host))
  }

  /** Who has signed a membership, our own first. There may be many members: they are not looked through for each question. */
  #known(now: number): readonly HostId[] {
    if (now < this.#signers.until) return this.#signers.hosts
    const { self, members } = this.#c
    const own = members.member(self)?.issuer
    const all = new Set(members.members().map(({ issuer }) => issuer))
    const others = [...all].filter((host) => host !== own).sort()
    this.#signers = { hosts: own === undefined ? others : [own, ...others], until: now + SIGNERS_MS }
    return this.#signers.hosts
  }
}
