// The stall of each kind of move: npm run bench:moves -- [-n MOVES] [--rows planned,vanish] [--rtt 0,10,80] [--loss PERCENT] [--real-time] [--json FILE] [--logs FOLDER]. Prints a table and, last, one line of JSON.
//
// A TCP and a UDP stream, each way, are paced at 1 ms; the stall is the longest gap at a receiver in a window after the move, minus the median of the longest gaps of windows of the
// same length without one, in the same run; likewise how long a datagram was under way, which leaves out when the sending process itself stood still. Afterwards a thousand connections go through three more moves. Status 1 when a byte or connection was lost; a target missed is only said.
// Needs root; the streams' programs have a real-time priority, and with --real-time the daemons' packet threads, too (`loop.priority: real-time`).

import { writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { moveKinds, type MoveName } from '../net/moves/kinds.js'
import { measure, type RowReport, type Spread } from './moves-run.js'

const names = Object.keys(moveKinds).filter(isMove)

const { values } = parseArgs({
  options: {
    n: { type: 'string', short: 'n', default: '200' },
    rows: { type: 'string', default: names.join() },
    rtt: { type: 'string', default: '0' },
    loss: { type: 'string', default: '0' },
    'real-time': { type: 'boolean', default: false },
    json: { type: 'string' },
    logs: { type: 'string' },
  },
})
const rows = values.rows.split(',').map((name) => {
  if (isMove(name)) return name
  throw new RangeError(`--rows takes some of ${names.join()}, not ${name}`)
})
const rtts = values.rtt.split(',').map((text) => {
  const rtt = Number(text)
  if (text !== '' && rtt >= 0) return rtt
  throw new RangeError(`--rtt takes milliseconds, not ${text}`)
})
const lossPercent = Number(values.loss)
if (!(values.loss !== '' && lossPercent >= 0 && lossPercent < 100))
  throw new RangeError(`--loss takes a percentage below 100, not ${values.loss}`)
const moves = Number(values.n)
if (!Number.isInteger(moves) || moves < 1) throw new RangeError(`-n takes a number of moves, not ${values.n}`)

const reports: RowReport[] = []
const options = {
  ...{ moves, first: true, realTime: values['real-time'], progress: (line: string) => console.error(line) },
  ...(values.logs === undefined ? {} : { logs: values.logs }),
}
for (const rttMs of rtts) for (const row of rows) reports.push(await measure(row, { ...options, rttMs, lossPercent }))

const load = loadavg().map((average) => Number(average.toFixed(2)))
table([
  [
    'move',
    'RTT',
    'loss',
    'target',
    'TCP p50/p99/max',
    'UDP p50/p99/max',
    'under way',
    'baseline',
    'no move',
    'lost',
    'resets',
    'crowd',
    '',
  ],
  ...reports.map((report) => [
    report.row,
    report.rttMs.toFixed(1),
    `${report.lossPercent} %`,
    report.targetMs.toFixed(0),
    shown(report.tcp),
    shown(report.udp),
    shown(report.underWay),
    `${report.baseline.tcp.toFixed(1)} / ${report.baseline.udp.toFixed(1)}, ${report.baseline.underWay.toFixed(1)}`,
    `${shown(report.baseline.over)}, ${shown(report.baseline.underWayOver)}`,
    lossOf(report),
    String(report.resets),
    `${report.crowd.moves} × ${report.crowd.connections}, ${report.crowd.slowestMs.toFixed(0)}`,
    verdict(report),
  ]),
])
console.log(
  `ms over the baseline, ‘no move’ of windows without one likewise, p50/p99/max; ‘under way’, and what follows a comma: the longest of a datagram; ‘unread’: the program’s own buffer was full; the load was ${load.join(', ')}`,
)
for (const { row, errors } of reports) for (const error of errors) console.log(`${row}: ${error}`)
const realTime = values['real-time']
const result = JSON.stringify({ date: new Date().toISOString(), load, realTime, reports })
if (values.json !== undefined) writeFileSync(values.json, `${result}\n`)
console.log(result)
if (reports.some(({ errors }) => errors.length > 0)) process.exitCode = 1

function isMove(name: string): name is MoveName {
  return Object.hasOwn(moveKinds, name)
}

function shown({ p50, p99, max }: Spread): string {
  return [p50, p99, max].map((ms) => ms.toFixed(1)).join(' / ')
}

function lossOf({ datagrams: { lost, sent, overflowed } }: RowReport): string {
  return `${lost} of ${sent}${overflowed > 0 ? `, ${overflowed} unread` : ''}`
}

function verdict({ row, tcp, udp, targetMs, lossPercent, datagrams, errors }: RowReport): string {
  if (errors.length > 0) return 'failed'
  if (!(tcp.p99 <= targetMs && udp.p99 <= targetMs)) return 'missed'
  // What the links lost is not told from what the move did.
  const mayLose = moveKinds[row].mayLose || lossPercent > 0
  return datagrams.lost > datagrams.overflowed && !mayLose ? 'lost' : 'kept'
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
