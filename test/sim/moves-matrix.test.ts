// Every kind of move, over round trips of 0.2 to 300 ms and links that lose up to 5 %, to ways that carry less, under streams and under attack: nothing is lost, nothing is reset, nothing forged is accepted.
// MOVES_SEED=n runs one seed. npm run sim:moves runs as many as one likes.

import { test } from 'tap'
import { sodium } from '../tools/sodium.js'
import { cells, runOf } from './moves-matrix/run.js'

const ONLY = process.env['MOVES_SEED']
const RUNS = 1_000

test('hosts move in every way, and streams go on', (t) => {
  t.setTimeout(230_000)
  const seeds = ONLY === undefined ? Array.from({ length: RUNS }, (_, i) => i) : [Number(ONLY)]
  const seen = new Set<string>()
  let moves = 0
  let attacks = 0
  for (const seed of seeds) {
    const { move, rttMs, loss, problems, world, ...report } = runOf(sodium, seed)
    if (problems.length > 0) t.fail(`MOVES_SEED=${seed}: ${move}, RTT ${rttMs} ms, loss ${loss}`, { problems, world })
    seen.add(`${move} ${rttMs} ${loss}`)
    moves += report.moves.length
    attacks += report.refused
  }
  if (ONLY === undefined) {
    t.equal(seen.size, cells.length, 'all of the matrix has been seen')
    t.ok(moves >= RUNS, `${moves} moves`)
    t.ok(attacks > RUNS, `${attacks} frames of attackers`)
  }
  t.end()
})
