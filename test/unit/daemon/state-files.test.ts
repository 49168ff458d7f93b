import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { CaracalError } from '../../../daemon/errors.js'
import { StateDirectory } from '../../../daemon/state-files.js'
import { utf8 } from '../../../lib/wire/bytes.js'

const identity = (content: Uint8Array) => content

function temporary(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-state-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return join(path, 'state')
}

async function opened(t: Test, path = temporary(t)): Promise<StateDirectory> {
  const state = await StateDirectory.open(path)
  t.teardown(() => state.close())
  return state
}

async function errorOf(promise: Promise<unknown>): Promise<CaracalError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error instanceof CaracalError) return error
  throw new Error('no CaracalError', { cause: error })
}

test('what is written is read again, by this process and the next', async (t) => {
  const path = temporary(t)
  const first = await opened(t, path)
  t.equal(await first.read('host-key', identity), undefined, 'nothing there yet')
  await first.write('host-key', utf8('secret'))
  t.same(await first.read('host-key', identity), utf8('secret'))
  t.equal(statSync(path).mode & 0o777, 0o700)
  for (const name of readdirSync(path)) t.equal(statSync(join(path, name)).mode & 0o777, 0o600, name)
  await first.write('host-key', new Uint8Array(0))
  await first.close()
  const second = await opened(t, path)
  t.same(await second.read('host-key', identity), new Uint8Array(0))
  await second.remove('host-key')
  await second.remove('host-key')
  t.equal(await second.read('host-key', identity), undefined)
})

test('of many writes at once the last one stays, and all are told when it is on disk', async (t) => {
  const state = await opened(t)
  const writes = Array.from({ length: 50 }, (_, i) => state.write('counter', utf8(`${i}`)))
  const other = state.write('other', utf8('x'))
  await writes[0]
  await Promise.all(writes)
  t.same(await state.read('counter', identity), utf8('49'))
  await other
  const last = state.write('counter', utf8('last'))
  await state.close()
  await last
  t.match(await errorOf(state.write('counter', utf8('late'))), { code: 'CARACAL_E_STATE' })
  const again = await opened(t, state.path)
  t.same(await again.read('counter', identity), utf8('last'), 'closing waits for writes')
})

test('a damaged file is named', async (t) => {
  const state = await opened(t)
  const path = join(state.path, 'trust')
  await state.write('trust', utf8('some content that is secret'))
  const whole = readFileSync(path)
  const flipped = Buffer.from(whole)
  flipped[whole.length - 3]! ^= 1
  for (const content of [
    Buffer.alloc(0),
    whole.subarray(0, 10),
    whole.subarray(0, -1),
    flipped,
    Buffer.alloc(whole.length),
  ]) {
    writeFileSync(path, content)
    const error = await errorOf(state.read('trust', identity))
    t.equal(error.code, 'CARACAL_E_STATE_DAMAGED')
    t.ok(error.message.includes(path))
    t.notOk(error.message.includes('secret'))
    t.match(error.message, /backup/)
  }
  writeFileSync(path, whole)
  t.match(
    await errorOf(state.read('trust', () => undefined)),
    { code: 'CARACAL_E_STATE_DAMAGED' },
    'whole but without sense',
  )
})

test('files and directories open to others are refused, with what to type', async (t) => {
  const state = await opened(t)
  await state.write('host-key', utf8('secret'))
  for (const mode of [0o640, 0o604, 0o660]) {
    chmodSync(join(state.path, 'host-key'), mode)
    const error = await errorOf(state.read('host-key', identity))
    t.match(error, { code: 'CARACAL_E_STATE', next: `chmod 600 ${join(state.path, 'host-key')}` })
  }
  await state.close()
  chmodSync(state.path, 0o770)
  t.match(await errorOf(StateDirectory.open(state.path)), { code: 'CARACAL_E_STATE', next: `chmod 700 ${state.path}` })
})

test('a directory that cannot be used says what to do', async (t) => {
  const path = temporary(t)
  writeFileSync(path, '')
  for (const impossible of [path, join(path, 'below')])
    t.match(await errorOf(StateDirectory.open(impossible)), {
      code: 'CARACAL_E_STATE',
      what: /is not a directory/,
      next: /--state DIR/,
    })
  t.match(await errorOf(StateDirectory.open('/proc/caracal')), { code: 'CARACAL_E_STATE', next: /--state DIR/ })

  const parent = mkdtempSync(join(tmpdir(), 'caracal-state-'))
  t.teardown(() => rmSync(parent, { recursive: true, force: true }))
  chmodSync(parent, 0o555)
  const asRoot = process.getuid?.() === 0
  if (asRoot) process.seteuid?.(65_534)
  try {
    t.match(await errorOf(StateDirectory.open(join(parent, 'state'))), {
      code: 'CARACAL_E_STATE',
      what: /no right to use/,
      next: /run as the user who owns it/,
    })
  } finally {
    if (asRoot) process.seteuid?.(0)
  }
})

test('names of files stay within the directory', async (t) => {
  const state = await opened(t)
  for (const name of ['../x', '', '.hidden', 'a/b', 'x.tmp']) {
    t.throws(() => state.write(name, utf8('')), RangeError)
    await t.rejects(state.read(name, identity), RangeError)
  }
})

