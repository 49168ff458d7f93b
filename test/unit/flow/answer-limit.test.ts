import { test } from 'tap'
import { AnswerLimit } from '../../../lib/flow/answer-limit.js'

test('a burst, and then so many a second', (t) => {
  const limit = new AnswerLimit(100, 5)
  const taken = (now: number) => {
    let n = 0
    while (limit.take(now)) n++
    return n
  }
  t.equal(taken(0), 5)
  t.equal(taken(30), 3)
  t.equal(taken(1_000_000), 5, 'not more than a burst is saved up')
  t.equal(taken(999_000), 0, 'a clock that goes back gives nothing')
  t.end()
})
