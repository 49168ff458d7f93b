// A daemon whose stderr is a full pipe that nobody reads: it starts, answers and moves packets like every other one.
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { test } from 'tap'
import { withDaemon } from '../../cli/daemon.js'
import { LINES_MISSED } from '../../daemon/log.js'
import { cliMain, Fixture } from './fixture.js'

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants
const RELOADS = 4_000

/** Writes until there is no room. */
function fill(path: string): void {
  const fd = openSync(path, O_WRONLY | O_NONBLOCK)
  try {
    for (;;) writeSync(fd, Buffer.alloc(4_096, '\n'))
  } catch {
    closeSync(fd)
  }
}

test('a log that nobody reads holds up neither packets nor people', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const { lab } = net
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)
  await lab.stopDaemon('h1')
  const path = join(net.folder, 'stderr')
  spawnSync('mkfifo', [path])
  const reader = openSync(path, O_RDONLY | O_NONBLOCK)
  t.teardown(() => closeSync(reader))
  const stderr = openSync(path, O_WRONLY)
  fill(path)
  const words = [process.execPath, cliMain, 'up', '--name', 'h1', '--dns', 'file:/etc/resolv.conf']
  const daemon = lab.spawn('h1', words, { stdio: ['ignore', 'ignore', stderr] })
  closeSync(stderr)
  t.teardown(() => daemon.kill('SIGKILL'))
  const socket = lab.path('h1', 'control.sock')
  const status = () => withDaemon({ socket }, (client) => client.call('status', {}))
  await net.until('the daemon answers', async () => (await status().catch(() => undefined))?.pid === daemon.pid, 30_000)
  t.equal((await status()).counters['logLinesDropped'], 0, 'what it has said so far waits')
  // Each is worth a line.
  await withDaemon({ socket }, async (client) => {
    for (let i = 0; i < RELOADS; i++) await client.call('reload', {})
  })
  const dropped = (await status()).counters['logLinesDropped'] ?? 0
  t.ok(dropped > 0 && dropped < RELOADS, `${dropped} lines are counted as dropped`)
  await net.knows('h1', 'web', ['h2'])
  t.equal((await net.run('h1', 'curl -sS -o /dev/null --max-time 10 http://web.svc.internal/')).code, 0, 'packets pass')

  let text = ''
  const bytes = Buffer.alloc(1 << 16)
  const read = () => {
    try {
      for (let length = 1; length > 0; text += bytes.toString('utf8', 0, length)) length = readSync(reader, bytes)
    } catch {
      // That is all for now.
    }
    return text.includes(LINES_MISSED)
  }
  await net.until('the log says how many lines are missing', read)
  const lines = text
    .trim()
    .split(/\n+/)
    .map((line) => JSON.parse(line))
  t.ok(lines.filter(({ msg }) => msg === 'configuration read again').length > 100, 'the oldest lines are there')
  t.equal(lines.find(({ msg }) => msg === LINES_MISSED)?.lines, (await status()).counters['logLinesDropped'])
  const ended = new Promise((resolve) => daemon.once('exit', resolve))
  daemon.kill('SIGTERM')
  t.equal(await ended, 0)
  read()
  t.match(text, /"msg":"down"/, 'the last line is there')
})
