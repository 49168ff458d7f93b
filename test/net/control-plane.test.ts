// Whatever is asked of a daemon, packets do not wait for it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { test } from 'tap'
import { overflowsOf, Streams } from '../bench/moves-run.js'
import { AskedProgram, monotonicNow } from './moves/asked-program.js'
import { Crowd } from './moves/crowd.js'
import { MoveNet } from './moves/move-net.js'
import type { Answered } from './busy-asker.js'

tap.setTimeout(120_000)

const HOSTS = ['h1', 'h2'] as const
const METRICS = 9_474
/** A daemon has so many flows to tell of: a listing of them takes the control plane far longer than a packet waits. */
const CONNECTIONS = 1_000
/** Between datagrams, and records of TCP, each way. */
const EVERY_MS = 5
const WINDOW_MS = 100
const WINDOWS = 30
/** Those who ask come after the daemons and the streams: what packets wait for is not them. */
const LAST = ['nice', '-n', '5'] as const
/** By how much the longest wait of a window, in the median of the windows, is longer than without questions. */
const LONGER_MS_MAX = 100
const program = fileURLToPath(new URL('busy-asker.js', import.meta.url))

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

test('packets do not wait for DNS, scrapes, listings and streams of events', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-control-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const config = join(folder, 'caracal.yaml')
  writeFileSync(config, `metrics: 127.0.0.1:${METRICS}\n`)
  const upArguments = () => ['--config', config]
  const net = await MoveNet.up({ directory: join(folder, 'lab'), hosts: HOSTS, networks: 1, upArguments })
  t.teardown(() => net.close())
  const crowd = await Crowd.open(net, { connections: CONNECTIONS, senders: 0 })
  t.teardown(() => crowd.close())
  const streams = await Streams.open(net, EVERY_MS, false)
  t.teardown(() => streams.close())
  /** Of each window the longest that a datagram was under way, ms. */
  const waits = async () => {
    const longest: number[] = []
    for (let n = 0; n < WINDOWS; n++) {
      const from = monotonicNow()
      const { there, back } = await streams.gaps(from, from + WINDOW_MS)
      longest.push(Math.max(there.underWay, back.underWay))
    }
    return longest
  }
  const before = await streams.state()
  const quiet = await waits()
  const askers = await Promise.all(
    HOSTS.map(async (host) => {
      const { addresses } = await (await net.control(host)).call('status', {})
      const words = [net.lab.path(host, 'control.sock'), addresses.dns.v4 ?? '', 'crowd.svc.internal', String(METRICS)]
      const asker = AskedProgram.onHost(net.lab, host, [...LAST, process.execPath, program, ...words])
      t.teardown(() => asker.close())
      t.equal(await asker.said(), 'ready {}', asker.errors)
      return { host, asker }
    }),
  )
  const busy = await waits()
  const until = await streams.state()
  const answered = await Promise.all(
    askers.map(async ({ host, asker }) => {
      const line = await asker.finish()
      const counts: Answered = JSON.parse(line.slice('answered '.length))
      return { host, counts }
    }),
  )
  t.comment(JSON.stringify({ quiet, busy, answered }))
  for (const { host, counts } of answered)
    for (const [kind, times] of Object.entries(counts)) t.ok(times > 0, `${host}: ${kind} ${times} times`)
  const longer = median(busy) - median(quiet)
  t.ok(longer <= LONGER_MS_MAX, `packets waited ${longer} ms longer`)
  const missing = async () =>
    (await streams.lost(before, until)) - (overflowsOf(await streams.state()) - overflowsOf(before))
  t.ok(await net.within(5_000, async () => (await missing()) <= 0), 'no datagram is lost')
  t.strictSame(await crowd.round(10_000), [], 'and no connection')
  t.strictSame(
    (await streams.stop()).flatMap(({ resets }) => resets),
    [],
  )
})
