import { formatLocator, locatorRecord, type Locator } from '../path/locator.js'
import { SELF, type PeerTable } from '../path/peers.js'
import type { HostId } from '../wire/ids.js'

export interface NeighboursOptions {
  /** Up to so many known hosts, a session is kept with each. */
  readonly meshMax: number
  readonly retryMinMs: number
  readonly retryMaxMs: number
  /** Locators tried for one host. */
  readonly locatorsMax: number
  /** Hosts for which hints are kept. */
  readonly hintsMax: number
  /** Of these, hosts that nothing but a hint tells of: anybody on the same link can make them up. So many are kept, and so many tried at a time. */
  readonly strangersMax: number
  readonly strangersTried: number
  /** A host that has a session waits so long before it tries one, half more or less at random: on a LAN all hosts hear of a new one at once, and what it says itself usually comes first, by the one it has joined with. */
  readonly strangerWaitMs: number
}

export const neighboursDefaults: NeighboursOptions = {
  meshMax: 32,
  retryMinMs: 500,
  retryMaxMs: 15_000,
  locatorsMax: 8,
  hintsMax: 4_096,
  strangersMax: 256,
  strangersTried: 8,
  strangerWaitMs: 10_000,
}

interface Attempt {
  nextAt: number
  failures: number
  /** A session is up. */
  up: boolean
  connecting: boolean
  /** A session was up once: the host is a member. */
  proven: boolean
}

/**
 * Whom to keep a session with, and when to try again. In a small network that is every host; in a larger one the hosts at distances 1, 2, 4, 8 … in the ring of all IDs, both ways:
 * two logarithms of their number, each is wanted from both its ends, and from any host to any other it is half a logarithm of steps. Where a host may be is told by its own records and by hints (a token, multicast DNS, where it was last); all of it is
 * only tried, the handshake proves it.
 */
export class Neighbours {
  readonly #options: NeighboursOptions
  readonly #attempts = new Map<number, Attempt>()
  /** Newest first. */
  readonly #hints = new Map<HostId, Locator[]>()
  /** Hosts with records. */
  #recorded: ReadonlySet<HostId> = new Set()
  #wanted: ReadonlySet<HostId> = new Set()
  /** Hosts with which open flows wait for a session. */
  readonly #owed = new Set<HostId>()
  /** All members, this host among them, in the order of their IDs. */
  #ring: readonly HostId[] = []
  /** When the next attempt is due; undefined: to be worked out anew. */
  #next: number | undefined
  /** Who is known, or who may be connected to, has changed: {@link known} is to be called. */
  reviewDue = true

  constructor(
    private readonly components: {
      readonly self: HostId
      readonly peers: PeerTable
      readonly connect: (peer: number, addresses: readonly Uint8Array[], now: number) => void
      /** What the host's own records say. */
      readonly locatorsOf: (host: HostId) => readonly Locator[]
      /** Hosts that must not be connected to: revoked. */
      readonly excluded: (host: HostId) => boolean
      /** Uniform in [0, 1). */
      readonly random: () => number
    },
    options: Partial<NeighboursOptions> = {},
  ) {
    this.#options = { ...neighboursDefaults, ...options }
  }

