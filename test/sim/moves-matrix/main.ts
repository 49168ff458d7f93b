// Many runs of the matrix of moves: npm run sim:moves -- [--runs 100000] [--from SEED] [--resume FILE] [--seed N]. Prints failing seeds at once, progress now and then, and a table at
// the end. --resume: where the series stands is kept there, and gone on with. --seed: one run, in full. Status 1 when something failed.

import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { sodium } from '../../tools/sodium.js'
import { runOf } from './run.js'
import { Tally } from './tally.js'

const PROGRESS_MS = 30_000
const SAVE_MS = 10_000

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '1000' },
    from: { type: 'string', default: '0' },
    resume: { type: 'string' },
    seed: { type: 'string' },
  },
})
if (values.seed !== undefined) {
  const report = runOf(sodium, whole('seed', values.seed))
  console.log(JSON.stringify(report, undefined, 2))
  if (report.problems.length > 0) process.exitCode = 1
} else await series(whole('runs', values.runs), whole('from', values.from), values.resume)

async function series(runs: number, from: number, file: string | undefined): Promise<void> {
  const tally = file !== undefined && existsSync(file) ? Tally.load(file) : new Tally(from)
  if (tally.runs > 0) console.log(`going on at seed ${tally.next}, after ${tally.runs} runs`)
  const began = tally.runs
  const start = performance.now()
  let saved = start
  let told = start
  let stopped = false
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (stopped = true))
  while (tally.runs < runs && !stopped) {
    const report = runOf(sodium, tally.next)
    tally.add(report)
    if (report.problems.length > 0) {
      const { seed, move, rttMs, loss, problems } = report
      console.log(`failed: npm run sim:moves -- --seed ${seed}   # ${move}, RTT ${rttMs} ms, loss ${loss * 100} %`)
      for (const problem of problems) console.log(`  ${problem}`)
    }
    const now = performance.now()
    if (file !== undefined && now - saved > SAVE_MS) {
      tally.save(file)
      saved = now
    }
    if (now - told > PROGRESS_MS) {
      const each = (now - start) / (tally.runs - began)
      const left = ((runs - tally.runs) * each) / 60_000
      console.log(
        `${tally.runs} of ${runs} runs, ${tally.failures.length} failed, ${each.toFixed(1)} ms each, ${left.toFixed(0)} min left`,
      )
      told = now
    }
    // Signals are heard between runs.
    if (tally.runs % 16 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  if (file !== undefined) tally.save(file)
  table(tally.lines())
  console.log('stalls in ms over what the streams do without a move; datagrams lost by links and by moves')
  console.log(`${tally.runs} runs, ${tally.refused} frames of attackers, ${tally.failures.length} runs failed`)
  if (tally.failures.length > 0) {
    console.log(`seeds: ${tally.failures.slice(0, 50).join(' ')}${tally.failures.length > 50 ? ' …' : ''}`)
    process.exitCode = 1
  }
}

function whole(name: string, text: string): number {
  const number = Number(text)
  if (text === '' || !Number.isSafeInteger(number) || number < 0)
    throw new RangeError(`--${name} takes a whole number, not ${text}`)
  return number
}

function table(lines: readonly (readonly string[])[]): void {
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  for (const line of lines)
    console.log(
      line
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
}
