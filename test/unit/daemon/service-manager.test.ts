import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import fc from 'fast-check'
import { test, type Test } from 'tap'
import { systemCode } from '../../../daemon/errors.js'
import { noLog, type Log } from '../../../daemon/log.js'
import { native } from '../../../daemon/native.js'
import { ServiceManager, type Notifier } from '../../../daemon/service-manager.js'

/** Stands for systemd: prints each datagram as hex, one a line, for each line on its stdin or (`all`) as they come. */
const RECEIVER = `
import socket, sys
name, how = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('\\0' + name[1:] if name[0] == '@' else name)
print('bound', flush=True)
if how == 'all':
    while True: print('x' + s.recv(65536).hex(), flush=True)
for line in sys.stdin: print('x' + s.recv(65536).hex(), flush=True)
`

interface Receiver {
  next(): Promise<string>
  /** Lets it take one more datagram. */
  take(): void
}

async function receiver(t: Test, name: string, how: 'all' | 'asked'): Promise<Receiver> {
  const child = spawn('python3', ['-c', RECEIVER, name, how], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(async () => {
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  })
  const lines: Interface = createInterface(child.stdout)
  const iterator = lines[Symbol.asyncIterator]()
  const line = async () => String((await iterator.next()).value)
  if ((await line()) !== 'bound') throw new Error('the receiver does not listen')
  return {
    next: async () => Buffer.from((await line()).slice(1), 'hex').toString(),
    take: () => void child.stdin.write('\n'),
  }
}

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'caracal-notify-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

class NativeLike extends Error {
  constructor(
    readonly code: string,
    readonly reason: string,
  ) {
    super(`cannot notify: sendto: ${reason}`)
  }
}

function collecting(): { sent: string[]; notify: Notifier } {
  const sent: string[] = []
  return { sent, notify: (_, text) => void sent.push(text) }
}

/** Resolves at the n-th call of the returned function. */
function nth(n: number): { reached: Promise<void>; tick: () => void } {
  let resolve = () => undefined as void
  const reached = new Promise<void>((done) => (resolve = done))
  let left = n
  return { reached, tick: () => void (--left === 0 && resolve()) }
}

for (const kind of ['path', 'abstract']) {
  test(`a service manager hears the daemon's life (${kind} socket)`, async (t) => {
    const name = kind === 'path' ? join(await folder(t), 'notify') : `@caracal-notify-${process.pid}`
    const systemd = await receiver(t, name, 'all')
    const manager = ServiceManager.fromEnvironment({ NOTIFY_SOCKET: name })
    t.equal(manager.present, true)
    manager.status('joining\nhome')
    t.equal(await systemd.next(), 'STATUS=joining home', 'one line')
    manager.ready('h1 in home')
    t.equal(await systemd.next(), 'READY=1\nSTATUS=h1 in home')
    const before = process.hrtime.bigint() / 1000n
    manager.reloading()
    const [, microseconds] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(await systemd.next()) ?? []
    t.ok(BigInt(microseconds ?? 0) >= before && BigInt(microseconds ?? 0) <= process.hrtime.bigint() / 1000n, 'now')
    manager.ready()
    t.equal(await systemd.next(), 'READY=1')
    manager.stopping()
    t.equal(await systemd.next(), 'STOPPING=1')
    manager.close()
  })
}

test('the watchdog is fed at half its time once ready, until the end', async (t) => {
  const name = join(await folder(t), 'notify')
  const systemd = await receiver(t, name, 'all')
  const manager = ServiceManager.fromEnvironment({
    NOTIFY_SOCKET: name,
    WATCHDOG_USEC: '100000',
    WATCHDOG_PID: String(process.pid),
  })
  t.equal(manager.watchdogMs, 50)
  const started = performance.now()
  manager.ready()
  t.equal(await systemd.next(), 'READY=1')
  for (let i = 0; i < 4; i++) t.equal(await systemd.next(), 'WATCHDOG=1')
  t.ok(performance.now() - started >= 140, 'the first at once, the others half the time apart')
  manager.stopping('closing')
  t.equal(await systemd.next(), 'STOPPING=1\nSTATUS=closing')
  t.equal(await systemd.next(), 'WATCHDOG=1', 'on the way out too')
  manager.close()
})

test('a closed one says nothing more', async (t) => {
  const env = { NOTIFY_SOCKET: '/run/notify', WATCHDOG_USEC: '2000' }
  const { sent, notify } = collecting()
  const closed = ServiceManager.fromEnvironment(env, { notify })
  closed.ready()
  closed.close()
  const { length } = sent
  const { reached, tick } = nth(20)
  const clock = ServiceManager.fromEnvironment(env, { notify: tick })
  clock.ready()
  const alive = setInterval(() => undefined, 1_000)
  await reached
  clearInterval(alive)
  clock.close()
  closed.ready()
  closed.status('still here')
  t.equal(sent.length, length)
})

test('which watchdogs are ours', async (t) => {
  const period = (env: { WATCHDOG_USEC?: string; WATCHDOG_PID?: string }) =>
    ServiceManager.fromEnvironment({ NOTIFY_SOCKET: '/run/notify', ...env }, {}, 77).watchdogMs
  t.equal(period({ WATCHDOG_USEC: '30000000' }), 15_000, 'everybody')
  t.equal(period({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '77' }), 15_000)
  t.equal(period({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '78' }), undefined, "another process's")
  t.equal(period({ WATCHDOG_USEC: '1' }), 1, 'never busy')
  t.equal(period({ WATCHDOG_USEC: '9000000000000000' }), 2 ** 31 - 1, 'as long as timers go')
  for (const wrong of ['', '0', '-5', '1e3', 'soon', '9'.repeat(40)])
    t.equal(period({ WATCHDOG_USEC: wrong }), undefined, wrong)
})

test('without a service manager nothing happens', async (t) => {
  const warnings: string[] = []
  const log: Log = { ...noLog, warn: (_, message) => void warnings.push(message) }
  for (const socket of [undefined, '', 'vsock:2:1234', '@', '/', 'notify']) {
    const { sent, notify } = collecting()
    const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000' }
    const manager = ServiceManager.fromEnvironment(env, { notify, log })
    t.equal(manager.present, false, String(socket))
    manager.ready('x')
    manager.reloading()
    manager.status('y')
    manager.stopping()
    manager.close()
    t.strictSame(sent, [])
  }
  t.equal(warnings.length, 4, 'a socket that cannot be used is told of')
})

test('a busy service manager gets everything later, in order', async (t) => {
  const sent: string[] = []
  let refusals = 3
  const { reached, tick } = nth(2)
  const notify: Notifier = (_, text) => {
    if (refusals-- > 0) throw new NativeLike('CARACAL_E_NOTIFY', 'EAGAIN')
    sent.push(text)
    tick()
  }
  const manager = ServiceManager.fromEnvironment({ NOTIFY_SOCKET: '/run/notify' }, { notify })
  manager.ready()
  manager.status('one')
  t.strictSame(sent, [])
  const alive = setInterval(() => undefined, 1_000)
  await reached
  clearInterval(alive)
  t.strictSame(sent, ['READY=1', 'STATUS=one'])
  manager.close()
})

test('a service manager that is gone does no harm and is told of once', async (t) => {
  const warnings: unknown[] = []
  const log: Log = { ...noLog, warn: (fields) => void warnings.push(fields) }
  const socket = join(await folder(t), 'nobody')
  const manager = ServiceManager.fromEnvironment({ NOTIFY_SOCKET: socket }, { log })
  manager.ready()
  manager.status('x')
  manager.close()
  t.match(warnings, [{ socket, reason: /ENOENT/ }])
  t.equal(warnings.length, 1)
})

test('a long status is cut between characters', async (t) => {
  const { sent, notify } = collecting()
  const manager = ServiceManager.fromEnvironment({ NOTIFY_SOCKET: '/run/notify' }, { notify })
  manager.status('😀'.repeat(5_000))
  t.equal(sent[0], `STATUS=${'😀'.repeat(512)}`)
})

test('the native call does not wait for a full queue', async (t) => {
  const name = join(await folder(t), 'notify')
  const systemd = await receiver(t, name, 'asked')
  const addon = native()
  let taken = 0
  t.throws(
    () => {
      for (; taken < 100_000; taken++) addon.notify(name, `STATUS=${taken}`)
    },
    { code: 'CARACAL_E_NOTIFY', reason: 'EAGAIN', syscall: 'sendto' },
  )
  t.ok(taken > 0)
  systemd.take()
  t.equal(await systemd.next(), 'STATUS=0', 'nothing is lost or torn')
})

test('the native call refuses what is no socket or text', async (t) => {
  const { notify } = native()
  t.throws(() => notify('relative', 'x'), { code: 'CARACAL_E_RANGE' })
  t.throws(() => notify('@', 'x'), { code: 'CARACAL_E_RANGE' })
  t.throws(() => notify('/a\0b', 'x'), { code: 'CARACAL_E_ARGUMENT' })
  t.throws(() => notify(`/${'a'.repeat(107)}`, 'x'), { code: 'CARACAL_E_RANGE' }, 'no room for the end of the path')
  t.throws(() => notify(`/${'a'.repeat(106)}`, 'x'), { code: 'CARACAL_E_NOTIFY', reason: 'ENOENT' }, 'the longest path')
  t.throws(
    () => notify(`@${'a'.repeat(107)}`, 'x'),
    { code: 'CARACAL_E_NOTIFY', reason: 'ECONNREFUSED' },
    'the longest name',
  )
  t.throws(() => notify(`@${'a'.repeat(108)}`, 'x'), { code: 'CARACAL_E_RANGE' })
  t.throws(() => notify('@nobody', ''), { code: 'CARACAL_E_RANGE' })
  t.throws(() => notify('@nobody', 'x'.repeat(4_097)), { code: 'CARACAL_E_RANGE' })
  const call = (args: readonly unknown[]): unknown => Reflect.apply(notify, undefined, args)
  const value = fc.oneof(
    fc.anything(),
    fc.string(),
    fc.string().map((text) => `@caracal-nobody-${text}`),
  )
  fc.assert(
    fc.property(fc.array(value, { maxLength: 4 }), (args) => {
      try {
        call(args)
        return false
      } catch (error) {
        return systemCode(error)?.startsWith('CARACAL_E_') === true
      }
    }),
    { numRuns: 3_000 },
  )
})
