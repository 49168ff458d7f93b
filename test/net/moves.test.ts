// Every way in which hosts move, under a thousand open connections and two streams of datagrams. How long each takes is measured by `npm run bench:moves`.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test, type Test } from 'tap'
import { overflowsOf, Streams } from '../bench/moves-run.js'
import { monotonicNow } from './moves/asked-program.js'
import { Crowd } from './moves/crowd.js'
import { moveKinds, type Made, type MoveKind, type MoveName } from './moves/kinds.js'
import { MoveNet } from './moves/move-net.js'

tap.setTimeout(400_000)

const CONNECTIONS = 1_000
const SENDERS = 128
/** Between datagrams, each way: few enough that none is more than the queues hold while a busy machine lets nobody run. */
const EVERY_MS = 5
/** Everything is back by then on a busy machine, too, after moves that are to take less than a second, and after the others. */
const LIMIT_MS = 5_000
const LIMIT_LONG_MS = 10_000

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
      const kind: MoveKind = moveKinds[name]
      const { title, prepare } = kind
      t.equal(await prepare?.(net), undefined, `${title}: prepared`)
      let made: Made | undefined
      const limitMs = kind.target(0) < 1_000 ? LIMIT_MS : LIMIT_LONG_MS
      const report = await crowd.through(async () => void (made = await kind.make(net, n)), limitMs)
      t.comment(`${name} ${JSON.stringify({ ...report, errors: report.errors.length })}`)
      t.strictSame(report.errors, [], `${title}: no connection was lost or reset, none is new, each echoes`)
      t.equal(await made?.check?.(), undefined, `${title}: it was one`)
      t.ok(report.sentMeanwhile >= CONNECTIONS, 'each sent something since then')
    }
  }
  if (lanes > 1) {
    for (const host of ['h1', 'h2']) {
      const { framesOut } = (await (await net.control(host)).call('status', {})).lanes
      t.ok(framesOut > CONNECTIONS, `${framesOut} frames left ${host} by the lanes above the first`)
    }
    return
  }
  const streams = await Streams.open(net, EVERY_MS, false)
  t.teardown(() => streams.close())
  for (let n = 0; n < times; n++) {
    for (const name of names) {
      const kind: MoveKind = moveKinds[name]
      if (kind.mayLose) continue
      t.equal(await kind.prepare?.(net), undefined, `${kind.title}: prepared`)
      const before = await streams.state()
      await kind.make(net, n)
      // What is sent from then on meets no move any more.
      const moved = monotonicNow()
      const flows = async () => (await streams.standing(moved, 0)) === undefined
      t.ok(await net.within(LIMIT_MS, flows), `${kind.title}: both streams flow`)
      const until = await streams.state()
      const missing = async () =>
        (await streams.lost(before, until)) - (overflowsOf(await streams.state()) - overflowsOf(before))
      const whole = await net.within(LIMIT_MS, async () => (await missing()) <= 0)
      const sent =
        until.reduce((sum, { datagramsSent }) => sum + datagramsSent, 0) -
        before.reduce((sum, { datagramsSent }) => sum + datagramsSent, 0)
      t.equal(whole ? 0 : await missing(), 0, `${kind.title}: not one of ${sent} datagrams was lost`)
    }
  }
  const ends = await streams.stop()
  t.strictSame(
    ends.flatMap(({ resets }) => resets),
    [],
    'the stream beside them was not cut',
  )
}

test('addresses change', (t) => goThrough(t, ['planned', 'vanish', 'late', 'both'], 2))

test('a path falls silent', (t) => goThrough(t, ['silent'], 1))

test('addresses change, and a path falls silent, under connections of several lanes', async (t) => {
  await goThrough(t, ['planned'], 2, LANES)
  await goThrough(t, ['silent'], 1, LANES)
})

test('a NAT on the way rebinds', (t) => goThrough(t, ['nat'], 2))

test('a daemon is killed and started again, and one is replaced', (t) => goThrough(t, ['kill', 'replace'], 2))
