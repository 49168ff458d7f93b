import { test } from 'tap'
import { ReplayWindow } from '../../../lib/crypto/replay.js'
import { REPLAY_WINDOW } from '../../../lib/wire/constants.js'

test('a counter is accepted once', async (t) => {
  const window = new ReplayWindow()
  for (const counter of [0, 1, 5, 3, 31, 32, 33, 63, 64, 2]) {
    t.ok(window.accept(counter), `${counter} is new`)
    t.notOk(window.accept(counter), `${counter} again`)
  }
  t.equal(window.highest, 64)
})

test('the window reaches REPLAY_WINDOW counters back and not one more', async (t) => {
  for (const highest of [REPLAY_WINDOW, 100_000, 2 ** 33 + 7, Number.MAX_SAFE_INTEGER]) {
    const window = new ReplayWindow()
    t.ok(window.accept(highest))
    t.notOk(window.accept(highest - REPLAY_WINDOW), 'too old')
    t.ok(window.accept(highest - REPLAY_WINDOW + 1), 'oldest')
    t.notOk(window.accept(highest - REPLAY_WINDOW + 1))
    t.ok(window.accept(highest - 1))
  }
})

test('agrees with a set, counters jumping forwards and back', async (t) => {
  const window = new ReplayWindow()
  const seen = new Set<number>()
  let highest = 0
  let state = 12345
  const next = (n: number) => (state = (state * 1103515245 + 12345) & 0x7fffffff) % n
  let wrong = 0
  for (let i = 0; i < 200_000; i++) {
    const jump = next(1000) === 0 ? next(3 * REPLAY_WINDOW) : next(40)
    const counter = Math.max(0, highest + jump - (next(3) === 0 ? next(REPLAY_WINDOW + 50) : 20))
    const expected = !seen.has(counter) && (counter > highest || highest - counter < REPLAY_WINDOW)
    if (window.accept(counter) !== expected) wrong++
    if (expected) seen.add(counter)
    highest = Math.max(highest, expected ? counter : 0)
  }
  t.equal(wrong, 0)
  t.ok(highest > 10 * REPLAY_WINDOW, `the window moved far (${highest})`)
})
