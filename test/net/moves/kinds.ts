import { randomInt } from 'node:crypto'
import { parseLocator } from '../../../lib/path/locator.js'
import { monotonicNow } from './asked-program.js'
import type { MoveNet, MoveNetOptions } from './move-net.js'

export interface Made {
  /** From then on the stall is counted; see {@link monotonicNow}. */
  readonly from: number
  /** It was not made as it should be, by our own slowness: to be made again. */
  readonly unfit?: string
  /** What the daemons did not do that they should, of the move itself. */
  readonly fault?: string
  /** To be called when the stall is over: whether the move has taken place. */
  readonly check?: () => Promise<Fault>
}

/** Why something is no proper move; undefined: it is one. */
export type Fault = string | undefined

/** A way in which hosts move. */
export interface MoveKind {
  readonly title: string
  /** What the stall is counted from. */
  readonly countedFrom: string
  readonly net: Pick<MoveNetOptions, 'networks' | 'nat'> & { readonly hosts: readonly string[] }
  /** Bound of p99 of the stall, above the baseline, ms. */
  readonly target: (rttMs: number) => number
  /** Datagrams may be lost; otherwise none, but those that did not fit into the receiving program's own buffer. */
  readonly mayLose: boolean
  /** From when on the stall is looked for, and for how long, ms. */
  readonly windowMs: number
  /** Undoes what the move before has left, and waits for what the next one needs. */
  readonly prepare?: (net: MoveNet) => Promise<Fault>
  /** Makes move number `n`. */
  readonly make: (net: MoveNet, n: number) => Promise<Made>
}

const [A, B, C] = ['h1', 'h2', 'h3']
const TWO = [A, B]
/** Until the old address goes, the new one has that long to be proven, ms. */
const PROVEN_MS = 1_000
/** Between looks whether it is: each takes the other host's daemon a millisecond. */
const LOOK_MS = 50
/** A host is without an address for so long, ms. */
const AWAY_MS = [200, 400] as const
/** And without a route for so much longer. */
const LATE_MS = [1, 100] as const
const BOTH_MS = 10
const STANDBY_MS = 40_000
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Whether the other host sends to that address of the host. */
async function reaches(net: MoveNet, other: string, host: string, address: string): Promise<boolean> {
  const locator = (await net.inUse(other, host)) ?? ''
  return parseLocator(locator)?.address === address
}

async function planned(net: MoveNet): Promise<Made> {
  const next = net.address(A, 0, 1)
  const { asked } = await net.ip(A, net.adding(A))
  const proven = await net.within(PROVEN_MS, () => reaches(net, B, A, next), LOOK_MS)
  await net.ip(A, net.removing(A))
  net.advance(A)
  return { from: asked, ...(proven ? {} : { fault: `${next} was not proven within ${PROVEN_MS} ms` }) }
}

async function vanish(net: MoveNet): Promise<Made> {
  await net.ip(A, [...net.unrouting(A), ...net.removing(A)])
  await pause(randomInt(...AWAY_MS))
  const { asked } = await net.ip(A, net.adding(A))
  net.advance(A)
  return { from: asked }
}

/** The kernel tells of the address while nothing can be sent from it yet. */
async function routedLate(net: MoveNet): Promise<Made> {
  const [address = '', ...routes] = net.adding(A)
  await net.ip(A, [...net.unrouting(A), ...net.removing(A)])
  await pause(randomInt(...AWAY_MS))
  await net.ip(A, [address])
  await pause(randomInt(...LATE_MS))
  const { asked } = await net.ip(A, routes)
  net.advance(A)
  return { from: asked }
}

async function both(net: MoveNet): Promise<Made> {
  const change = async (host: string) => {
    const changed = await net.ip(host, [...net.removing(host), ...net.adding(host)])
    net.advance(host)
    return changed
  }
  const first = change(A)
  const wait = randomInt(BOTH_MS)
  for (const end = monotonicNow() + wait; monotonicNow() < end;) await new Promise((resolve) => setImmediate(resolve))
  const second = change(B)
  const [{ asked }, { asked: later }] = await Promise.all([first, second])
  return { from: later, ...(later - asked <= BOTH_MS ? {} : { unfit: `${later - asked} ms between the two` }) }
}

/** The network by which the first host's frames go to the second: the other one's number is the standby's. */
async function networkInUse(net: MoveNet): Promise<number> {
  return Number(/^10\.8(\d)\./.exec((await net.inUse(A, B)) ?? '')?.[1] ?? 0)
}

