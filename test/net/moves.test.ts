// Every way in which hosts move, under a thousand open connections. How long each takes is measured by `npm run bench:moves`.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test, type Test } from 'tap'
import { measure } from '../bench/moves-run.js'
import { Crowd } from './moves/crowd.js'
import { moveKinds, type Made, type MoveName } from './moves/kinds.js'
import { MoveNet } from './moves/move-net.js'

tap.setTimeout(400_000)

const CONNECTIONS = 1_000
const SENDERS = 128
/** On a busy machine, too, a record is back by then: what was lost is sent again by TCP, more seldom each time. */
const LIMIT_MS = 20_000

/** With several lanes connections are spread over them. */
const LANES = 3

/** The same connections go through all of these moves, one after the other; each is made so many times. */
async function goThrough(t: Test, names: readonly MoveName[], times: number, lanes = 1): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-moves-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const wanted = names.map((name) => moveKinds[name].net)
  const hosts = wanted.map((one) => one.hosts).reduce((most, some) => (some.length > most.length ? some : most))
  const { networks, nat = false } = { nat: undefined, ...wanted[0]! }
  const config = join(folder, 'config.yaml')
  writeFileSync(config, `loop: { lanes: ${lanes} }\n`)
  const upArguments = () => ['--config', config]
  const net = await MoveNet.up({ directory: join(folder, 'lab'), hosts, networks, nat, upArguments })
  t.teardown(() => net.close())
  const crowd = await Crowd.open(net, { connections: CONNECTIONS, senders: SENDERS })
  t.teardown(() => crowd.close())
  for (let n = 0; n < times; n++) {
    for (const name of names) {
      const { title, prepare, make } = { prepare: undefined, ...moveKinds[name] }
      t.equal(await prepare?.(net), undefined, `${title}: prepared`)
      let made: Made | undefined
      const report = await crowd.through(async () => void (made = await make(net, n)), LIMIT_MS)
      t.comment(`${name} ${JSON.stringify({ ...report, errors: report.errors.length })}`)
      t.strictSame(report.errors, [], `${title}: no connection was lost or reset, none is new, each echoes`)
      t.equal(await made?.check?.(), undefined, `${title}: it was one`)
      t.ok(report.sentMeanwhile >= CONNECTIONS, 'each sent something since then')
    }
  }
  if (lanes === 1) return
  for (const host of ['h1', 'h2']) {
    const { framesOut } = (await (await net.control(host)).call('status', {})).lanes
    t.ok(framesOut > CONNECTIONS, `${framesOut} frames left ${host} by the lanes above the first`)
  }
}

test('addresses change', (t) => goThrough(t, ['planned', 'vanish', 'both'], 2))

test('an address is there before its route: nothing that was sent meanwhile is lost', async (t) => {
  const report = await measure('late', { moves: 3, rttMs: 0, progress: (line) => t.comment(line) })
  t.strictSame(report.errors, [])
  t.equal(report.datagrams.lost - report.datagrams.overflowed, 0)
})

test('a path falls silent', (t) => goThrough(t, ['silent'], 1))

test('addresses change, and a path falls silent, under connections of several lanes', async (t) => {
  await goThrough(t, ['planned'], 2, LANES)
  await goThrough(t, ['silent'], 1, LANES)
})

test('a NAT on the way rebinds', (t) => goThrough(t, ['nat'], 2))

test('a daemon is killed and started again, and one is replaced', (t) => goThrough(t, ['kill', 'replace'], 2))
