// The long run: npm run bench:soak -- --gigabytes 100 [--seconds N] [--ports N]. Two real daemons in namespaces; see soak-run.ts. Prints a table and, last, one line of JSON; status 1 when a
// byte was wrong, or, on a link that loses nothing, when daemons did (soak-losses.ts).
// With --loss, --duplicate, --reorder (percent), --burst (packets), --delay, --jitter (ms), --rate (Mbit/s) or --seed the hosts are joined by an emulated link; its counts are in the report.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Lab } from '../../cli/lab/lab.js'
import type { LinkOptions } from '../net/emulator/link.js'
import { enclosed } from './enclosed.js'
import { lossesOf, lossesText } from './soak-losses.js'
import { linkedLab, soak, SOAK_HOSTS } from './soak-run.js'

const { values } = parseArgs({
  options: {
    gigabytes: { type: 'string', default: '100' },
    seconds: { type: 'string', default: '86400' },
    ports: { type: 'string' },
    loss: { type: 'string' },
    burst: { type: 'string' },
    duplicate: { type: 'string' },
    reorder: { type: 'string' },
    delay: { type: 'string' },
    jitter: { type: 'string' },
    rate: { type: 'string' },
    seed: { type: 'string' },
  },
})
const chosen = (name: string, text: string | undefined, unit: number) =>
  text === undefined ? {} : { [name]: Number(text) * unit }
const linkOptions: LinkOptions = {
  ...chosen('loss', values.loss, 0.01),
  ...chosen('lossBurst', values.burst, 1),
  ...chosen('duplicate', values.duplicate, 0.01),
  ...chosen('reorder', values.reorder, 0.01),
  ...chosen('delayMs', values.delay, 1),
  ...chosen('jitterMs', values.jitter, 1),
  ...chosen('rate', values.rate, 1e6),
  ...chosen('seed', values.seed, 1),
}
await enclosed()
const folder = mkdtempSync(join(tmpdir(), 'caracal-soak-'))
const directory = join(folder, 'lab')
const { lab, link } =
  Object.keys(linkOptions).length > 0
    ? await linkedLab(directory, linkOptions)
    : { lab: await Lab.up(SOAK_HOSTS, { directory, subnet: '10.78.0' }), link: undefined }
if (link !== undefined) console.log(`an emulated link joins the hosts; --seed ${link.seed} does the same again`)
try {
  const chosen = {
    bytes: Number(values.gigabytes) * 1e9,
    seconds: Number(values.seconds),
    ...(values.ports === undefined ? {} : { ports: Number(values.ports) }),
  }
  const report = await soak(lab, chosen, link)
  const { streams, short, datagrams, errors, memory, seconds, kernel } = report
  const rows: readonly (readonly [string, string])[] = [
    ['seconds', seconds.toFixed(0)],
    ['GB in streams, both ways', (streams.bytes / 1e9).toFixed(2)],
    ['streams', String(streams.done)],
    ['short connections', String(short.done)],
    ['  the slowest, ms', short.slowestMs.toFixed(0)],
    ['datagrams', String(datagrams.sent)],
    ['  lost', String(datagrams.lost)],
    ['    late', String(datagrams.late)],
    ['  twice', String(datagrams.twice)],
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
    ['frames not read by daemons', report.overrun.join(', ')],
    ['faults of the link', String(report.linkFaults)],
    ...Object.keys(kernel[0]!).map((name) => [name, kernel.map((counters) => counters[name]).join(', ')] as const),
  ]
  for (const [name, value] of rows) console.log(`${name.padEnd(28)} ${value}`)
  for (const error of errors) console.log(`  ${error}`)
  const losses = lossesOf(report)
  console.log(lossesText(losses))
  const emulated = await link?.report()
  for (const direction of emulated === undefined ? [] : (['ab', 'ba'] as const))
    console.log(`link, ${direction}: ${JSON.stringify(emulated?.[direction])}`)
  console.log(JSON.stringify({ ...report, losses, link: emulated }))
  if (errors.length > 0 || datagrams.changed > 0 || datagrams.twice > 0 || losses.kept === false) process.exitCode = 1
} finally {
  await lab.down()
  await link?.close()
  rmSync(folder, { recursive: true, force: true })
}
process.exit()
