import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { LISTEN_MAX } from '../../../daemon/config.js'
import { closeHeld, KeeperLink, stateOf } from '../../../daemon/keeper/keeper-link.js'
import { findKeeper, startKeeper } from '../../../daemon/keeper/keeper-process.js'
import {
  decodeAnswer,
  holdRequest,
  noteRequest,
  planRequest,
  releaseRequest,
  stateRequest,
  takeRequest,
} from '../../../daemon/keeper/keeper-wire.js'
import { Keeping, keptOf, type KeepingOptions } from '../../../daemon/keeper/keeping.js'
import { noLog } from '../../../daemon/log.js'
import { native } from '../../../daemon/native.js'
import { projectRoot } from '../../../daemon/our-files.js'
import { NativeUdp } from '../../../daemon/udp.js'
import { LANES_MAX } from '../../../lib/session/payload.js'
import { datagramBatch } from '../../../lib/wire/batch.js'
import { runs } from '../../tools/processes.js'

const PATIENCE_MS = 10_000
const HELD_MAX = LANES_MAX * (1 + LISTEN_MAX)
const isRoot = process.getuid?.() === 0

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !condition();) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-keeper-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** A keeper; when the folder goes it ends too. */
async function started(t: Test): Promise<{ directory: string; link: KeeperLink; pid: number }> {
  const directory = folder(t)
  const link = await startKeeper(directory)
  t.teardown(() => link.close())
  return { directory, link, pid: stateOf(await link.ask(stateRequest())).pid }
}

const event = (t: Test) => {
  const handle = native().eventOpen()
  t.teardown(() => native().close(handle))
  return handle
}

test('a socket that is held takes datagrams, and is had by the next who comes', async (t) => {
  const { directory, link } = await started(t)
  const socket = new NativeUdp({ address: '127.0.0.1', port: 0 })
  const { local } = socket
  await link.ask(holdRequest('udp-0-0'), [socket.handle])
  await link.ask(noteRequest(Buffer.from('who was here')))
  socket.close()
  link.close()
  const sender = createSocket('udp4')
  t.teardown(() => sender.close())
  await new Promise((resolve) => sender.send('waiting', local.port, local.address, resolve))
  const found = await findKeeper(directory)
  t.teardown(() => found?.link.close())
  t.equal(Buffer.from(found!.state.note).toString(), 'who was here')
  t.match(found?.state, { daemons: 2, descriptors: 1, withdrew: false, refused: 0 })
  t.strictSame([...found!.held.keys()], ['udp-0-0'])
  const taken = new NativeUdp({ held: found!.held.get('udp-0-0')! })
  t.teardown(() => taken.close())
  t.strictSame(taken.local, local)
  const batch = datagramBatch(8)
  t.equal(taken.recvBatch(batch), 1)
  t.equal(Buffer.from(batch.data.subarray(batch.desc[0], batch.desc[0]! + batch.desc[1]!)).toString(), 'waiting')
  t.throws(() => native().tunTake(found!.held.get('udp-0-0')!, 0), { code: 'CARACAL_E_TUN' }, 'it is no TUN')
  await found?.link.ask(releaseRequest('udp-0-0'))
  t.match(stateOf(await found!.link.ask(stateRequest())), { descriptors: 0 })
})

test('whatever is no message of a daemon is refused, and nothing has changed', async (t) => {
  const { link } = await started(t)
  const handle = event(t)
  await link.ask(holdRequest('tun-0'), [handle])
  const good = planRequest('giveUp', 5, [['true', 'x'.repeat(1_000)]])
  const bad: (readonly [what: string, message: Uint8Array, handles: readonly number[]])[] = [
    ['another version', Uint8Array.of(9, 1), []],
    ['another kind', Uint8Array.of(1, 99), []],
    ['one byte', Uint8Array.of(1), []],
    ['more than there is to it', Uint8Array.of(1, 1, 0), []],
    ['a name of no letters', Uint8Array.of(1, 2, 0), [handle]],
    ['a name too long', Uint8Array.of(1, 2, ...new Uint8Array(32).fill(97)), [handle]],
    ['no name', Uint8Array.of(1, 2), [handle]],
    ['nothing to hold', holdRequest('tun-1'), []],
    ['too much to hold', holdRequest('tun-1'), [handle, handle]],
    ['more than is ever looked at', holdRequest('tun-1'), new Array<number>(8).fill(handle)],
    ['a descriptor where none belongs', stateRequest(), [handle]],
    ['a note too long', Uint8Array.of(1, 4, ...new Uint8Array(16_385)), []],
    ['a plan cut short', good.subarray(0, good.length - 1), []],
    ['a plan with a rest', Uint8Array.of(...good, 0), []],
    ['a plan for another occasion', Uint8Array.of(1, 5, 2, 0, 0, 0, 0, 0), []],
    ['a plan for ever', Uint8Array.of(1, 5, 0, 255, 255, 255, 255, 0), []],
    ['too many commands', Uint8Array.of(1, 5, 0, 0, 0, 0, 0, 33, ...new Uint8Array(33 * 4).fill(1)), []],
    ['a command without words', Uint8Array.of(1, 5, 0, 0, 0, 0, 0, 1, 0), []],
    ['a program without a name', Uint8Array.of(1, 5, 0, 0, 0, 0, 0, 1, 1, 0, 0), []],
    ['a word with a NUL', Uint8Array.of(1, 5, 0, 0, 0, 0, 0, 1, 1, 2, 0, 97, 0), []],
    ['a word too long', Uint8Array.of(1, 5, 0, 0, 0, 0, 0, 1, 1, 1, 4, ...new Uint8Array(1_025).fill(97)), []],
  ]
  for (const [what, message, handles] of bad)
    await t.rejects(link.ask(message, handles), { code: 'CARACAL_E_KEEPER', message: /\(malformed\)/ }, what)
  t.match(stateOf(await link.ask(stateRequest())), { descriptors: 1, refused: bad.length })
  t.throws(() => planRequest('giveUp', 5, [['x'.repeat(1_025)]]), RangeError)
  t.throws(() => planRequest('giveUp', 5, new Array<string[]>(33).fill(['true'])), RangeError)
  t.throws(() => noteRequest(new Uint8Array(16_385)), RangeError)
})

