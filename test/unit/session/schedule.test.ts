import { test } from 'tap'
import { Schedule } from '../../../lib/session/schedule.js'
import { record } from '../../sim/session-host.js'

const addresses = [record('10.0.0.1:1'), record('10.0.0.2:1'), record('10.0.0.3:1')]
const options = { retryMs: 250, giveUpMs: 5000, staggerMs: 40 }

/** Times and last address bytes of all that is asked. */
function play(schedule: Schedule, until: number): [number, number][] {
  const asked: [number, number][] = []
  for (let now = 0; now < until; now = Math.max(now, schedule.nextAt)) {
    if (schedule.expired(now)) break
    const address = schedule.take(now)
    if (address !== undefined) asked.push([now, address[11]!])
  }
  return asked
}

test('rounds over all addresses, staggered, at intervals that double from the second on, until the time is up', async (t) => {
  const schedule = new Schedule(addresses, 0, () => 0.5, options)
  const rounds = [0, 250, 500, 1000, 2000, 4000]
  const expected = rounds.flatMap((start) => [0, 1, 2].map((i) => [start + 40 * i, i + 1]))
  t.same(play(schedule, 10_000), expected)
  t.ok(schedule.expired(5000))
})

test('jitter is at most a tenth', async (t) => {
  for (const [jitter, first] of [
    [0, 225],
    [0.999, 275],
  ] as const) {
    const times = play(new Schedule(addresses.slice(0, 1), 0, () => jitter, options), 400).map(([time]) => time)
    t.ok(Math.abs(times[1]! - first) < 1, `${times[1]}`)
  }
})

test('a new address is asked at once, a known one changes nothing, and there are at most eight', async (t) => {
  const schedule = new Schedule(addresses.slice(0, 1), 0, () => 0.5, options)
  t.equal(schedule.take(0)?.[11], 1)
  schedule.add([addresses[0]!.slice()], 10)
  t.equal(schedule.take(10), undefined)
  schedule.add([addresses[1]!], 20)
  t.equal(schedule.take(20)?.[11], 2)
  const many = Array.from({ length: 20 }, (_, i) => record(`10.0.1.${i}:1`))
  schedule.add(many, 30)
  t.equal(schedule.addresses.length, 8)
  t.same(schedule.take(30), many[0])
})

test('without addresses it only ends', async (t) => {
  const schedule = new Schedule([], 100, () => 0, options)
  t.equal(schedule.nextAt, 5100)
  t.equal(schedule.take(200), undefined)
})
