import { spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { createLog } from '../../../daemon/json-log.js'
import { LogLines } from '../../../daemon/log-lines.js'
import { LINES_MISSED } from '../../../daemon/log.js'
import { native } from '../../../daemon/native.js'
import { threadLog } from '../../../daemon/thread/thread-log.js'

const WAITING_MAX = 256 * 1024
const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants

/** A pipe of which nobody reads: its write end waits for room. */
function pipe(t: Test): { read: () => string; fd: number; closeReader: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-pipe-'))
  const path = join(folder, 'pipe')
  spawnSync('mkfifo', [path])
  const reader = openSync(path, O_RDONLY | O_NONBLOCK)
  const fd = openSync(path, O_WRONLY)
  rmSync(folder, { recursive: true })
  t.teardown(() => closeSync(fd))
  const bytes = Buffer.alloc(1 << 20)
  let open = true
  const closeReader = () => {
    if (open) closeSync(reader)
    open = false
  }
  t.teardown(closeReader)
  const read = () => {
    let text = ''
    for (;;) {
      try {
        const length = readSync(reader, bytes)
        if (length === 0) return text
        text += bytes.toString('latin1', 0, length)
      } catch {
        return text
      }
    }
  }
  return { read, fd, closeReader }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !condition();) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('a log whose reader is stuck holds nobody up, keeps so many lines, and says how many are missing', async (t) => {
  const { read, fd } = pipe(t)
  const log = createLog('info', {}, fd)
  let text = ''
  log.info({ i: 0 }, 'a line')
  text += read()
  t.match(text, /"i":0/, 'what has room is there at once')
  const lines = 10_000
  for (let i = 1; i <= lines; i++) log.info({ i, filling: 'x'.repeat(100) }, 'a line')
  const { dropped } = log
  t.ok(dropped > 0 && dropped < lines, `${dropped} of ${lines} lines were dropped`)
  t.equal(log.child({}).dropped, dropped)
  await until('all that was kept has come, and that it is not all', () => (text += read()).includes(LINES_MISSED))
  const came = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.strictSame(
    came.slice(0, -1).map(({ i }) => i),
    Array.from({ length: lines + 1 - dropped }, (_, i) => i),
    'the oldest are whole and in order',
  )
  t.match(came.at(-1), { level: 'warn', lines: dropped })
  log.info({}, 'after it')
  t.match(read(), /after it/)
  t.equal(log.dropped, dropped)
})

test('nobody will ever read it', (t) => {
  const { fd, closeReader } = pipe(t)
  closeReader()
  const log = createLog('info', {}, fd)
  for (let i = 0; i < 10; i++) log.info({}, 'in vain')
  t.equal(log.dropped, 10)
  t.end()
})

test('what is taken in parts comes as it was, and no more waits than there is room for', (t) => {
  let room = 0
  let text = ''
  const missed: number[] = []
  const lines = new LogLines(2, {
    writeNow: (_fd, bytes) => {
      const length = Math.min(room, bytes.length, 7)
      room -= length
      text += Buffer.from(bytes.subarray(0, length)).toString()
      return length
    },
    missed: (count) => missed.push(count),
  })
  const line = `${'y'.repeat(1_023)}\n`
  for (let i = 0; i < WAITING_MAX / line.length + 3; i++) lines.write(line)
  t.equal(lines.dropped, 3)
  room = 1_000_000
  return until('it has come', () => missed.length > 0).then(() => {
    t.equal(text, line.repeat(WAITING_MAX / line.length))
    t.strictSame(missed, [3])
    lines.write('at once\n')
    t.ok(text.endsWith('at once\n'))
  })
})

test('to a pipe or a file: writing never waits', (t) => {
  const { read, fd } = pipe(t)
  const some = new Uint8Array(3_000)
  let all = 0
  for (let taken = 1; taken > 0; all += taken) taken = native().writeNow(fd, some)
  t.ok(all >= 4_096)
  read()
  t.ok(native().writeNow(fd, some) > 0)
  t.throws(() => native().writeNow(fd, new Uint8Array(0)), { code: 'CARACAL_E_RANGE' })
  t.throws(() => native().writeNow(-1, some), { code: 'CARACAL_E_RANGE' })
  t.throws(() => native().writeNow(1 << 20, some), { code: 'CARACAL_E_LOG' })
  const file = openSync(join(t.testdir({}), 'log'), 'a')
  t.equal(native().writeNow(file, some), 3_000)
  closeSync(file)
  t.end()
})

test('lines to another thread are never more than it keeps up with', (t) => {
  const sent: [level: string, fields: object, text: string][] = []
  const log = threadLog(
    'info',
    (...line) => sent.push(line),
    () => undefined,
  )
  for (let i = 0; i < 1_000; i++) log.child({ i }).info({}, 'a line')
  t.equal(sent.length, 256)
  t.equal(log.dropped, 744)
  log.taken(100, 5)
  t.match(sent.at(-1), ['warn', { lines: 744 }, LINES_MISSED])
  t.equal(log.dropped, 749, 'with those that the other thread has dropped')
  for (let i = 0; i < 1_000; i++) log.info({}, 'a line')
  t.equal(sent.length, 256 + 100)
  log.taken(sent.length - 100, 5)
  t.match(sent.at(-1), ['warn', { lines: 901 }, LINES_MISSED])
  t.equal(log.child({}).dropped, 744 + 901 + 5)
  t.end()
})