  /** Somebody, not necessarily the host itself, says that it can be reached there. */
  hint(host: HostId, locator: Locator, now: number): void {
    if (host === this.components.self) return
    const known = this.#hints.get(host)
    if (known === undefined && !this.#hasRoom(host)) return
    const text = formatLocator(locator)
    if (known === undefined) this.reviewDue = true
    const isNew = known?.every((l) => formatLocator(l) !== text) ?? true
    const rest = (known ?? []).filter((l) => formatLocator(l) !== text)
    this.#hints.set(host, [locator, ...rest].slice(0, this.#options.locatorsMax))
    if (isNew && !this.#isWaiting(host, now)) this.#soon(host, now)
  }

  /** What the host itself says about where it can be reached has changed. */
  located(host: HostId, now: number): void {
    this.#soon(host, now)
  }

  /** Where the host was said to be. */
  hintsOf(host: HostId): readonly Locator[] {
    return this.#hints.get(host) ?? []
  }

  /** All hosts known, hinted or by records: the ones to keep sessions with are chosen among them. */
  known(hosts: Iterable<HostId>, now: number): void {
    const { self, excluded } = this.components
    this.reviewDue = false
    this.#next = undefined
    this.#recorded = new Set(hosts)
    const hinted = [...this.#hints.keys()].filter((host) => !this.#recorded.has(host))
    const members = [...this.#recorded, ...hinted.filter((host) => !this.#isStranger(host))]
    this.#ring = [...members.filter((host) => host !== self && !excluded(host)), self].sort()
    const strangers = hinted.filter((host) => this.#isStranger(host) && !excluded(host))
    const owed = [...this.#owed].filter((host) => !excluded(host))
    // Those with flows first: all are tried at once, and a handshake takes a while to compute.
    this.#wanted = new Set([...owed, ...this.#chosen(), ...this.#tried(strangers)])
    for (const host of this.#wanted) this.#attempt(host, now)
  }

  /** Flows with these hosts were open before this one was started again: a session is had with each, once. They were members then. */
  owe(hosts: readonly HostId[], now: number): void {
    for (const host of hosts) {
      const attempt = this.#attempt(host, now)
      if (attempt === undefined || attempt.up) continue
      attempt.proven = true
      attempt.nextAt = Math.min(attempt.nextAt, now)
      this.#owed.add(host)
    }
    this.reviewDue = true
  }

  /** Whether a session is kept with the host, used or not. */
  wants(host: HostId): boolean {
    return this.#wanted.has(host)
  }

  /** Whether the two hosts keep a session with each other, as far as is known here. */
  adjacent(a: HostId, b: HostId): boolean {
    const count = this.#ring.length
    const [i, j] = [place(this.#ring, a), place(this.#ring, b)]
    if (i < 0 || j < 0 || i === j) return false
    if (count - 1 <= this.#options.meshMax) return true
    const distance = Math.min((i - j + count) % count, (j - i + count) % count)
    return (distance & (distance - 1)) === 0
  }

  #chosen(): HostId[] {
    const ring = this.#ring
    const count = ring.length
    if (count - 1 <= this.#options.meshMax) return ring.filter((host) => host !== this.components.self)
    const at = place(ring, this.components.self)
    const chosen: HostId[] = []
    for (let distance = 1; distance <= count / 2; distance *= 2)
      chosen.push(ring[(at + distance) % count]!, ring[(at - distance + count) % count]!)
    return chosen
  }

  /** A flow needs the host now. */
  want(peer: number, now: number): void {
    const host = this.components.peers.hostId(peer)
    if (this.components.excluded(host)) return
    const attempt = this.#attempts.get(peer) ?? this.#attempt(host, now)
    if (attempt === undefined || attempt.up || attempt.connecting) return
    this.#next = undefined
    this.#connect(peer, attempt, now)
  }

  /** `locator`: where the session came up; tried first the next time. */
  established(peer: number, locator: Locator | undefined, now: number): void {
    if (peer === SELF) return
    const host = this.components.peers.hostId(peer)
    const attempt = this.#attempt(host, now)
    if (attempt === undefined) return
    this.#next = undefined
    attempt.up = true
    attempt.connecting = false
    const owed = this.#owed.delete(host)
    if (!attempt.proven || owed) this.reviewDue = true
    attempt.proven = true
    attempt.failures = 0
    attempt.nextAt = Infinity
    if (locator !== undefined) this.hint(host, locator, now)
  }

  failed(peer: number, now: number): void {
    const attempt = this.#attempts.get(peer)
    if (attempt === undefined || attempt.up) return
    this.#next = undefined
    attempt.connecting = false
    attempt.failures++
    // Strangers take turns.
    if (this.#isStranger(this.components.peers.hostId(peer))) this.reviewDue = true
    const { retryMinMs, retryMaxMs } = this.#options
    const delay = Math.min(retryMinMs * 2 ** Math.min(attempt.failures - 1, 10), retryMaxMs)
    attempt.nextAt = now + delay * (0.75 + 0.5 * this.components.random())
  }

  lost(peer: number, now: number): void {
    const attempt = this.#attempts.get(peer)
    if (attempt === undefined) return
    this.#next = undefined
    attempt.up = false
    attempt.connecting = false
    attempt.nextAt = now + this.#options.retryMinMs * this.components.random()
  }

  /** The host has said that it leaves: it will tell when it is back. */
  left(peer: number, now: number): void {
    const attempt = this.#attempts.get(peer)
    if (attempt === undefined || attempt.up) return
    this.#next = undefined
    attempt.connecting = false
    attempt.nextAt = now + this.#options.retryMaxMs
  }

  /** Hosts to remember over a restart, with where they were last; those that are known to be members come last, so that they are the first to be hinted again. */
  remembered(): { readonly host: HostId; readonly locators: readonly Locator[] }[] {
    const hosts = [...this.#hints].map(([host, locators]) => ({ host, locators }))
    const isStranger = ({ host }: { readonly host: HostId }) => this.#isStranger(host)
    return [...hosts.filter(isStranger), ...hosts.filter((one) => !isStranger(one))]
  }

  handleTimeout(now: number): void {
    if (now < this.nextTimeout()) return
    this.#next = undefined
    const { peers } = this.components
    for (const host of this.#wanted) {
      const peer = peers.indexOf(host)
      const attempt = this.#attempts.get(peer)
      if (attempt !== undefined && !attempt.up && !attempt.connecting && now >= attempt.nextAt)
        this.#connect(peer, attempt, now)
    }
  }

  nextTimeout(): number {
    return (this.#next ??= this.#nextAttempt())
  }

  #nextAttempt(): number {
    const { peers } = this.components
    let next = Infinity
    for (const host of this.#wanted) {
      const attempt = this.#attempts.get(peers.indexOf(host))
      if (attempt !== undefined && !attempt.up && !attempt.connecting) next = Math.min(next, attempt.nextAt)
    }
    return next
  }

  #connect(peer: number, attempt: Attempt, now: number): void {
    const { peers, locatorsOf, connect } = this.components
    const host = peers.hostId(peer)
    const { locatorsMax } = this.#options
    const [hints, recorded] = [this.#hints.get(host) ?? [], locatorsOf(host)]
    // Anybody may hint: however much is hinted, what the host itself says has its share.
    const first = hints.slice(0, locatorsMax - Math.min(recorded.length, Math.floor(locatorsMax / 2)))
    const addresses = new Map<string, Uint8Array>()
    for (const locator of [...first, ...recorded, ...hints]) {
      const record = addresses.size < locatorsMax ? locatorRecord(locator) : undefined
      if (record !== undefined) addresses.set(formatLocator(locator), record)
    }
    if (addresses.size === 0) return this.failed(peer, now)
    attempt.connecting = true
    connect(peer, [...addresses.values()], now)
  }

  /** It is somewhere else than was known: tried at once, beside what is being tried. */
  #soon(host: HostId, now: number): void {
    const peer = this.components.peers.indexOf(host)
    const attempt = this.#attempts.get(peer)
    if (attempt === undefined || attempt.up) return
    const stranger = this.#isStranger(host)
    if (attempt.connecting) {
      if (!stranger) this.#connect(peer, attempt, now)
      return
    }
    if (!stranger) attempt.failures = 0
    attempt.nextAt = Math.min(attempt.nextAt, now)
    this.#next = undefined
  }

  /** Nothing but hints speak for the host. */
  #isStranger(host: HostId): boolean {
    return !this.#recorded.has(host) && this.#attemptOf(host)?.proven !== true
  }

  /** A stranger that has not been tried yet. */
  #isWaiting(host: HostId, now: number): boolean {
    const attempt = this.#attemptOf(host)
    return attempt?.failures === 0 && attempt.nextAt > now && this.#isStranger(host)
  }

  #attemptOf(host: HostId): Attempt | undefined {
    return this.#attempts.get(this.components.peers.indexOf(host))
  }

  /** The strangers to be tried: those that have failed least, among them those that were hinted first. An index among the peers is for good: half of them are members' alone. */
  #tried(strangers: readonly HostId[]): HostId[] {
    const { peers } = this.components
    const failures = (host: HostId) => this.#attemptOf(host)?.failures ?? 0
    return strangers
      .filter((host) => peers.indexOf(host) >= 0 || peers.size < peers.capacity / 2)
      .sort((a, b) => failures(a) - failures(b))
      .slice(0, this.#options.strangersTried)
  }

  /** Whether a hint of another host can be kept; one that has failed makes room. */
  #hasRoom(host: HostId): boolean {
    const { hintsMax, strangersMax } = this.#options
    const strangers = this.#isStranger(host) ? [...this.#hints.keys()].filter((one) => this.#isStranger(one)) : []
    if (this.#hints.size < hintsMax && strangers.length < strangersMax) return true
    const failed = strangers.find((one) => (this.#attemptOf(one)?.failures ?? 0) > 0)
    return failed !== undefined && this.#hints.delete(failed)
  }

  #attempt(host: HostId, now: number): Attempt | undefined {
    const peer = this.components.peers.add(host)
    if (peer < 0) return undefined
    let attempt = this.#attempts.get(peer)
    if (attempt === undefined) {
      attempt = { nextAt: now + this.#firstWait(host), failures: 0, up: false, connecting: false, proven: false }
      this.#attempts.set(peer, attempt)
    }
    return attempt
  }

  #firstWait(host: HostId): number {
    if (this.#recorded.has(host) || !this.#hasSession()) return 0
    return this.#options.strangerWaitMs * (0.5 + this.components.random())
  }

  #hasSession(): boolean {
    for (const { up } of this.#attempts.values()) if (up) return true
    return false
  }
}

/** Position in the sorted list; -1: not in it. */
function place(hosts: readonly HostId[], host: HostId): number {
  let low = 0
  let high = hosts.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (hosts[middle]! < host) low = middle + 1
    else high = middle
  }
  return hosts[low] === host ? low : -1
}
