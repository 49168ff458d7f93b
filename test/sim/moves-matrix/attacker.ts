import { CLEAR_HEADER, FrameType } from '../../../lib/wire/constants.js'
import { dropReasons, type DropReason } from '../../../lib/wire/drop.js'
import type { HostWorld, Passing, WorldHost } from '../host-world.js'
import { prefixOf } from '../underlay.js'

/** Network of the attacker's own addresses. */
const NETWORK = 66
const ADDRESSES = 3
/** Frames that are remembered, handshakes apart. */
const RECORDED_MAX = 48
const HANDSHAKES_MAX = 8
/** Bytes that may go to an address for each that came from there. */
const AMPLIFICATION = 3

/** What becomes of a frame that somebody recorded or made up. */
const refusals: ReadonlySet<DropReason> = new Set<DropReason>([
  'truncated',
  'bad-version',
  'bad-type',
  'not-ours',
  'bad-mac',
  'cookie-required',
  'rate-limited',
  'handshake-failed',
  'handshake-replayed',
  'unknown-lane',
  'bad-tag',
  'replayed',
  'bad-frame',
])

interface Recorded {
  readonly host: WorldHost
  /** Of the process that it came to. */
  readonly engine: WorldHost['host']
  readonly from: string
  readonly bytes: Uint8Array
}

/**
 * Reads along, and sends what has come once more, later and from elsewhere; under others' addresses; made up and changed. It can keep nothing from arriving, and has no key. After
 * each frame it looks whether that was refused, with a reason, and has changed nothing.
 */
export class Attacker {
  readonly problems: string[] = []
  /** Frames sent, and what became of those that are to be refused. */
  sent = 0
  readonly refused = new Map<DropReason, number>()
  readonly #addresses: readonly string[]
  readonly #network: string
  readonly #frames: Recorded[] = []
  readonly #handshakes: Recorded[] = []
  readonly #given = new Map<string, number>()
  readonly #taken = new Map<string, number>()

  constructor(
    private readonly world: HostWorld,
    private readonly random: () => number,
    family: 4 | 6,
  ) {
    this.#addresses = Array.from({ length: ADDRESSES }, () => world.freshAddress(NETWORK, family))
    this.#network = prefixOf(this.#addresses[0]!)
    world.arrived = (passing) => this.#record(passing)
  }

  /** A frame is sent by somebody; what goes to the attacker is counted. */
  sees({ to, bytes }: Passing): void {
    if (to.startsWith(this.#network)) this.#taken.set(to, (this.#taken.get(to) ?? 0) + bytes.length)
  }

  /** So many frames within the time, at random moments. */
  attack(count: number, ms: number): void {
    const { world } = this
    for (let i = 0; i < count; i++) world.events.at(world.now + this.random() * ms, () => this.#strike())
  }

  /** Looks once more at all that must not have happened. */
  finish(): void {
    for (const [address, bytes] of this.#taken)
      if (bytes > AMPLIFICATION * (this.#given.get(address) ?? 0))
        this.problems.push(`${bytes} bytes went to the attacker, who sent ${this.#given.get(address) ?? 0}`)
    for (const { name, log } of this.world.hosts)
      for (const line of log)
        if (line.startsWith('moved') && line.includes(`→ ${this.#network}`)) this.problems.push(`${name}: ${line}`)
  }

  #record({ from, to, bytes }: Passing): void {
    const host = this.world.hosts.find((each) => each.isAt(to))
    if (host?.running !== true) return
    const list = bytes[0] === FrameType.transport ? this.#frames : this.#handshakes
    const max = list === this.#frames ? RECORDED_MAX : HANDSHAKES_MAX
    const at = list.length < max ? list.length : Math.floor(this.random() * max)
    list[at] = { host, engine: host.host, from, bytes }
  }

  #strike(): void {
    const list = this.#handshakes.length > 0 && this.random() < 0.15 ? this.#handshakes : this.#frames
    const recorded = this.#any(list)
    if (recorded === undefined || !recorded.host.running) return
    const source =
      this.random() < 0.5 ? this.#any(this.#addresses)! : this.random() < 0.7 ? recorded.from : this.#somebody(recorded)
    const changed = this.random() < 0.6 ? undefined : this.#changed(recorded.bytes)
    // A process that was started since does not know which handshakes are old: it may answer, which comes to nothing. What only matters under load may be changed in them.
    const mayAnswer = recorded.bytes[0] === FrameType.init && recorded.engine !== recorded.host.host
    this.#send(recorded.host, source, changed ?? recorded.bytes, mayAnswer)
  }

  #send(host: WorldHost, from: string, bytes: Uint8Array, mayAnswer: boolean): void {
    const { drops } = host.host
    const counts = drops.counts.slice()
    const before = this.#stateOf(host)
    this.sent++
    this.#given.set(from, (this.#given.get(from) ?? 0) + bytes.length)
    host.read([{ from, bytes: bytes.slice(), segment: 0 }])
    const reasons = dropReasons.filter((_, i) => drops.counts[i]! > counts[i]!)
    for (const reason of reasons) this.refused.set(reason, (this.refused.get(reason) ?? 0) + 1)
    const answered = mayAnswer && reasons.length === 0
    if (!answered && (reasons.length !== 1 || !refusals.has(reasons[0]!)))
      this.problems.push(`${host.name} took a frame of type ${bytes[0]} (dropped: ${reasons.join(' ') || 'nothing'})`)
    const after = this.#stateOf(host)
    if (after !== before) this.problems.push(`${host.name}: a frame of the attacker changed ${before} to ${after}`)
  }

  /** What no frame of the attacker may change. */
  #stateOf({ host }: WorldHost): string {
    const commits = [...host.prober.commits.values()].reduce((sum, count) => sum + count, 0)
    const { received } = host.peering.ways.rebinding
    return `${commits} moves, ${received} messages of moves, ${host.sessions.count} sessions, ${host.flows.table.count} flows`
  }

  /** Made up, or made of a recorded frame. */
  #changed(bytes: Uint8Array): Uint8Array {
    const { random } = this
    const copy = bytes.slice()
    const kind = Math.floor(random() * 5)
    if (kind === 0) return copy.subarray(0, Math.floor(random() * copy.length))
    if (kind === 1) return Uint8Array.from({ length: 1 + Math.floor(random() * 200) }, () => random() * 256)
    // A counter that has not been used yet; another lane; any bit.
    if (kind === 2) copy[8 + Math.floor(random() * 6)]! += 1 + Math.floor(random() * 255)
    else if (kind === 3) copy[4 + Math.floor(random() * 4)]! ^= 1 << Math.floor(random() * 8)
    else copy[Math.floor(random() * copy.length)]! ^= 1 << Math.floor(random() * 8)
    if (kind === 2 && copy.length > CLEAR_HEADER) copy[CLEAR_HEADER]! ^= random() < 0.5 ? 1 : 0
    return copy
  }

  /** Another host's address. */
  #somebody({ host, from }: Recorded): string {
    return this.#any(this.world.hosts.filter((each) => each !== host && each.address !== ''))?.address ?? from
  }

  #any<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.random() * list.length)]
  }
}