test('one process at a time has the directory', async (t) => {
  const path = temporary(t)
  const first = await opened(t, path)
  const error = await errorOf(StateDirectory.open(path))
  t.equal(error.code, 'CARACAL_E_STATE_IN_USE')
  t.match(error.message, new RegExp(`${first.path} is in use by process ${process.pid}: .*caracal down`))
  await first.close()
  await first.close()
  await opened(t, path)
})

test('of several that start at once exactly one gets a new directory', async (t) => {
  const path = join(temporary(t), 'with', 'parents')
  const results = await Promise.allSettled(Array.from({ length: 8 }, () => StateDirectory.open(path)))
  const winners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  for (const winner of winners) t.teardown(() => winner.close())
  t.equal(winners.length, 1)
  for (const result of results)
    if (result.status === 'rejected') t.match(result.reason, { code: 'CARACAL_E_STATE_IN_USE' })
})

test('a killed process leaves nothing to clean by hand', async (t) => {
  const path = temporary(t)
  const module = new URL('../../../daemon/state-files.js', import.meta.url).href
  const program = `const { StateDirectory } = await import(${JSON.stringify(module)})
    await StateDirectory.open(${JSON.stringify(path)})
    console.log('open')
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env['PATH'] },
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  const error = await errorOf(StateDirectory.open(path))
  t.match(error, { code: 'CARACAL_E_STATE_IN_USE', what: new RegExp(`process ${child.pid}$`) })
  writeFileSync(join(path, 'trust.tmp'), 'half a fi')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await opened(t, path)
  t.notOk(readdirSync(path).includes('trust.tmp'))
})

test('the holder file is believed only about the very process it names', async (t) => {
  const path = temporary(t)
  const state = await opened(t, path)
  const own = readFileSync(join(path, 'lock-holder'), 'utf8')
  // So that the directory stays.
  await state.write('trust', utf8('content'))
  await state.close()
  // As a daemon in another network namespace shows: the socket's name is free, but the holder lives.
  const other = spawn('sleep', ['60'], { stdio: 'ignore' })
  t.teardown(() => other.kill('SIGKILL'))
  const start = readFileSync(`/proc/${other.pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19]
  const boot = own.split(' ')[1]?.split('/')[0]
  writeFileSync(join(path, 'lock-holder'), `${other.pid} ${boot}/${start}\n`)
  const error = await errorOf(StateDirectory.open(path))
  t.match(error, { code: 'CARACAL_E_STATE_IN_USE', what: new RegExp(`process ${other.pid}$`) })
  // A later process with the same ID.
  writeFileSync(join(path, 'lock-holder'), `${other.pid} ${boot}/1${start}\n`)
  await (await StateDirectory.open(path)).close()
  for (const text of ['', 'x', '0 0\n', `${process.ppid} unknown\n`, '9999999 1\n']) {
    writeFileSync(join(path, 'lock-holder'), text)
    await (await StateDirectory.open(path)).close()
  }
})

test('what is held back is written at the release, and forgotten at a close before it', async (t) => {
  const path = temporary(t)
  const first = await opened(t, path)
  first.hold()
  await first.write('trust', utf8('early'))
  await first.write('trust', utf8('late'))
  t.equal(await first.read('trust', identity), undefined, 'not on disk')
  await first.close()
  const second = await opened(t, path)
  t.equal(await second.read('trust', identity), undefined, 'forgotten')
  second.hold()
  const content = utf8('kept')
  await second.write('trust', content)
  content.fill(0)
  await second.release()
  t.same(await second.read('trust', identity), utf8('kept'))
  await second.write('trust', utf8('more'))
  t.same(await second.read('trust', identity), utf8('more'), 'writes go to disk again')
})

test('a directory that was made and not used goes again', async (t) => {
  const path = temporary(t)
  await (await StateDirectory.open(path)).close()
  t.notOk(existsSync(path))
  const used = await StateDirectory.open(path)
  await used.write('trust', utf8('content'))
  await used.close()
  t.ok(existsSync(path), 'it holds something')
  const again = await StateDirectory.open(path)
  await again.remove('trust')
  await again.close()
  t.ok(existsSync(path), 'it was there before')
})

test('a directory that is another one’s can be looked at, and taken when that has ended: what has changed meanwhile is known', async (t) => {
  const path = temporary(t)
  const before = await StateDirectory.open(path)
  for (const name of ['trust', 'tokens', 'peers']) await before.write(name, utf8(name))
  const state = StateDirectory.peek(path)
  for (const name of ['trust', 'tokens', 'addresses']) await state.read(name, identity)
  await t.rejects(state.write('trust', utf8('mine')), { code: 'CARACAL_E_STATE' })
  await t.rejects(state.take(), { code: 'CARACAL_E_STATE_IN_USE' })
  t.same(state.changed, [])
  for (const name of ['tokens', 'addresses', 'peers']) await before.write(name, utf8('another'))
  await before.close()
  await state.take()
  t.teardown(() => state.close())
  t.same(state.changed, ['tokens', 'addresses'], 'of what was read')
  await state.write('trust', utf8('mine'))
  t.same(await state.read('trust', identity), utf8('mine'))
})
