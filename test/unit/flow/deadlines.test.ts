import { test } from 'tap'
import { Deadlines } from '../../../lib/flow/deadlines.js'
import { seeded } from './flow-host.js'

test('items come out in the order of their time, none before it', (t) => {
  const deadlines = new Deadlines<number>()
  t.equal(deadlines.next, Infinity)
  const random = seeded(3)
  const times = Array.from({ length: 500 }, () => Math.floor(random() * 100))
  for (const at of times) deadlines.add(at, at)
  const taken: number[] = []
  for (let now = 0; now <= 100; now++) {
    for (let item = deadlines.take(now); item !== undefined; item = deadlines.take(now)) {
      if (item > now) t.fail('too early')
      taken.push(item)
    }
    t.ok(deadlines.next > now)
  }
  t.same(
    taken,
    times.sort((a, b) => a - b),
  )
  t.equal(deadlines.size, 0)
  t.end()
})
