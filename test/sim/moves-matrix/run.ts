import type { Primitives } from '../../../lib/crypto/primitives.js'
import { pathMtuDefaults } from '../../../lib/path/path-mtu.js'
import { IPV4_HEADER, IPV6_HEADER } from '../../../lib/wire/ip.js'
import { UDP_HEADER } from '../../../lib/wire/udp.js'
import { seededRandom } from '../../tools/seeded-random.js'
import { HostWorld, type LinkOptions, type Passing } from '../host-world.js'
import { Attacker } from './attacker.js'
import { moveKinds, moveNames, type Made, type MoveKind, type MoveName, type Stage } from './moves.js'
import { SERVICE, Streams, type OneWay, type Span } from './streams.js'

const roundTrips = [0.2, 10, 80, 300] as const
const losses = [0, 0.01, 0.05] as const
/** Runs with real cryptography, of all. */
const REAL_SHARE = 0.01
/** Runs in which ways may carry less after a move, of all; what they carry then, and what ways carry else: IP packets, bytes. */
const NARROW_SHARE = 0.25
const NARROW_MTUS = [1_280, 1_400] as const
const MTU = 1_500
/** In front of a frame, by the underlay's family, bytes. */
const OUTER_HEADERS = { 4: IPV4_HEADER + UDP_HEADER, 6: IPV6_HEADER + UDP_HEADER } as const
/** Probes of which a sender concludes that its way carries less where nothing is lost, and how close they follow each other, ms, or in round trips. */
const PROBES = 8
const PROBE_SPACING_MS = 20
const PROBE_SPACING = 1 / 8
/** Between pieces of streams that are only to keep the hosts busy with each other, ms. */
const TALK_MS = 1_000
/** Added to the round trip until TCP sends again, ms. */
const RTO_MIN_MS = 200

/** Of a run, where it lies in the matrix. */
export interface Cell {
  readonly move: MoveName
  readonly rttMs: number
  readonly loss: number
}

export interface MoveReport {
  /** Longest time in which one of the TCP streams, or of the UDP streams, stood still, over what they do without a move, ms. */
  readonly tcpMs: number
  readonly udpMs: number
  readonly how: string
}

export interface RunReport extends Cell {
  readonly seed: number
  readonly moves: readonly MoveReport[]
  readonly datagrams: { readonly sent: number; readonly lost: number }
  readonly resets: number
  /** Frames of the attacker, all refused. */
  readonly refused: number
  /** What must not be. */
  readonly problems: readonly string[]
  /** How the world was made, for people. */
  readonly world: string
}

type Any = <T>(values: readonly T[]) => T

/** The matrix. */
export const cells: readonly Cell[] = losses.flatMap((loss) =>
  roundTrips.flatMap((rttMs) => moveNames.map((move) => ({ move, rttMs, loss }))),
)

/** Where the seed lies in the matrix: seeds one after the other are spread over all of it. */
export function cellOf(seed: number): Cell {
  return cells[seed % cells.length]!
}

/** One small world, whose hosts move once or twice under four streams while somebody attacks it. The same for the same seed. */
export function runOf(sodium: Primitives, seed: number): RunReport {
  const cell = cellOf(seed)
  const random = seededRandom(seed * 7919 + 1)
  const any: Any = (values) => values[Math.floor(random() * values.length)]!
  const run = new Run(sodium, seed, cell, random, any)
  try {
    run.go()
  } catch (error) {
    run.problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error))
  }
  return run.report()
}

class Run {
  readonly problems: string[] = []
  readonly #kind: MoveKind
  readonly #world: HostWorld
  readonly #link: LinkOptions
  readonly #attacker: Attacker
  readonly #stage: Stage
  readonly #real: boolean
  readonly #family: 4 | 6
  readonly #moves: MoveReport[] = []
  /** Large packets are sent, and ways carry less after a move. */
  readonly #narrow: boolean
  /** What ways carry to and from addresses that begin so; the last that holds. */
  readonly #ways: { readonly prefix: string; readonly mtu: number }[] = []
  /** Of the way after the move. */
  #mtu = MTU
  /** When large datagrams may be lost: until both ends know that the way is another one, and where nobody tells them, that it carries less. */
  readonly #learning: Span[] = []
  #streams: Streams | undefined
  /** After so long TCP sends again, as it has measured before the move, ms. */
  #rto = 0

