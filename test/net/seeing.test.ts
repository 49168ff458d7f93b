// What people see of a move, on both ends, over an underlay of either family: the paths, the flows that go by them, the answers, the log.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { test, type Test } from 'tap'
import { z } from 'zod'
import { collect } from '../../cli/lab/lab.js'
import { flowsShape, hostsShape, pathsShape, watchEventShape } from '../../daemon/control/protocol.js'
import { formatLocator } from '../../lib/path/locator.js'
import { Crowd } from './moves/crowd.js'
import { moveKinds } from './moves/kinds.js'
import { MoveNet } from './moves/move-net.js'

tap.setTimeout(240_000)

const CONNECTIONS = 40
const LIMIT_MS = 20_000
const cliMain = fileURLToPath(new URL('../../cli/main.js', import.meta.url))
const [MOVING, STAYING] = ['h1', 'h2']
const wayShape = z.object({ local: z.string().optional(), remote: z.string() })
const logShape = z.looseObject({
  msg: z.string(),
  host: z.string().optional(),
  from: wayShape.optional(),
  to: wayShape.optional(),
  reason: z.string().optional(),
  stallMs: z.number().optional(),
})

/** A `caracal` on a host that is interrupted when enough has been seen. */
function watching(t: Test, net: MoveNet, host: string, ...words: string[]) {
  const child = net.lab.spawn(host, [process.execPath, cliMain, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  child.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const ended = collect(child)
  return {
    lines: () => text.split('\n').slice(0, -1),
    stop: async () => {
      child.kill('SIGINT')
      return (await ended).code
    },
  }
}

for (const family of [4, 6] as const) {
  test(`a host changes its address, IPv${family}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'caracal-seeing-'))
    t.teardown(() => rmSync(folder, { recursive: true, force: true }))
    const directory = join(folder, 'lab')
    const net = await MoveNet.up({ directory, hosts: [MOVING, STAYING], networks: 1, family })
    t.teardown(() => net.close())
    const crowd = await Crowd.open(net, { connections: CONNECTIONS, senders: CONNECTIONS })
    t.teardown(() => crowd.close())
    const at = (host: string) => formatLocator({ address: net.address(host), port: 7474 })
    const caracal = (host: string, ...words: string[]) => net.lab.caracal(host, ...words)
    const before = { moving: at(MOVING), staying: at(STAYING) }

    const flows = watching(t, net, STAYING, 'flows', '--watch', '--json', '--interval', '100ms')
    const pings = watching(t, net, STAYING, 'ping', MOVING, '-i', '50ms', '-c', '100000', '-W', '500ms')
    const opened = () => flows.lines().filter((line) => line.includes('"open"')).length
    t.ok(await net.within(LIMIT_MS, () => opened() >= CONNECTIONS && pings.lines().length > 2), 'both are watched')

    const report = await crowd.through(async () => void (await moveKinds.vanish.make(net)), LIMIT_MS)
    t.strictSame(report.errors, [], 'no connection was lost or reset, none is new, each echoes')
    const after = at(MOVING)
    t.not(after, before.moving)

    await t.test('paths', async (t) => {
      const { paths } = pathsShape.parse(JSON.parse(await caracal(STAYING, 'paths', MOVING, '--json')))
      const used = paths.find(({ inUse }) => inUse)
      t.match(used, { host: MOVING, remote: after, local: before.staying, state: 'proven' })
      t.ok(used!.rttMs! > 0 && used!.rttVarMs! > 0 && used!.mtu! >= 1_280 && used!.lossPercent! < 100)
      t.ok(used!.changedMs < LIMIT_MS && used!.usedMs! < LIMIT_MS && used!.changes > 0)
      t.match(used!.reason, /^(address-gone|deprecated|peer-moved|silent|proven)$/)
      const old = paths.find(({ remote }) => remote === before.moving)
      if (old !== undefined) t.match(old, { inUse: false, usedMs: null, state: /suspect|dead|unproven/ })
      const text = (await caracal(STAYING, 'paths')).split('\n')
      t.match(text[0], /^HOST +LOCAL +REMOTE +STATE +USED +RTT +LOSS % +MTU +SINCE +WHY$/)
      const row = text.find((line) => / yes /.test(line))?.split(/ {2,}/)
      t.same(row?.slice(0, 5), [MOVING, before.staying, after, 'proven', 'yes'])
      t.match(row?.slice(5).join('  '), /^[\d.]+ ms +\d+ +\d{4} +\d.* +[a-z-]+$/)
      const own = pathsShape.parse(JSON.parse(await caracal(MOVING, 'paths', '--json'))).paths
      t.match(
        own.find(({ inUse }) => inUse),
        { local: after, remote: before.staying },
        'the host that has moved sends from its new address',
      )
    })

    await t.test('hosts, flows and who watches them', async (t) => {
      const { hosts } = hostsShape.parse(JSON.parse(await caracal(STAYING, 'hosts', '--json')))
      t.match(hosts.find(({ name }) => name === MOVING)?.session, { local: before.staying, remote: after })
      const listed = flowsShape.parse(JSON.parse(await caracal(STAYING, 'flows', '--json'))).flows
      const tcp = listed.filter(({ protocol, state }) => protocol === 'tcp' && state === 'established')
      t.ok(tcp.length >= CONNECTIONS && tcp.every(({ path, pathMs }) => path === after && pathMs! < LIMIT_MS))
      const text = (await caracal(STAYING, 'flows')).split('\n')
      t.match(text[0], / PATH +SINCE +LOCAL$/)
      t.ok(text.filter((line) => line.includes(` ${after} `)).length >= CONNECTIONS)
      t.ok(
        await net.within(LIMIT_MS, () => moves().filter(({ flow }) => flow.path === after).length >= CONNECTIONS),
        'each flow was said to move',
      )
      function moves() {
        return flows
          .lines()
          .map((line) => watchEventShape.parse(JSON.parse(line)))
          .filter(({ change }) => change === 'move')
      }
      const [first] = moves()
      t.match(first?.from, { path: before.moving })
      t.ok(first!.flow.pathMs! < LIMIT_MS)
      t.equal(await flows.stop(), 0)
    })

    await t.test('ping', async (t) => {
      const said = `the path is now ${before.staying} > ${after}, before ${before.staying} > ${before.moving}: `
      t.ok(await net.within(LIMIT_MS, () => pings.lines().some((line) => line.startsWith(said))), said)
      const answer = `answer from ${MOVING} by ${before.staying} > ${after}, seq `
      t.ok(await net.within(LIMIT_MS, () => pings.lines().some((line) => line.startsWith(answer))), answer)
      t.equal(await pings.stop(), 0)
    })

    await t.test('log and counters', async (t) => {
      const log = (host: string) =>
        readFileSync(net.lab.path(host, 'daemon.log'), 'utf8')
          .trimEnd()
          .split('\n')
          .map((line) => logShape.parse(JSON.parse(line)))
      const seen = log(STAYING).filter(({ msg, to }) => msg === 'host moved' && to?.remote === after)
      t.match(seen[0], { host: MOVING, from: { remote: before.moving }, to: { local: before.staying } })
      t.ok(seen[0]!.reason !== undefined && seen[0]!.stallMs === undefined)
      const own = log(MOVING).filter(({ msg }) => msg === 'host moved')
      t.match(own.at(-1), { from: { local: before.moving }, to: { local: after, remote: before.staying } })
      for (const host of [MOVING, STAYING]) {
        const settled = log(host).findLast(({ msg }) => msg === 'host settled')
        const end = host === MOVING ? 'local' : 'remote'
        t.match(settled, { from: { [end]: before.moving }, to: { [end]: after } }, `settled on ${host}`)
        t.ok(settled!.stallMs! >= 0 && settled!.stallMs! < LIMIT_MS)
        const { counters } = JSON.parse(await caracal(host, 'status', '--json'))
        t.ok(counters.movesSettled >= 1 && counters.moveStallMs > 0, 'the stall is counted')
        t.ok(counters.probesSent >= counters.probesEchoed && counters.probesEchoed > 0, 'and probes')
        t.ok(host === MOVING ? counters.movesSent >= 1 : counters.movesReceived >= 1, 'and what was said of it')
        const commits = Object.entries(counters).filter(([name, n]) => /^pathCommits/.test(name) && Number(n) > 0)
        t.ok(commits.length > 0, `by why: ${commits.join('; ')}`)
      }
    })
  })
}
