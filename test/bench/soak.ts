// The long run: npm run bench:soak -- --gigabytes 100 [--seconds N] [--ports N]. Two real daemons in namespaces; see soak-run.ts. Prints a table and, last, one line of JSON; status 1 when a byte was wrong.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Lab } from '../../cli/lab/lab.js'
import { soak, SOAK_HOSTS } from './soak-run.js'

const { values } = parseArgs({
  options: {
    gigabytes: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '86400' },
    ports: { type: 'string' },
  },
})
const folder = mkdtempSync(join(tmpdir(), 'caracal-soak-'))
const lab = await Lab.up(SOAK_HOSTS, { directory: join(folder, 'lab'), subnet: '10.78.0' })
try {
  const report = await soak(lab, {
    bytes: Number(values.gigabytes) * 1e9,
    seconds: Number(values.seconds),
    ...(values.ports === undefined ? {} : { ports: Number(values.ports) }),
  })
  const { streams, short, datagrams, errors, memory, seconds, kernel } = report
  const rows: readonly (readonly [string, string])[] = [
    ['seconds', seconds.toFixed(0)],
    ['GB in streams, both ways', (streams.bytes / 1e9).toFixed(2)],
    ['streams', String(streams.done)],
    ['short connections', String(short.done)],
    ['  the slowest, ms', short.slowestMs.toFixed(0)],
    ['datagrams', String(datagrams.sent)],
    ['  lost', String(datagrams.lost)],
    ['  reordered', String(datagrams.reordered)],
    ['  changed', String(datagrams.changed)],
    ['errors', String(errors.length)],
    ...SOAK_HOSTS.map(
      (host, i) =>
        [
          `MB resident, ${host}`,
          `${(memory.start[i]! / 1e6).toFixed(1)} → ${(memory.end[i]! / 1e6).toFixed(1)}`,
        ] as const,
    ),
    ...Object.keys(kernel[0]!).map((name) => [name, kernel.map((counters) => counters[name]).join(', ')] as const),
  ]
  for (const [name, value] of rows) console.log(`${name.padEnd(28)} ${value}`)
  for (const error of errors) console.log(`  ${error}`)
  console.log(JSON.stringify(report))
  if (errors.length > 0 || datagrams.changed > 0) process.exitCode = 1
} finally {
  await lab.down()
  rmSync(folder, { recursive: true, force: true })
}
