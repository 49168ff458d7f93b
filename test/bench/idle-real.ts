// What real daemons cost that have nothing to do: `npm run bench:idle -- --real [PEERS] [SECONDS] [--settle SECONDS]`. So many hosts and one more, in namespaces on one switch; every one is
// known to every other one. Counted is the processor time of each daemon, all threads, as the scheduler has it, and how often its threads were woken. Beside it a program of Node's that does
// nothing but answer datagrams, some in a second: what a machine lets one that sleeps in between have for so little.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { withDaemon } from '../../cli/daemon.js'
import { HOSTS_MAX, Lab } from '../../cli/lab/lab.js'
import { runInside } from '../../cli/lab/holder.js'
import { used } from './processor-time.js'
import { Targets } from './targets.js'

/** A requirement, with a hundred peers: percent of a core. */
const PERCENT_MAX = 0.2
const SERVICE_PORT = 9_200
/** Datagrams a second that the program beside answers, and their bytes, a probe's. */
const ANSWERED = 6
const ANSWERED_BYTES = 61
const ANSWER_PORT = 9_201
/** Rows of a flow table of which a hundred fit the memory. */
const FLOWS = 16_384
const KNOWN_MS = 300_000
const SLOW_START_MS = 120_000
/** How many daemons begin at the same time. */
const STARTING = 2

export interface IdleOptions {
  readonly peers: number
  readonly seconds: number
  /** After all know all: what is made anew in turns, as sessions are, is so once by then. */
  readonly settle: number
}

interface Member {
  readonly lab: Lab
  readonly name: string
}

export async function idleReal({ peers, seconds, settle }: IdleOptions): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-idle-'))
  const labs: Lab[] = []
  try {
    const members = await namespaces(folder, peers + 1, labs)
    await startAll(members)
    // Neither the one that has invited the others nor the last that has come.
    const measured = members[members.length >> 1]!
    await serve(measured)
    const beside = await answering(measured, members.find((member) => member !== measured) ?? measured)
    await allKnown(members)
    console.error(`${members.length} daemons know each other; ${settle} s until they are quiet, ${seconds} s measured`)
    await pause(settle * 1_000)
    const pids = [...members.map(({ lab, name }) => lab.host(name).daemon!.pid), beside]
    const before = pids.map(used)
    const started = performance.now()
    await pause(seconds * 1_000)
    const after = pids.map(used)
    const passed = (performance.now() - started) / 1_000
    const { sessions } = await withDaemon({ socket: socketOf(measured) }, (daemon) => daemon.call('status', {}))
    const rows = [...members.map(({ name }) => name), 'beside'].map((name, i) => ({
      name,
      measured: members[i] === measured,
      percent: (after[i]!.time - before[i]!.time) / 1e7 / passed,
      wakesPerSecond: (after[i]!.wakes - before[i]!.wakes) / passed,
    }))
    report(rows.slice(0, -1), rows.at(-1)!, { peers, seconds: passed, sessions: sessions.up })
  } finally {
    for (const lab of labs.toReversed()) await lab.down()
    rmSync(folder, { recursive: true, force: true })
  }
}

const socketOf = ({ lab, name }: Member): string => lab.path(name, 'control.sock')

/** Hosts without daemons. A lab has at most {@link HOSTS_MAX}: further ones are joined to the first one's switch. */
async function namespaces(folder: string, count: number, labs: Lab[]): Promise<Member[]> {
  const settings = join(folder, 'settings.yaml')
  writeFileSync(settings, `limits: { flows: ${FLOWS} }\n`)
  for (let first = 0; first < count; first += HOSTS_MAX) {
    const number = labs.length
    const names = Array.from({ length: Math.min(HOSTS_MAX, count - first) }, (_, i) => `h${first + i + 1}`)
    const lab = await Lab.up(names, {
      directory: join(folder, `lab${number}`),
      subnet: `10.82.${number}`,
      daemons: false,
      upArguments: () => ['--config', settings],
      join: async (lab) => plugIn(labs[0] ?? lab, lab, number),
    })
    labs.push(lab)
  }
  const members = labs.flatMap((lab) => lab.hosts.map(({ name }) => ({ lab, name })))
  for (const member of members) acquaint(member, members)
  return members
}

/** The kernel has room for a thousand neighbours learnt by asking, in all namespaces together: fewer than thirty-five hosts that talk to each other have. Those that are said it takes without a limit. */
function acquaint({ lab, name }: Member, members: readonly Member[]): void {
  const addresses = members.map((member) => member.lab.host(member.name).address)
  const own = lab.host(name).address
  const lines = addresses
    .filter((address) => address !== own)
    .map((address) => `neigh replace ${address} lladdr ${linkAddress(address)} dev eth0 nud permanent`)
  lab.script(name, `ip -batch - <<'END'\n${lines.join('\n')}\nEND`)
}

/** Locally administered, and after the IPv4 address. */
function linkAddress(address: string): string {
  const bytes = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'))
  return ['02', '00', ...bytes].join(':')
}