  constructor(
    sodium: Primitives,
    readonly seed: number,
    readonly cell: Cell,
    readonly random: () => number,
    readonly any: Any,
  ) {
    const { rttMs, loss } = cell
    this.#kind = moveKinds[cell.move]
    this.#real = random() < REAL_SHARE
    this.#family = any([4, 4, 6])
    this.#link = {
      delay: rttMs / 2,
      loss,
      duplicate: any([0, 0, 0.02]),
      jitter: any([0, 0, Math.min(rttMs / 4, 10)]),
    }
    this.#narrow = random() < NARROW_SHARE
    const world = new HostWorld(sodium, seed, { link: this.#link, realCrypto: this.#real, host: { peerCapacity: 16 } })
    this.#world = world
    for (let i = 0; i < this.#kind.hosts; i++) {
      const host = world.add()
      host.settle(
        Array.from({ length: this.#kind.networks }, (_, network) => world.freshAddress(network, this.#family)),
      )
    }
    const [server, client] = any([
      [0, 1],
      [1, 0],
    ] as const).map((i) => world.hosts[i]!)
    const [mover, other] = any([
      [server!, client!],
      [client!, server!],
    ] as const)
    // What the mover says of itself, nobody behind the NAT's other side can reach.
    if (this.#kind.nat) mover.move(world.freshAddress(7, this.#family), false)
    this.#attacker = new Attacker(world, random, this.#family)
    this.#stage = {
      ...{ world, mover, other, rttMs, any },
      lossy: loss > 0,
      large: this.#narrow,
      dead: undefined,
      fresh: (network = 0) => {
        const address = world.freshAddress(network, this.#family)
        this.#passes(address)
        return address
      },
      passes: (prefix) => this.#passes(prefix),
      talk: () => this.#streams?.start(TALK_MS),
      mtuOf: (from, to) => this.#mtuOf(from, to),
    }
    world.filter = (passing) => {
      this.#attacker.sees(passing)
      if (this.#narrow && !this.#carries(passing)) return false
      const { dead } = this.#stage
      if (dead === undefined) return true
      const { from, to } = passing
      if (!from.startsWith(dead.network) && !to.startsWith(dead.network)) return true
      return dead.way !== 'both' && mover.isAt(from) !== (dead.way === 'there')
    }
  }

  go(): void {
    const streams = this.#meet()
    if (streams === undefined) return
    const count = this.any([1, 1, 1, 2])
    for (let i = 0; i < count && this.problems.length === 0; i++) this.#move(streams)
    streams.stop()
    const world = this.#world
    if (!world.until(() => streams.isWhole, 30_000, 20)) this.problems.push('not all that was sent by TCP has come')
    if (!streams.isTrue) this.problems.push('what came by TCP is not what was sent')
    world.runFor(this.cell.rttMs + 20)
    const lost =
      streams.udp.reduce((sum, way) => sum + way.lost, 0) +
      streams.largeUdp.reduce((sum, way) => sum + way.lostOutside(this.#learning), 0)
    if (lost > 0 && this.cell.loss === 0 && this.#kind.mayLose !== true)
      this.problems.push(`${lost} datagrams were lost`)
    for (const { name, twice } of [...streams.udp, ...streams.largeUdp])
      if (twice > 0) this.problems.push(`${name}: ${twice} came twice`)
    this.#attacker.finish()
    this.problems.push(...this.#attacker.problems, ...this.#oddDrops())
  }

  report(): RunReport {
    const ways = this.#streams?.udp ?? []
    return {
      ...this.cell,
      seed: this.seed,
      moves: this.#moves,
      datagrams: {
        sent: ways.reduce((sum, way) => sum + way.sentAt.length, 0),
        lost: ways.reduce((sum, way) => sum + way.lost, 0),
      },
      resets: this.#streams?.sockets.filter(({ state }) => state === 'reset').length ?? 0,
      refused: this.#attacker.sent,
      problems: this.problems,
      world: JSON.stringify({
        ...this.#link,
        family: this.#family,
        real: this.#real,
        mover: this.#stage.mover.name,
        mtu: this.#mtu,
      }),
    }
  }

  /** The hosts find each other, and the streams flow. */
  #meet(): Streams | undefined {
    const world = this.#world
    const { hosts } = world
    for (const host of hosts.slice(1)) host.hints.push(hosts[0]!)
    // Behind a NAT one has to begin.
    if (this.#kind.nat) this.#stage.mover.hints.push(this.#stage.other)
    for (const host of hosts) host.start()
    const { mover, other } = this.#stage
    const client = this.any([mover, other])
    const server = client === mover ? other : mover
    const pace = Math.max(5, this.cell.rttMs / 12)
    const streams = new Streams(
      client,
      server,
      { client: this.any([4, 6]), server: this.any([4, 6]) },
      pace,
      this.#narrow,
    )
    this.#streams = streams
    const known = () => client.host.catalogue.byName(SERVICE)?.instances.length === 1
    if (!world.until(known, 60_000, 20)) {
      this.problems.push('the client did not hear of the service within a minute')
      return undefined
    }
    // Any third host knows both.
    const met = () => world.converged && hosts.every(({ host }) => host.sessions.count === hosts.length - 1)
    if (!world.until(met, 60_000, 50)) this.problems.push('the hosts did not agree within a minute')
    streams.open()
    if (!world.until(() => streams.isOpen, 20_000, 5)) {
      this.problems.push('the streams did not begin within 20 s')
      return undefined
    }
    return streams
  }

  #move(streams: Streams): void {
    const world = this.#world
    const { rttMs, loss } = this.cell
    if (this.#narrow) this.#mtu = this.any([MTU, ...NARROW_MTUS])
    const unprepared = this.#kind.prepare?.(this.#stage)
    if (unprepared !== undefined) {
      this.problems.push(unprepared)
      return
    }
    streams.start()
    const began = world.now
    const flows = () => streams.all.every((way) => way.hasPassed(began))
    if (!world.until(flows, 20_000, 5)) this.problems.push('the streams do not flow before the move')
    const quiet = world.now
    world.runFor(6 * streams.pace + rttMs)
    const usual = streams.all.map((way) => way.longestGap(quiet, world.now))
    this.#attacker.attack(12, 2 * rttMs + 300)
    const { jitter = 0 } = this.#link
    const unsure = world.now - rttMs - jitter
    this.#rto = Math.max(...streams.sockets.map(({ patience }) => patience))
    const made: Made = this.#kind.make(this.#stage)
    if (made.fault !== undefined) this.problems.push(`${made.how}: ${made.fault}`)
    const moved = world.now
    const limit = this.#limit(loss) + Math.max(...streams.all.map((way) => this.#learnMs(way, moved - made.from)))
    // What is sent at first may go the way before, and be sent again by the new one.
    const since = this.#isNarrow ? Math.max(moved, made.from + made.boundMs + 3 * jitter) : moved
    const { settled, neverTooLarge } = made
    if (settled !== undefined) world.until(settled, limit, 1)
    const settledAt = world.now
    const recovered = world.until(() => streams.all.every((way) => way.hasPassed(since)), limit, 5)
    if (this.#isNarrow && neverTooLarge !== true)
      this.#learning.push({ from: unsure, to: settled === undefined ? world.now : settledAt })
    if (recovered) world.runFor(2 * streams.pace)
    streams.stop()
    const over = streams.all.map((way, i) => Math.max(0, way.longestGap(made.from, world.now) - usual[i]!))
    const [tcpThere = 0, tcpBack = 0, udpThere = 0, udpBack = 0] = over
    this.#moves.push({ tcpMs: Math.max(tcpThere, tcpBack), udpMs: Math.max(udpThere, udpBack), how: made.how })
    for (const [i, way] of streams.all.entries()) {
      // The round trips of the bound take longer, and a segment that was sent again does not come before the others.
      const bound =
        made.boundMs +
        3 * jitter +
        streams.pace +
        this.#learnMs(way, moved - made.from) +
        (i < streams.tcp.length ? rttMs : 0)
      if (loss === 0 && over[i]! > bound)
        this.problems.push(`${made.how}: ${way.name} stood still for ${over[i]!.toFixed(1)} ms, over ${bound} ms`)
    }
    for (const { state } of streams.sockets) if (state === 'reset') this.problems.push('the connection was reset')
    if (!recovered) {
      const still = streams.all.filter((way) => !way.hasPassed(since)).map(({ name }) => name)
      this.problems.push(`${made.how}: ${still.join(', ')} did not come back within ${limit} ms`)
    }
  }

  /** A way carries less than others, or has done so. */
  get #isNarrow(): boolean {
    return this.#ways.some(({ mtu }) => mtu < MTU)
  }

  #passes(prefix: string): void {
    if (this.#narrow) this.#ways.push({ prefix, mtu: this.#mtu })
  }

  /** What is too large for its way is lost without a word. */
  #carries({ from, to, bytes }: Passing): boolean {
    return bytes.length + OUTER_HEADERS[this.#family] <= this.#mtuOf(from, to)
  }

  #mtuOf(from: string, to: string): number {
    const ends = [from, to].map((end) => this.#ways.findLast(({ prefix }) => end.startsWith(prefix))?.mtu ?? MTU)
    return Math.min(...ends)
  }

  /**
   * How much longer large packets stand still, ms: they are sent seldom; and where a way carries less, until that is known, and TCP sends again, which waits twice as long each time. A host behind
   * a NAT does not know that its way is another one: unless TCP sends again, it learns it when it confirms what the way carries. `moving`: how long the move took, ms; with its last step it may be
   * tried anew.
   */
  #learnMs(way: OneWay, moving: number): number {
    const streams = this.#streams
    if (streams?.large !== true || streams.udp.includes(way)) return 0
    if (!this.#isNarrow) return streams.largePace
    const { rttMs } = this.cell
    const rtt = rttMs + 2 * (this.#link.jitter ?? 0)
    const again = Math.max(rtt + RTO_MIN_MS, this.#rto)
    const known =
      streams.largePace + moving + again + 3 * rtt + PROBES * Math.max(PROBE_SPACING_MS, PROBE_SPACING * rtt)
    if (!streams.largeUdp.includes(way)) return 2 * known + again
    return this.#kind.nat ? known + pathMtuDefaults.confirmMs : known
  }

  /** Within which streams must flow again, ms: on links that lose, control messages and segments are sent several times. */
  #limit(loss: number): number {
    const { rttMs } = this.cell
    return loss === 0 ? 1_500 + 8 * rttMs : 8_000 + 12 * rttMs
  }

  /** Reasons for which nothing is dropped in a healthy network, whatever the link and the attacker do. */
  #oddDrops(): string[] {
    const never = ['bad-control', 'not-entitled', 'foreign-source', 'malformed-packet'] as const
    return this.#world.hosts.flatMap(({ host, name }) =>
      never.filter((reason) => host.drops.get(reason) > 0).map((reason) => `${name} dropped ${reason}`),
    )
  }
}
