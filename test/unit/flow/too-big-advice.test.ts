import { test } from 'tap'
import { TooBigAdvice } from '../../../lib/flow/too-big-advice.js'

const FLOWS = 5_000
const SECOND = 1_000

test('each of many flows whose large packets come in turn is told at its fourth', (t) => {
  const advice = new TooBigAdvice()
  const told = new Array<number>(FLOWS).fill(0)
  for (let packet = 1; packet <= 8; packet++) {
    for (let row = 0; row < FLOWS; row++) if (advice.isDue(row, 100 * SECOND + packet)) told[row]!++
    const wanted = packet >> 2
    t.ok(
      told.every((times) => times === wanted),
      `after ${packet} packets each has been told ${wanted} times`,
    )
  }
  t.end()
})

test('a few large packets in a while are not worth telling, whichever row the flow has', (t) => {
  const advice = new TooBigAdvice()
  for (const row of [0, 1_023, 1_024, 200_000]) {
    const due = (second: number) => advice.isDue(row, second * SECOND)
    for (let i = 0; i < 3; i++) t.notOk(due(100))
    t.notOk(due(110), 'those were long ago')
    for (let i = 0; i < 2; i++) t.notOk(due(119))
    t.ok(due(119))
  }
  t.end()
})