function plugIn(to: Lab, lab: Lab, number: number): void {
  if (to === lab) runInside(to.switchHolder, 'ip addr add 10.82.255.254/16 dev br0')
  for (const [i, { holder, name, address }] of lab.hosts.entries()) {
    const port = `p${number}-${i}`
    runInside(
      to.switchHolder,
      `ip link add ${port} type veth peer name eth0 netns ${holder.pid}
       ip link set ${port} master br0 up`,
    )
    lab.script(
      name,
      `ip link set eth0 address ${linkAddress(address)}
       ip addr add ${address}/16 dev eth0
       ip link set eth0 up
       ip route add default via 10.82.255.254`,
    )
  }
}

/** A few at a time: all at once would be an hour's work for two processors in a minute, and daemons that are not answered in time begin again. */
async function startAll(members: readonly Member[]): Promise<void> {
  const [creator, ...others] = members
  await creator!.lab.startDaemon(creator!.name, ['--create', 'idle'])
  if (others.length === 0) return
  const printed = await creator!.lab.caracal(creator!.name, 'invite', '--uses', String(others.length))
  const token = printed.trimEnd().split('\n').at(-1)!
  const left = [...others]
  const one = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const member = next
      await next.lab.startDaemon(next.name, ['--join', token]).catch((error: unknown) => ready(member, error))
      if (left.length % 10 === 0) console.error(`${left.length} daemons are still to be started`)
    }
  }
  await Promise.all(Array.from({ length: STARTING }, one))
}

/** One that the lab has not seen come up in its time gets more: the machine is busy with all the others. */
async function ready(member: Member, error: unknown): Promise<void> {
  for (const deadline = performance.now() + SLOW_START_MS; performance.now() < deadline; await pause(1_000)) {
    const state = await withDaemon({ socket: socketOf(member) }, (daemon) => daemon.call('status', {})).catch(
      () => undefined,
    )
    if (state !== undefined) return
  }
  throw error
}

async function serve(member: Member): Promise<void> {
  await listening(
    member,
    `require('node:net').createServer().listen(${SERVICE_PORT}, '::', () => console.log('listening'))`,
  )
  await member.lab.caracal(member.name, 'expose', 'idle', '--tcp', String(SERVICE_PORT))
}

/** Starts a program of Node's on the host; resolves with its process ID once it has printed something. */
async function listening({ lab, name }: Member, program: string): Promise<number> {
  const child = lab.spawn(name, [process.execPath, '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise((resolve) => child.stdout!.once('data', resolve))
  child.unref()
  return child.pid!
}

/** Starts the program that answers, on one host, and who asks it, on another; resolves with its process ID. */
async function answering(on: Member, from: Member): Promise<number> {
  const answer = `const socket = require('node:dgram').createSocket('udp4')
    socket.on('message', (bytes, { port, address }) => socket.send(bytes, port, address))
    socket.bind(${ANSWER_PORT}, () => console.log('listening'))`
  const ask = `const socket = require('node:dgram').createSocket('udp4')
    const ask = () => socket.send(Buffer.alloc(${ANSWERED_BYTES}), ${ANSWER_PORT}, '${on.lab.host(on.name).address}')
    setInterval(ask, ${1_000 / ANSWERED})`
  const pid = await listening(on, answer)
  from.lab.spawn(from.name, [process.execPath, '-e', ask], { stdio: 'ignore' }).unref()
  return pid
}

async function allKnown(members: readonly Member[]): Promise<void> {
  const deadline = performance.now() + KNOWN_MS
  for (const member of members) {
    for (;;) {
      const { sessions, services } = await withDaemon({ socket: socketOf(member) }, (d) => d.call('status', {}))
      if (sessions.known === members.length - 1 && services.known === 1) break
      if (performance.now() > deadline)
        throw new Error(`${member.name} knows ${sessions.known} of ${members.length - 1} hosts after ${KNOWN_MS} ms`)
      await pause(1_000)
    }
  }
}

interface Row {
  readonly name: string
  readonly measured: boolean
  readonly percent: number
  readonly wakesPerSecond: number
}

function report(rows: readonly Row[], beside: Row, about: { peers: number; seconds: number; sessions: number }): void {
  const { peers, seconds, sessions } = about
  const chosen = rows.find(({ measured }) => measured)!
  const mean = (of: (row: Row) => number) => rows.reduce((sum, row) => sum + of(row), 0) / rows.length
  const most = rows.reduce((a, b) => (b.percent > a.percent ? b : a))
  const line = (what: string, percent: number, wakes: number) =>
    console.log(`${what.padEnd(40)} ${percent.toFixed(3)} % of a core   ${wakes.toFixed(1)} wakes a second`)
  console.log(`${peers} peers, ${seconds.toFixed(0)} s`)
  line(`${chosen.name}, one service, ${sessions} sessions`, chosen.percent, chosen.wakesPerSecond)
  const meanPercent = mean(({ percent }) => percent)
  line(
    'mean of all',
    meanPercent,
    mean(({ wakesPerSecond }) => wakesPerSecond),
  )
  line(`the busiest, ${most.name}`, most.percent, most.wakesPerSecond)
  line(`Node that answers ${ANSWERED} datagrams a second`, beside.percent, beside.wakesPerSecond)
  const targets = new Targets()
  targets.atMost(`percent of a core, idle with ${peers} peers`, chosen.percent, PERCENT_MAX)
  targets.atMost('mean of all daemons', meanPercent, PERCENT_MAX)
  targets.print()
  console.log(JSON.stringify({ ...about, measured: chosen, meanPercent, most, beside, targets: targets.judged }))
}
