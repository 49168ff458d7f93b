import { proberDefaults } from '../../../lib/path/prober-options.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'
import type { HostWorld, WorldHost } from '../host-world.js'
import { prefixOf } from '../underlay.js'

/** What a move is made of. */
export interface Stage {
  readonly world: HostWorld
  readonly mover: WorldHost
  readonly other: WorldHost
  /** Of the bare underlay, ms. */
  readonly rttMs: number
  /** Datagrams are lost. */
  readonly lossy: boolean
  /** Large packets are sent. */
  readonly large: boolean
  /** Frames to and from addresses that begin so are lost: those of the mover, those to it, or both. */
  dead: { readonly network: string; readonly way: 'both' | 'there' | 'back' } | undefined
  readonly any: <T>(values: readonly T[]) => T
  /** A new address on the underlay's network of this number, to which the way is as it is after the move. */
  readonly fresh: (network?: number) => string
  /** From now on the way to and from the addresses that begin so is as it is after the move: it may carry less. */
  readonly passes: (prefix: string) => void
  /** The streams flow slowly from now on: the hosts have something to say to each other. */
  readonly talk: () => void
  /** What the way between these addresses carries: IP packets, bytes. */
  readonly mtuOf: (from: string, to: string) => number
}

export interface Made {
  /** The stall is counted from then on, ms. */
  readonly from: number
  /** The longest that streams stand still where nothing else is lost, ms. */
  readonly boundMs: number
  /**
   * Whether both ends send by the new way, and know that it is one: since then no datagram is lost because it is too large for that. Left out: nobody tells them.
   * `neverTooLarge`: none is before either.
   */
  readonly settled?: () => boolean
  readonly neverTooLarge?: boolean
  /** What the daemons did not do that they should. */
  readonly fault?: string
  /** What exactly was done, for people. */
  readonly how: string
}

/** A way in which hosts move, as in test/net/moves/kinds.ts. */
export interface MoveKind {
  readonly hosts: number
  readonly networks: number
  readonly nat: boolean
  /** Datagrams may be lost on links that lose nothing. */
  readonly mayLose?: boolean
  /** Waits for what the move needs. What is missing; undefined: nothing. */
  readonly prepare?: (stage: Stage) => string | undefined
  readonly make: (stage: Stage) => Made
}

/** Until the old address goes, or a standby path is needed, it has so long to be proven, ms. */
const PROVEN_MS = 1_000
/** The peer may go on using an address that is there, although routes have changed: so long is waited for that it does not, ms. */
const ROUTED_MS = 60
/** A standby path of hosts that have nothing to say to each other is probed so seldom, and several probes in a row may be lost. */
const STANDBY_MS = 8 * proberDefaults.standbyIdleMs
/** While hosts talk, what a standby path carries is measured within so many probes of it. */
const MEASURED_PROBES = 120
/** So long peers wait for a daemon that is replaced. */
const PAUSE_MS = 2_000
/** What all addresses begin with. */
const EVERYWHERE = ''

/** Where the host's frames to the other go. */
export function inUse(at: WorldHost, to: WorldHost): string {
  const { peers } = at.host
  const slot = peers.pathSlot[peers.indexOf(to.id)]!
  return slot < 0 ? '' : at.world.textOf(peers.addresses.records, slot * ADDRESS_RECORD)
}

function planned(stage: Stage): Made {
  const { world, mover, other, rttMs, any } = stage
  const old = mover.address
  const next = stage.fresh()
  const deprecated = any([true, false])
  mover.settle([next, old])
  const from = world.now
  // Where nothing but the routes says which address is to be used, the peer learns it from what comes from there.
  if (!deprecated) world.runFor(any([1, 5, 20]))
  mover.tell(deprecated ? [old] : [])
  const limit = 4 * rttMs + (deprecated ? PROVEN_MS * (stage.lossy ? 3 : 1) : ROUTED_MS)
  const proven = world.until(() => inUse(other, mover) === next, limit, 1)
  // What was on its way to the old address has come.
  world.runFor(any([1, 2]) * rttMs + 10)
  mover.settle([next])
  mover.tell()
  const how = deprecated ? 'the old address is deprecated first' : 'routes change first'
  // Without a word before, what is on its way to the old address has to be sent again.
  const boundMs = 5 + (deprecated ? 0 : rttMs)
  const settled = () => inUse(other, mover) === next
  const fault = proven || !deprecated ? {} : { fault: `${next} was not used within ${limit} ms` }
  return { from, boundMs, settled, neverTooLarge: deprecated, how, ...fault }
}

function vanish(stage: Stage): Made {
  const { world, mover, rttMs, any } = stage
  const away = any([0, 5, 50, 200, 400])
  if (away > 0) {
    mover.settle([])
    mover.tell()
    world.runFor(away)
  }
  const next = stage.fresh()
  mover.settle([next])
  const from = world.now
  const late = any([0, 0, 1, 5])
  if (late > 0) world.runFor(late)
  mover.tell()
  return {
    from,
    boundMs: 1.5 * rttMs + 20,
    settled: () => inUse(stage.other, mover) === next,
    how: `${mover.name} without an address for ${away} ms, told ${late} ms late`,
  }
}

function both(stage: Stage): Made {
  const { world, mover, other, rttMs, any } = stage
  const between = any([0, 1, 3, 10])
  const [here, there] = [stage.fresh(), stage.fresh()]
  mover.settle([here])
  mover.tell()
  if (between > 0) world.runFor(between)
  other.settle([there])
  other.tell()
  const settled = () => inUse(other, mover) === here && inUse(mover, other) === there
  return { from: world.now, boundMs: 3 * rttMs + 50, settled, how: `${between} ms between the two` }
}

