import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { startTime } from '../../../cli/lab/holder.js'
import { collect, Lab, labDirectory } from '../../../cli/lab/lab.js'
import { CaracalError } from '../../../daemon/errors.js'

/** A folder with this state of a lab. */
function folder(t: Test, state?: string): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-lab-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  if (state !== undefined) writeFileSync(join(path, 'lab.json'), state)
  return path
}

const here = { pid: process.pid, startTime: startTime(process.pid) ?? '' }
const state = (changes: object = {}) =>
  JSON.stringify({
    switch: here,
    hosts: [
      { name: 'h1', address: '10.77.0.1', holder: here, daemon: here, zone: 'svc.internal' },
      { name: 'h2', address: '10.77.0.2', holder: here },
    ],
    ...changes,
  })

function found(directory: string): Lab {
  const lab = Lab.find(directory)
  if (lab === undefined) throw new Error('no lab')
  return lab
}

test('where a lab is kept', async (t) => {
  t.equal(labDirectory({}, 0), '/run/caracal-lab')
  t.equal(labDirectory({ XDG_RUNTIME_DIR: '/run/user/0' }, 0), '/run/caracal-lab')
  t.equal(labDirectory({}, 1000), '/tmp/caracal-lab-1000', 'one a user where the folder is shared')
  t.equal(labDirectory({ XDG_RUNTIME_DIR: '/tmp' }, 1000), '/tmp/caracal-lab-1000')
  t.equal(labDirectory({ XDG_RUNTIME_DIR: '/run/user/1000' }, 1000), '/run/user/1000/caracal-lab')
  for (const uid of [0, 1000]) {
    t.equal(labDirectory({ CARACAL_LAB: '/x/lab', XDG_RUNTIME_DIR: '/run/user/1000' }, uid), '/x/lab')
  }
  t.equal(labDirectory({ CARACAL_LAB: '', XDG_RUNTIME_DIR: '' }, 1000), '/tmp/caracal-lab-1000', 'empty is not set')
})

test('a lab is found by its file', async (t) => {
  const directory = folder(t, state())
  const lab = found(directory)
  t.strictSame(
    lab.hosts.map(({ name, address, zone }) => [name, address, zone]),
    [
      ['h1', '10.77.0.1', 'svc.internal'],
      ['h2', '10.77.0.2', undefined],
    ],
  )
  t.equal(lab.host('h2').address, '10.77.0.2')
  t.equal(lab.path('h1', 'daemon.log'), join(directory, 'h1/daemon.log'))
})

test('no lab: none was built, or what is left of it is no lab', async (t) => {
  t.equal(Lab.find(folder(t)), undefined)
  t.equal(Lab.find('/nonexistent/lab'), undefined)
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '{"switch":{}}',
    state().slice(0, -10),
    state({ switch: { pid: -1, startTime: '' } }),
    state({ switch: { pid: '1', startTime: '' } }),
    state({ hosts: [{ name: 'h1' }] }),
    ' '.repeat(4096),
  ]) {
    t.equal(Lab.find(folder(t, text)), undefined, text.slice(0, 60))
  }
  t.equal(
    Lab.find(folder(t, state({ switch: { ...here, startTime: '1' } }))),
    undefined,
    'the process ID is another program’s by now',
  )
})

test('a second lab in the same place is refused', async (t) => {
  const directory = folder(t, state())
  await t.rejects(Lab.up(['h1'], { directory }), { code: 'CARACAL_E_LAB', what: /a lab is up in/, next: /lab down/ })
  await t.rejects(Lab.up([], { directory: folder(t) }), { code: 'CARACAL_E_LAB', what: 'a lab of 0 hosts' })
  const many = Array.from({ length: 65 }, (_, i) => `h${i}`)
  await t.rejects(Lab.up(many, { directory: folder(t) }), { code: 'CARACAL_E_LAB', next: 'choose 1 to 64' })
})

test('a host that the lab does not have is named, with those it has', async (t) => {
  const lab = found(folder(t, state()))
  t.throws(() => lab.host('h9'), new CaracalError('CARACAL_E_LAB', 'the lab has no host h9', 'choose one of h1, h2'))
  t.throws(() => lab.spawn('h9', ['true']), { code: 'CARACAL_E_LAB' })
  await t.rejects(lab.caracal('h9', 'status'), { code: 'CARACAL_E_LAB' })
})

test("a program on a host talks to that host's daemon", async (t) => {
  const directory = folder(t, state())
  const { CARACAL_SOCKET, CARACAL_STATE, CARACAL_LAB, NODE_OPTIONS, PATH } = found(directory).environment('h2')
  t.strictSame(
    { CARACAL_SOCKET, CARACAL_STATE, CARACAL_LAB, NODE_OPTIONS },
    {
      CARACAL_SOCKET: join(directory, 'h2/control.sock'),
      CARACAL_STATE: join(directory, 'h2/state'),
      CARACAL_LAB: directory,
      NODE_OPTIONS: undefined,
    },
  )
  t.match(PATH, /:\/usr\/sbin/, 'system programs are found')
})

test('output and status of a program', async (t) => {
  const run = (script: string) => collect(spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'pipe'] }))
  t.strictSame(await run('echo out; echo err >&2; exit 3'), { code: 3, out: 'out\n', err: 'err\n' })
  t.match(await run('kill -9 $$'), { code: 1 })
  await t.rejects(collect(spawn('/nonexistent')), { code: 'ENOENT' })
})
