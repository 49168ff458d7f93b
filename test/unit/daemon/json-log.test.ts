import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { CaracalError } from '../../../daemon/errors.js'
import { createLog } from '../../../daemon/json-log.js'

test('one JSON line an event, at the level that is set now', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-log-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'log')
  const fd = openSync(file, 'w')
  t.teardown(() => closeSync(fd))
  const log = createLog('warn', { host: 'h1' }, fd)
  const child = log.child({ part: 'dns' })
  log.info({}, 'not written')
  child.warn({ name: 'web' }, 'written')
  log.setLevel('debug')
  child.debug({ token: 'caracal-secret' }, 'written too')
  log.error({ error: new CaracalError('CARACAL_E_TUN', 'no TUN', 'load the module') }, 'bad')
  log.setLevel('silent')
  log.error({}, 'not written')
  const lines = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(lines, [
    { level: 'warn', time: /^\d{4}-\d\d-\d\dT/, host: 'h1', part: 'dns', name: 'web', msg: 'written' },
    { level: 'debug', token: '(hidden)' },
    { level: 'error', error: { code: 'CARACAL_E_TUN', message: 'no TUN: load the module', stack: String } },
  ])
  t.equal(lines.length, 3)
})