test('all is held that a configuration allows, and is had by the next who comes; more is not', async (t) => {
  const { directory, link, pid } = await started(t)
  const handle = event(t)
  for (let i = 0; i < HELD_MAX; i++) await link.ask(holdRequest(`e-${i}`), [handle])
  const more = link.ask(holdRequest('more'), [handle])
  await t.rejects(more, { code: 'CARACAL_E_KEEPER', message: /\(full\).*`listen`/ })
  await link.ask(holdRequest('e-1'), [handle])
  t.match(stateOf(await link.ask(stateRequest())), { descriptors: HELD_MAX }, 'one of the same name takes its place')
  link.close()
  const found = await findKeeper(directory)
  t.teardown(() => found?.link.close())
  t.match(found?.state, { pid, descriptors: HELD_MAX })
  t.equal(found?.held.size, HELD_MAX)
  closeHeld(found!.held)
})

/** What a daemon gives its keeper, with so many sockets in each of its lanes. */
function keepingOptions(directory: string, queue: number, lanes: number, sockets: number): KeepingOptions {
  const listen = Array.from({ length: sockets }, (_, i) => `127.0.0.1:${1_000 + i}`)
  return {
    directory,
    settings: { on: true, withdrawAfter: 30, giveUpAfter: 600 },
    log: noLog,
    note: { host: 'h', tun: 'tun0', vnetHeader: true, listen },
    holdings: Array.from({ length: lanes }, () => ({ queue, sockets: new Array<number>(sockets).fill(queue) })),
    flowFile: undefined,
    withdraw: [],
    giveUp: [],
  }
}

test('a keeper that refuses a part of it has nothing; the next one has everything', async (t) => {
  const { directory, link, pid } = await started(t)
  const handle = event(t)
  for (let i = 0; i < HELD_MAX; i++) await link.ask(holdRequest(`e-${i}`), [handle])
  const unused = { host: '', queue: handle, sockets: [], lanes: [], withdrew: false, release: () => undefined }
  const keeping = await Keeping.begin(keepingOptions(directory, handle, 2, 3), { link, takeovers: 5, ...unused })
  t.teardown(() => keeping.end())
  t.equal(keeping.holds, false, 'nobody may count on it')
  t.match(keeping.summary, { pid: null, takeovers: 5 })
  t.match(await keeping.report(), { held: 0, problem: /\(full\)/ })
  await until('it has ended, and is not in the way of the next', () => !runs(pid))
  await until('another one has everything', () => keeping.holds)
  t.match(await keeping.report(), { descriptors: 8, held: 8, problem: undefined })
  t.not(keeping.summary.pid, pid)
  keeping.leave()
  t.equal(keeping.holds, false)
  const found = await findKeeper(directory)
  t.teardown(() => found?.link.end())
  t.equal(found?.held.size, 8)
  const wanted = { tun: { name: 'tun0' }, offload: { vnetHeader: true } }
  const listen = [1_000, 1_001, 1_002].map((port) => ({ address: '127.0.0.1', port }))
  t.match(keptOf(found!, { ...wanted, listen }, 2), { host: 'h', takeovers: 6, sockets: { length: 3 } })
  closeHeld(found!.held)
})

test('as many lanes and addresses as a configuration may have', async (t) => {
  const directory = folder(t)
  const keeping = await Keeping.begin(keepingOptions(directory, event(t), LANES_MAX, LISTEN_MAX), undefined)
  t.teardown(() => keeping.end())
  t.ok(keeping.holds)
  t.match(await keeping.report(), { descriptors: HELD_MAX, held: HELD_MAX, problem: undefined })
})