function silent(stage: Stage): Made {
  const { world, mover, other, rttMs, any } = stage
  const way = any(['both', 'both', 'there', 'back'] as const)
  const network = prefixOf(inUse(mover, other))
  stage.dead = { network, way }
  const settled = () => ![inUse(mover, other), inUse(other, mover)].some((to) => to.startsWith(network))
  return { from: world.now, boundMs: 110 + 3 * rttMs, settled, how: `${network} silent ${way}` }
}

/** All paths work, and each end has proven one on each network since they do: one that begins on another network is silent with that one. */
function bothProven(stage: Stage): string | undefined {
  const { world, mover, other, rttMs } = stage
  stage.dead = undefined
  const since = world.now
  const proven = (at: WorldHost, to: WorldHost) => {
    const { peers, prober } = at.host
    const networks = new Set<string>()
    for (const { slot, state, provenAt, inUse, localSeen } of prober.paths(peers.indexOf(to.id))) {
      const remote = world.textOf(peers.addresses.records, slot * ADDRESS_RECORD)
      const own = localSeen === undefined ? undefined : at.seenOf(localSeen)
      const within = own !== undefined && prefixOf(own) === prefixOf(remote)
      if (state === 'proven' && (inUse || (within && provenAt > since))) networks.add(prefixOf(remote))
    }
    return networks.size > 1
  }
  const all = () => proven(mover, other) && proven(other, mover)
  if (!world.until(all, STANDBY_MS, 50)) return `no standby path was proven within ${STANDBY_MS} ms`
  if (!stage.large) return undefined
  const used = prefixOf(inUse(mover, other))
  for (const address of mover.addresses) if (!address.startsWith(used)) stage.passes(prefixOf(address))
  stage.talk()
  const measured = () => isMeasured(stage, mover, other) && isMeasured(stage, other, mover)
  const limit = MEASURED_PROBES * Math.max(proberDefaults.standbyActiveMs, 10 * rttMs)
  if (world.until(() => all() && measured(), limit, 50)) return undefined
  return `what the standby paths carry was not measured within ${limit} ms`
}

/** Whether the host takes none of the proven paths to the other to carry more than they do. */
function isMeasured({ world, mtuOf }: Stage, at: WorldHost, to: WorldHost): boolean {
  const { peers, prober, peering } = at.host
  const peer = peers.indexOf(to.id)
  return prober.paths(peer).every(({ slot, state, localSeen }) => {
    if (state !== 'proven' || localSeen === undefined) return true
    const remote = world.textOf(peers.addresses.records, slot * ADDRESS_RECORD)
    const mtu = peering.ways.pathMtus.of(peer, slot)?.mtu
    return mtu !== undefined && mtu <= mtuOf(at.seenOf(localSeen) ?? '', remote)
  })
}

function rebind(stage: Stage): Made {
  const { world, mover, rttMs, large } = stage
  const [host = ''] = mover.address.split(/:\d+$/)
  const seen = `${host}:${stage.any([20_000, 30_000]) + Math.floor(world.random() * 10_000)}`
  stage.passes(seen)
  mover.move(seen, false)
  // Before the proof three times what has come from there may go there: what is larger waits for the proof, and so does what is behind it.
  const boundMs = (large ? 2 : 1) * rttMs + 20
  return { from: world.now, boundMs, how: `${mover.name} is behind the NAT` }
}

function killed(stage: Stage): Made {
  const { world, mover, rttMs, any } = stage
  stage.passes(EVERYWHERE)
  const from = world.now
  const down = any([0, 5, 50, 200])
  mover.restart(down, true)
  world.runFor(down)
  return { from, boundMs: down + 200 + 4 * rttMs, how: `${mover.name}’s daemon killed, up after ${down} ms` }
}

function replaced(stage: Stage): Made {
  const { world, mover, rttMs, any } = stage
  stage.passes(EVERYWHERE)
  const from = world.now
  mover.enter((host) => host.pausePeers(PAUSE_MS, world.now))
  const paused = world.until(() => mover.host.peering.pauses.pending === 0, PAUSE_MS / 2, 1)
  // What was on its way has come.
  world.runFor((world.link.jitter ?? 0) + 1)
  const down = any([0, 1, 10])
  mover.restart(down, true)
  world.runFor(down)
  const how = `${mover.name}’s daemon replaced, without one for ${down} ms`
  const fault = paused || stage.lossy ? {} : { fault: 'the peers did not say that they wait' }
  return { from, boundMs: down + 50 + 4 * rttMs, how, ...fault }
}

/** By name. */
export const moveKinds = {
  planned: { hosts: 2, networks: 1, nat: false, make: planned },
  vanish: { hosts: 2, networks: 1, nat: false, make: vanish },
  silent: { hosts: 2, networks: 2, nat: false, prepare: bothProven, make: silent },
  both: { hosts: 3, networks: 1, nat: false, make: both },
  nat: { hosts: 2, networks: 1, nat: true, make: rebind },
  kill: { hosts: 2, networks: 1, nat: false, mayLose: true, make: killed },
  replace: { hosts: 2, networks: 1, nat: false, make: replaced },
} satisfies Readonly<Record<string, MoveKind>>
export type MoveName = keyof typeof moveKinds
export const moveNames = Object.keys(moveKinds).filter((name): name is MoveName => Object.hasOwn(moveKinds, name))
