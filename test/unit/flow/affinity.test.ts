import { test } from 'tap'
import { Affinity } from '../../../lib/flow/affinity.js'

test('choices are remembered for their time', (t) => {
  const affinity = new Affinity(10, 1000)
  affinity.remember('a', 7, 0)
  t.equal(affinity.recall('a', 999), 7)
  t.equal(affinity.recall('a', 1000), undefined)
  t.equal(affinity.recall('b', 0), undefined)
  t.end()
})

test('the one that was used longest ago goes first', (t) => {
  const affinity = new Affinity(2, 1000)
  affinity.remember('a', 1, 0)
  affinity.remember('b', 2, 0)
  affinity.remember('a', 3, 1)
  affinity.remember('c', 4, 2)
  t.same(
    ['a', 'b', 'c'].map((key) => affinity.recall(key, 3)),
    [3, undefined, 4],
  )
  t.end()
})