test('what comes from a keeper is an answer or nothing', (t) => {
  for (const bytes of [[], [1], [9, 131], [1, 7], [1, 129], [1, 129, 200], [1, 132], [1, 132, 9], [1, 130, 1, 2]])
    t.equal(decodeAnswer(Uint8Array.from(bytes)), undefined, bytes.join())
  t.strictSame(decodeAnswer(Uint8Array.of(1, 131)), { kind: 'done' })
  t.strictSame(decodeAnswer(Uint8Array.of(1, 132, 2)), { kind: 'refused', why: 'busy' })
  t.end()
})

test('one daemon at a time, of the same user, in a folder of its own', async (t) => {
  const { directory, link, pid } = await started(t)
  t.equal(statSync(join(directory, 'keeper.sock')).mode & 0o777, 0o600)
  const second = KeeperLink.connect(directory)
  await t.rejects(second!.ask(takeRequest()), { code: 'CARACAL_E_KEEPER', message: /\(busy\)/ })
  await second?.ended
  t.match(stateOf(await link.ask(stateRequest())), { pid, daemons: 1 })
  await t.rejects(startKeeper(directory), { code: 'CARACAL_E_KEEPER', message: /another keeper/ })
  if (isRoot) {
    spawnSync('chmod', ['-R', '777', directory])
    link.close()
    const ask = `import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('keeper.sock')
try: print(s.send(bytes([1, 1])), s.recv(100))
except OSError as e: print(e.strerror)`
    const stranger = spawnSync('python3', ['-c', ask], { cwd: directory, uid: 65_534, gid: 65_534, encoding: 'utf8' })
    t.match(stranger.stdout, /b''|Broken pipe|reset/, stranger.stderr)
    const found = await findKeeper(directory)
    t.match(found?.state, { refused: 1 })
    found?.link.close()
  } else {
    const foreign = spawnSync(join(projectRoot(), 'build/Release/caracal-keeper'), ['/'], { encoding: 'utf8' })
    t.match(foreign, { status: 1, stderr: /not permitted/ })
  }
})

test('without a daemon it does what it was told, each in its time, and ends', async (t) => {
  const { directory, link, pid } = await started(t)
  const [first, second, never] = ['first', 'second', 'never'].map((name) => join(directory, name))
  await link.ask(planRequest('withdraw', 0, [['no-such-program'], ['touch', first!]]))
  await link.ask(planRequest('giveUp', 600, [['touch', second!]]))
  link.close()
  await until('the first commands are done', () => existsSync(first!))
  const found = await findKeeper(directory)
  t.match(found?.state, { pid, withdrew: true, failedCommands: 1 }, 'the next daemon learns of it')
  t.notOk(existsSync(second!))
  rmSync(first!)
  await found?.link.ask(planRequest('giveUp', 0, [['sh', '-c', `ls ${directory} > ${second}`]]))
  found?.link.close()
  await until('the keeper has given up', () => !runs(pid))
  t.match(readFileSync(second!, 'utf8'), /^first\n/m, 'what comes first was done before, once more')
  t.notOk(existsSync(join(directory, 'keeper.sock')))
  t.notOk(existsSync(never!))
  t.equal(await findKeeper(directory), undefined)
})

test('it ends when it is told to, and when nobody could find it any more', async (t) => {
  const told = await started(t)
  await told.link.end()
  await until('it has ended', () => !runs(told.pid))
  t.equal(KeeperLink.connect(told.directory), undefined)

  const lost = await started(t)
  const trace = join(folder(t), 'gave-up')
  await lost.link.ask(planRequest('giveUp', 600, [['touch', trace]]))
  rmSync(lost.directory, { recursive: true })
  t.match(stateOf(await lost.link.ask(stateRequest())), { pid: lost.pid }, 'not while its daemon is there')
  lost.link.close()
  await until('it has ended', () => !runs(lost.pid))
  t.ok(existsSync(trace), 'having taken everything back')
})

test('a keeper outlives a daemon that is killed, and is heard of when it is killed itself', async (t) => {
  const directory = folder(t)
  const source = `import { startKeeper } from ${JSON.stringify(new URL('../../../daemon/keeper/keeper-process.js', import.meta.url).href)}
    await startKeeper(${JSON.stringify(directory)}); console.log('up')`
  const daemon = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(daemon.stdout, 'data')
  daemon.kill('SIGKILL')
  await once(daemon, 'exit')
  const found = await findKeeper(directory)
  t.match(found?.state, { daemons: 2 })
  process.kill(found!.state.pid, 'SIGKILL')
  await found?.link.ended
  await t.rejects(found!.link.ask(stateRequest()), { code: 'CARACAL_E_KEEPER' })
  t.equal(await findKeeper(directory), undefined, 'the name that it left leads to nobody')
  const next = await startKeeper(directory)
  await next.end()
})