async function silent(net: MoveNet): Promise<Made> {
  return { from: (await net.silence(await networkInUse(net))).asked }
}

/** All paths work, and each end has proven one on each network since they do. */
async function bothProven(net: MoveNet): Promise<Fault> {
  let since = monotonicNow() - STANDBY_MS
  for (const network of net.silent) since = (await net.mend(network)).made
  const proven = async (host: string, other: string, network: number) =>
    (await net.paths(host, other)).some(
      ({ remote, state, inUse, lastHeardMs }) =>
        remote.startsWith(`10.8${network}.`) &&
        state === 'proven' &&
        (inUse || (lastHeardMs !== null && lastHeardMs < monotonicNow() - since)),
    )
  const all = async () => {
    for (const network of [0, 1]) if (!(await proven(A, B, network)) || !(await proven(B, A, network))) return false
    return true
  }
  return (await net.within(STANDBY_MS, all, 100)) ? undefined : `no standby path was proven within ${STANDBY_MS} ms`
}

async function rebind(net: MoveNet): Promise<Made> {
  const before = await net.inUse(B, A)
  const from = monotonicNow()
  net.onRouter('conntrack', '-D', '-p', 'udp')
  const check = async () => ((await net.inUse(B, A)) === before ? `the port is still that of ${before}` : undefined)
  return { from, check }
}

async function killed(net: MoveNet, n: number): Promise<Made> {
  const from = monotonicNow()
  const host = net.hosts[n % 2]!
  await net.lab.stopDaemon(host, 'SIGKILL')
  await net.lab.startDaemon(host)
  return { from }
}

async function replaced(net: MoveNet, n: number): Promise<Made> {
  const from = monotonicNow()
  await net.lab.startDaemon(net.hosts[n % 2]!, ['--replace'])
  return { from }
}

/** By the name that the option `--rows` takes. */
export const moveKinds = {
  planned: {
    title: 'planned address change, make-before-break',
    countedFrom: 'the new address is added; the old one goes when the peer uses the new one',
    net: { hosts: TWO, networks: 1 },
    target: () => 5,
    mayLose: false,
    windowMs: 2_000,
    make: planned,
  },
  vanish: {
    title: 'address vanishes, another appears',
    countedFrom: 'the new address and route are asked of the kernel',
    net: { hosts: TWO, networks: 1 },
    target: (rttMs) => 1.5 * rttMs + 20,
    mayLose: false,
    windowMs: 2_000,
    make: vanish,
  },
  late: {
    title: 'address vanishes, another appears, its route later',
    countedFrom: 'the new route is asked of the kernel',
    net: { hosts: TWO, networks: 1 },
    target: (rttMs) => 1.5 * rttMs + 20,
    mayLose: false,
    windowMs: 2_000,
    make: routedLate,
  },
  silent: {
    title: 'silent path death, second path proven',
    countedFrom: 'the router begins to drop what is on that network',
    net: { hosts: TWO, networks: 2 },
    target: () => 300,
    mayLose: false,
    windowMs: 2_000,
    prepare: bothProven,
    make: silent,
  },
  both: {
    title: 'both ends move within 10 ms',
    countedFrom: 'the second new address is asked of the kernel',
    net: { hosts: [A, B, C], networks: 1 },
    target: (rttMs) => 3 * rttMs + 50,
    mayLose: false,
    windowMs: 2_000,
    make: both,
  },
  nat: {
    title: 'NAT rebinds, port changes',
    countedFrom: 'conntrack -D is started; both ends send all the time',
    net: { hosts: TWO, networks: 1, nat: true },
    target: (rttMs) => rttMs + 20,
    mayLose: false,
    windowMs: 2_000,
    make: rebind,
  },
  kill: {
    title: 'daemon kill -9, up at once',
    countedFrom: 'the signal; clients’ and servers’ daemons in turn',
    net: { hosts: TWO, networks: 1 },
    target: () => 1_000,
    mayLose: true,
    windowMs: 2_000,
    make: killed,
  },
  replace: {
    title: 'daemon up --replace',
    countedFrom: 'the new daemon is started; clients’ and servers’ daemons in turn',
    net: { hosts: TWO, networks: 1 },
    target: () => 50,
    mayLose: false,
    windowMs: 2_000,
    make: replaced,
  },
} satisfies Readonly<Record<string, MoveKind>>
export type MoveName = keyof typeof moveKinds
