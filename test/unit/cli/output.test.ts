import { test } from 'tap'
import { formatClock } from '../../../cli/clock.js'
import { formatDuration, formatMs, parseDuration } from '../../../cli/duration.js'
import { counted, formatBytes, formatTable, formatTime, plain } from '../../../cli/output.js'

test('tables align text left and numbers right', async (t) => {
  const rows = [
    ['web', 7, null],
    ['api.shop', 1200, 'x'],
  ]
  t.strictSame(formatTable(['NAME', 'FLOWS', 'NOTE'], rows), [
    'NAME      FLOWS  NOTE',
    'web           7  -',
    'api.shop   1200  x',
  ])
  t.strictSame(formatTable(['A', 'B'], []), ['A  B'])
})

test('text from elsewhere cannot steer the terminal', async (t) => {
  t.equal(plain('a\u001b[31mb\u0007\nc\u202ed é'), 'a?[31mb??c?d é')
})

test('durations are read and written', async (t) => {
  t.equal(parseDuration('250ms'), 250)
  t.equal(parseDuration('1.5h'), 5_400_000)
  t.equal(parseDuration('7d'), 604_800_000)
  for (const bad of ['', '1', 'h', '-1s', '1 h', '1w', '1e3s']) t.equal(parseDuration(bad), undefined, bad)
  t.strictSame([0.4125, 12.34, 999, 59_999, 61_000, 3_660_000, 90_000_000].map(formatDuration), [
    '0.412 ms',
    '12.3 ms',
    '999 ms',
    '59s',
    '1m1s',
    '1h1m',
    '1d1h',
  ])
  t.equal(formatMs(1234), '1234 ms')
})

test('sizes, instants and counts', async (t) => {
  t.strictSame([0, 999, 1000, 1_500_000, 12e9, 999_600].map(formatBytes), [
    '0 B',
    '999 B',
    '1.0 kB',
    '1.5 MB',
    '12 GB',
    '1.0 MB',
  ])
  t.equal(formatTime(1_900_000_000), '2030-03-17T17:46:40Z')
  t.equal(formatTime(null), '-')
  t.equal(counted(1, 'flow'), '1 flow')
  t.equal(counted(0, 'flow'), '0 flows')
  t.match(formatClock(1_700_000_000_123.456, 6), /^\d\d:\d\d:20\.12345[56]$/)
  t.match(formatClock(1_700_000_000_123.456, 3), /^\d\d:\d\d:20\.123$/)
})
