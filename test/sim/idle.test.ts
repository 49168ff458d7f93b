// What a host does that has nothing to do: every timer turn and every frame of it is counted in virtual time. What it costs is measured by `npm run bench:idle`.
import { test } from 'tap'
import { proberDefaults } from '../../lib/path/prober-options.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld } from './host-world.js'

const PEERS = 16
const SECONDS = 600
/** What is made anew in turns is so by then: no burst of the beginning is counted. */
const SETTLING_MS = 180_000
/** Between probes of an idle peer, s, at least and at most; one end probes the other, and they go out together, this far apart. */
const TOGETHER_S = 2
const PROBE_MOST_S = proberDefaults.idleIntervalMs / 1_000
const PROBE_LEAST_S = (1 - proberDefaults.idleJitter) * PROBE_MOST_S - TOGETHER_S
/** Beside probes, a second: turns, and what the directory and the failure detector say. */
const REST_TURNS = 0.6
const REST_FRAMES = 2.5
/** A second and peer. */
const BYTES = 35

test('an idle host', (t) => {
  const world = new HostWorld(sodium, 7)
  const hosts = world.mesh(PEERS + 1)
  hosts[1]!.expose('web', 80)
  const whole = () => hosts.every(({ host }) => host.directory.hosts().length === PEERS + 1)
  t.ok(world.until(whole, 60_000, 250), 'the hosts have found each other')
  world.runFor(SETTLING_MS)
  const idle = hosts[PEERS >> 1]!
  const { host } = idle
  t.equal(host.sessions.count, PEERS)
  const counts = { timers: 0, frames: 0, bytes: 0 }
  const kinds = new Map<number, number>()
  const handleTimeout = host.handleTimeout.bind(host)
  host.handleTimeout = (now) => {
    counts.timers++
    handleTimeout(now)
  }
  world.filter = ({ from, bytes }) => {
    if (from === idle.address) {
      counts.frames++
      counts.bytes += bytes.length
      kinds.set(bytes.length, (kinds.get(bytes.length) ?? 0) + 1)
    }
    return true
  }
  world.runFor(SECONDS * 1_000)
  t.comment(JSON.stringify({ ...counts, kinds: [...kinds].sort((a, b) => b[1] - a[1]).slice(0, 5) }))
  const probed = (PEERS * SECONDS) / PROBE_MOST_S
  t.ok(counts.frames >= probed, 'it probes, or answers probes')
  t.ok(counts.timers <= SECONDS / TOGETHER_S + REST_TURNS * SECONDS, `${counts.timers} turns`)
  const most = (PEERS * SECONDS) / PROBE_LEAST_S + REST_FRAMES * SECONDS
  t.ok(counts.frames <= most, `${counts.frames} frames of at most ${Math.round(most)}: probes, echoes and others`)
  t.ok(counts.bytes <= BYTES * PEERS * SECONDS, `${counts.bytes} bytes`)
  t.end()
})
