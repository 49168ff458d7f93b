import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { CommandError, runCommand, runWithin } from '../../../daemon/command.js'
import { native } from '../../../daemon/native.js'

const failed = (run: Promise<string>): Promise<CommandError> =>
  run.then(
    (output) => {
      throw new Error(`it did not fail, but said ${output}`)
    },
    (error: unknown) => {
      if (error instanceof CommandError) return error
      throw error
    },
  )
const sh = (script: string, input?: string) => runCommand('sh', ['-c', script], input)

t.test(
  'gives a program its words, its input and an environment that is not translated, and what it wrote back',
  async (t) => {
    t.equal(await runCommand('printf', ['%s|', 'a b', '', '$HOME', 'ä']), 'a b||$HOME|ä|')
    t.equal(await sh('tr a-z A-Z', 'quiet\n'), 'QUIET\n')
    t.equal(await sh('echo $LC_ALL; case :$PATH: in *:/usr/sbin:*) echo found;; esac'), 'C\nfound\n')
    t.equal(await sh('read line || echo nothing to read'), 'nothing to read\n')
    process.env.CARACAL_LONG = 'x'.repeat(100_000)
    t.teardown(() => delete process.env.CARACAL_LONG)
    t.equal(await sh('echo ${#CARACAL_LONG}'), '100000\n')
  },
)

t.test('passes on more than a pipe holds, both ways at once', async (t) => {
  const much = 'x'.repeat(3 << 20)
  t.equal((await sh('cat', much)).length, much.length)
  t.equal(await sh('cat >/dev/null; head -c 300000 /dev/zero | tr "\\0" e >&2; echo done', much), 'done\n')
})

t.test('a program that ends without reading its input is judged by its status', async (t) => {
  t.equal(await sh('exec 0<&-; echo fine', 'x'.repeat(1 << 20)), 'fine\n')
})

t.test('tells the status and the complaint of one that fails, on one line', async (t) => {
  const { status, complaint, missing, message } = await failed(sh('echo one >&2; echo " two" >&2; exit 7'))
  t.same(
    { status, complaint, missing, message },
    { status: 7, complaint: 'one; two', missing: false, message: 'sh: one; two' },
  )
  t.match((await failed(sh('exit 3'))).complaint, 'it ended with 3')
  const killed = await failed(sh('kill -9 $$'))
  t.same([killed.status, killed.complaint], [undefined, 'it ended with signal 9'])
})

t.test('tells one that is not installed from one that cannot be run', async (t) => {
  const { missing, message } = await failed(runCommand('no-such-program', []))
  t.same([missing, message], [true, 'no-such-program is not installed'])
  const file = join(t.testdir(), 'program')
  writeFileSync(file, '#!/no/such/interpreter\n')
  chmodSync(file, 0o755)
  const before = process.env.PATH
  t.teardown(() => (process.env.PATH = before))
  process.env.PATH = `${join(file, '..')}:${before}`
  const refused = await failed(runCommand('program', []))
  t.equal(refused.missing, false)
  t.match(refused.complaint, /posix_spawn: ENOENT/)
})

t.test('ends one that takes too long, also when it has closed its output', async (t) => {
  const started = performance.now()
  for (const script of ['echo $$; exec sleep 60', 'exec >&- 2>&-; exec sleep 60']) {
    t.match(await failed(runWithin(300, 'sh', ['-c', script])), {
      status: undefined,
      complaint: 'it did not end within 0.3 s',
    })
  }
  t.ok(performance.now() - started < 30_000, 'long before it would have ended')
})

t.test('a program starts with no signal ignored or blocked, and with no descriptor but its three', async (t) => {
  // Two that the C library has for itself follow on these.
  const ordinary = (status: string, set: string) =>
    Number(`0x${new RegExp(`${set}:.*(.{8})`).exec(status)?.[1]}`) & 0x7fffffff
  const status = await sh('cat /proc/self/status')
  t.equal(ordinary(status, 'SigBlk'), 0)
  t.equal(ordinary(status, 'SigIgn'), 0)
  t.not(ordinary(readFileSync('/proc/self/status', 'utf8'), 'SigIgn'), 0, 'as this process has')
  // The fourth is the listing's own.
  t.equal((await sh('ls /proc/self/fd')).trim().split('\n').length, 4)
})

t.test('many at once, and no process is left behind', async (t) => {
  const results = await Promise.all(Array.from({ length: 40 }, (_, i) => sh(`echo ${i}`)))
  t.same(
    results,
    Array.from({ length: 40 }, (_, i) => `${i}\n`),
  )
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim()
  t.equal(children, '')
})

t.test('the addon checks what it is given', (t) => {
  const run = (...args: readonly unknown[]) => Reflect.apply(native().runProgram, undefined, args)
  const none = new Uint8Array(0)
  const bad: readonly (readonly unknown[])[] = [
    [],
    ['/bin/true', [], none, 1, 1],
    [['/bin/true', 1], [], none, 1, 1],
    [['/bin/true'], [], '', 1, 1],
    [['/bin/true'], {}, none, 1, 1],
    [['/bin/\0true'], [], none, 1, 1],
  ]
  for (const args of bad) t.throws(() => run(...args), { code: 'CARACAL_E_ARGUMENT' })
  const outside: readonly (readonly unknown[])[] = [
    [[], [], none, 1, 1],
    [['true'], [], none, 1, 1],
    [['/bin/true', 'x'.repeat(1 << 17)], [], none, 1, 1],
    [['/bin/true'], [], none, 0, 1],
    [['/bin/true'], [], none, 1, -1],
    [['/bin/true'], [], new Uint8Array((64 << 20) + 1), 1, 1],
  ]
  for (const args of outside) t.throws(() => run(...args), { code: 'CARACAL_E_RANGE' })
  t.end()
})

t.test('ends one that says more than it may', async (t) => {
  const ended = await native().runProgram(
    ['/bin/sh', '-c', 'yes'],
    ['PATH=/usr/bin:/bin'],
    new Uint8Array(0),
    10_000,
    100_000,
  )
  t.match(ended, { tooMuch: true, late: false, signal: 9, status: -1 })
  t.ok(ended.output.length <= 100_000)
})
