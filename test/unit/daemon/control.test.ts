import { chmodSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { t as root, test } from 'tap'
import { ControlClient } from '../../../daemon/control/client.js'
import { FlowWatch } from '../../../daemon/control/flow-watch.js'
import { groupId, groupName } from '../../../daemon/control/group.js'
import { parseFilter } from '../../../daemon/control/filter.js'
import { REQUEST_LINE_MAX } from '../../../daemon/control/protocol.js'
import { CheckedRequests } from '../../../daemon/control/requests.js'
import { ControlServer } from '../../../daemon/control/server.js'
import { CaracalError } from '../../../daemon/errors.js'
import { noLog } from '../../../daemon/log.js'
import type { TapEvent } from '../../../lib/host/tap.js'
import { fakeHandlers, sampleFlow, startFake, untilAborted } from '../cli/fake-daemon.js'

// many runs, and the machine may be busy
root.setTimeout(180_000)

const event: TapEvent = {
  point: 'tun',
  direction: 'in',
  time: 1,
  bytes: Buffer.alloc(1400, 7),
  length: 1400,
  peer: 'h2',
  service: 'web',
  protocol: 'tcp',
  sourcePort: 80,
  destinationPort: 40022,
  verdict: 'pass',
}

/** Writes raw text, and resolves with the lines that came when the server has closed, or after `lines` of them. */
function raw(
  path: string,
  text: string | Buffer,
  lines = Number.POSITIVE_INFINITY,
): Promise<Record<string, unknown>[]> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true })
    let got = ''
    const done = () => {
      socket.destroy()
      resolve(
        got
          .trimEnd()
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line)),
      )
    }
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString()
      if (got.split('\n').length > lines) done()
    })
    socket.on('end', done)
    socket.on('error', reject)
    socket.write(text)
  })
}

const request = (id: number, op: string, args: object = {}) => `${JSON.stringify({ v: 1, id, op, args })}\n`

test('requests on one connection run side by side', async (t) => {
  let release: () => void = () => undefined
  const gate = new Promise<void>((resolve) => (release = resolve))
  const fake = await startFake({
    ping: async ({ target, sequence }) => {
      await gate
      const path = { local: null, remote: null, reason: null }
      return { target, kind: 'host', sequence, host: null, ...path, rttMs: null, detail: 'x' }
    },
  })
  t.teardown(() => fake.stop())
  const client = await ControlClient.connect(fake.path)
  t.teardown(() => client.close())
  const ping = client.call('ping', { target: 'h2' })
  t.equal((await client.call('status', {})).host.name, 'h1')
  release()
  t.equal((await ping).detail, 'x')
})

test('what is no request is answered, and the daemon stays', async (t) => {
  const fake = await startFake()
  t.teardown(() => fake.stop())
  const code = async (text: string | Buffer) => {
    const [first] = await raw(fake.path, text)
    return (first?.['error'] as { code: string } | undefined)?.code
  }
  t.equal(await code('x'.repeat(REQUEST_LINE_MAX + 1)), 'CARACAL_E_REQUEST_TOO_LONG')
  t.equal(await code('hello\n'), 'CARACAL_E_REQUEST')
  t.equal(await code('[]\n'), 'CARACAL_E_REQUEST')
  t.equal(await code('{"v":1,"id":-1,"op":"status"}\n'), 'CARACAL_E_REQUEST')
  t.equal(await code(Buffer.from([0xff, 0xfe, 0x0a])), 'CARACAL_E_REQUEST')
  const bad = await raw(
    fake.path,
    '{"v":9,"id":1,"op":"status"}\n' +
      request(2, 'nonsense') +
      request(3, 'toString') +
      request(4, 'expose', { name: 'web' }) +
      request(5, 'dump', { filter: 'port' }) +
      request(6, 'cancel', { id: 77 }),
    6,
  )
  const answers = new Map(bad.map((line) => [line['id'], line]))
  t.match(answers.get(1), { error: { code: 'CARACAL_E_UNSUPPORTED' } })
  t.match(answers.get(2), { error: { code: 'CARACAL_E_UNSUPPORTED' } })
  t.match(answers.get(3), { error: { code: 'CARACAL_E_UNSUPPORTED' } })
  t.match(answers.get(4), { error: { code: 'CARACAL_E_REQUEST', what: /ports/ } })
  t.match(answers.get(5), { error: { code: 'CARACAL_E_FILTER', what: /column 5/ } })
  t.strictSame(answers.get(6), { id: 6, result: { found: false } })
  const [ok] = await raw(fake.path, request(1, 'hosts', { unknown: 1 }), 1)
  t.match(ok, { id: 1, result: { hosts: [{ name: 'h1' }] } })
})

test('half a line and silence have a limit', async (t) => {
  const fake = await startFake({}, { lineMs: 30, idleMs: 60 })
  t.teardown(() => fake.stop())
  t.match(await raw(fake.path, '{"v":1,'), [{ id: null, error: { code: 'CARACAL_E_TIMEOUT', what: /not completed/ } }])
  t.match(await raw(fake.path, ''), [{ id: null, error: { code: 'CARACAL_E_TIMEOUT', what: /no request/ } }])
  const ended = new Promise<string>((resolve) => {
    const socket = connect(fake.path)
    let got = ''
    socket.on('data', (chunk: Buffer) => (got += chunk.toString()))
    socket.on('close', () => resolve(got))
    socket.end('{"v":1')
  })
  t.match(await ended, /incomplete/)
})

test('connections and running requests are bounded', async (t) => {
  const busy = await startFake({ flows: () => new Promise(() => undefined) })
  t.teardown(() => busy.stop())
  const lines = Array.from({ length: 33 }, (_, i) => request(i, 'flows')).join('')
  t.match(await raw(busy.path, lines, 1), [{ id: 32, error: { code: 'CARACAL_E_BUSY' } }])
  t.match(await raw(busy.path, request(1, 'flows') + request(1, 'flows'), 1), [
    { id: 1, error: { what: /still running/ } },
  ])
  const fake = await startFake({}, { connectionsMax: 1 })
  t.teardown(() => fake.stop())
  const first = await ControlClient.connect(fake.path)
  await first.call('status', {})
  const second = await ControlClient.connect(fake.path)
  await t.rejects(second.call('status', {}), { code: 'CARACAL_E_BUSY' })
  first.close()
})

test('a slow reader of a stream loses events, is told how many, and costs bounded memory', async (t) => {
  const total = 20_000
  let emitted: () => void = () => undefined
  const allEmitted = new Promise<void>((resolve) => (emitted = resolve))
  const fake = await startFake({
    dump: async (_request, emit, signal) => {
      for (let i = 0; i < total; i++) emit(event)
      emitted()
      await untilAborted(signal)
    },
  })
  t.teardown(() => fake.stop())
  const client = await ControlClient.connect(fake.path)
  t.teardown(() => client.close())
  let seen = 0
  let lost = 0
  const stop = new AbortController()
  const before = process.memoryUsage().external + process.memoryUsage().heapUsed
  client.pause()
  const stream = client.stream(
    'dump',
    {},
    {
      event: () => {
        seen++
      },
      lost: (count) => {
        lost += count
        if (seen + lost === total) stop.abort()
      },
    },
    stop.signal,
  )
  await allEmitted
  t.ok(process.memoryUsage().external + process.memoryUsage().heapUsed - before < 16e6, 'not all 40 MB are kept')
  client.resume()
  await stream
  t.equal(seen + lost, total)
  t.ok(lost > 0 && seen > 0)
  t.equal((await client.call('status', {})).host.name, 'h1', 'the connection goes on')
})

test('a client that does not read its answers is not read from', async (t) => {
  let calls = 0
  const big = { ...sampleFlow, state: 'x'.repeat(100_000) }
  const fake = await startFake({
    flows: async () => {
      calls++
      return { flows: [big], total: 1 }
    },
  })
  t.teardown(() => fake.stop())
  const socket = await new Promise<Socket>((resolve) => {
    const s = connect(fake.path, () => resolve(s))
  })
  t.teardown(() => socket.destroy())
  const sent = 3000
  // paused: answers stay in the socket until it is full
  const text = Array.from(
    { length: sent },
    (_, i) => `${JSON.stringify({ v: 1, id: i, op: 'flows', padding: 'p'.repeat(60_000) })}\n`,
  )
  for (const line of text) socket.write(line)
  let before = -1
  while (before !== calls) {
    before = calls
    // asks over another connection, so that the server has had its turn
    for (let i = 0; i < 20; i++) {
      const other = await ControlClient.connect(fake.path)
      await other.call('status', {})
      other.close()
    }
  }
  t.ok(calls < 200, `${calls} of ${sent} were run`)
})

test('a watch tells only what changed', async (t) => {
  const watch = new FlowWatch()
  const other = { ...sampleFlow, id: 'ffffffffffffffff' }
  const changes = (flows: (typeof sampleFlow)[]) =>
    watch.changes(flows, 5).map(({ change, flow }) => `${change} ${flow.id[0]}`)
  t.strictSame(changes([sampleFlow]), ['open 0'])
  t.strictSame(changes([{ ...sampleFlow, ageMs: 9999 }]), [])
  t.strictSame(changes([{ ...sampleFlow, packetsIn: 9999 }, other]), ['update 0', 'open f'])
  t.strictSame(changes([other]), ['close 0'])
})

test('a watch tells of moves, with what was before', async (t) => {
  const watch = new FlowWatch()
  const changes = (...flows: (typeof sampleFlow)[]) =>
    watch.changes(flows, 5).map(({ change, from }) => (from === undefined ? change : { change, ...from }))
  changes(sampleFlow)
  const moved = { ...sampleFlow, path: '[fd77::9]:7474' }
  t.strictSame(changes(moved), [{ change: 'move', instance: 'h2', path: sampleFlow.path }])
  t.strictSame(changes({ ...moved, pathMs: 9 }), [])
  t.strictSame(changes({ ...moved, instance: 'h3' }), [{ change: 'move', instance: 'h2', path: moved.path }])
  t.strictSame(changes({ ...moved, instance: 'h3', path: null }), ['update'], 'a session that is lost is no move')
  t.strictSame(changes({ ...moved, instance: 'h3' }), ['update'], 'nor is one that comes back')
})

test('closing ends streams, answers what runs, and removes the file', async (t) => {
  const fake = await startFake()
  const client = await ControlClient.connect(fake.path)
  await client.call('status', {})
  const stream = client.stream('dump', {}, { event: () => undefined }, new AbortController().signal)
  await client.call('status', {})
  await fake.server.close()
  await stream
  await client.closed
  await t.rejects(client.call('status', {}), { code: 'CARACAL_E_DISCONNECTED' })
  t.equal(lstatSync(fake.path, { throwIfNoEntry: false }), undefined)
  rmSync(fake.directory, { recursive: true })
})

test('the socket file: stale ones are replaced, living and foreign ones are not', async (t) => {
  const fake = await startFake()
  t.teardown(() => fake.stop())
  const components = { requests: new CheckedRequests(fakeHandlers()), log: noLog }
  await t.rejects(ControlServer.start({ path: fake.path }, components), { code: 'CARACAL_E_SOCKET_IN_USE' })
  t.equal((await ControlClient.connect(fake.path)) instanceof ControlClient, true, 'the first still answers')

  const file = join(fake.directory, 'file')
  writeFileSync(file, 'precious')
  await t.rejects(ControlServer.start({ path: file }, components), {
    code: 'CARACAL_E_SOCKET',
    message: /is no socket/,
  })
  t.ok(lstatSync(file).isFile())
  const path = (name: string) => ({ path: join(fake.directory, name) })
  await t.rejects(ControlServer.start(path('no/such'), components), { message: /its directory does not exist/ })
  await t.rejects(ControlServer.start(path('x'.repeat(108)), components), { message: /longer than 107/ })
  await t.rejects(ControlServer.start({ ...path('g'), group: 'no-such-group' }, components), {
    code: 'CARACAL_E_CONFIG',
  })
  t.equal(lstatSync(join(fake.directory, 'g'), { throwIfNoEntry: false }), undefined)

  const stale = join(fake.directory, 'stale')
  await leaveSocket(stale)
  t.ok(lstatSync(stale).isSocket(), 'left behind by a process that was killed')
  const server = await ControlServer.start({ path: stale }, components)
  t.equal((await (await ControlClient.connect(stale)).call('status', {})).zone, 'svc.internal')
  await server.close(50)
})

/** Leaves the socket file of a dead listener. */
function leaveSocket(path: string): Promise<void> {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  return new Promise((resolve) => spawn(process.execPath, ['-e', script]).on('close', () => resolve()))
}

test('who may use the socket', async (t) => {
  const gid = process.getgid?.() ?? 0
  const grouped = await startFake({}, { group: String(gid) })
  t.teardown(() => grouped.stop())
  t.equal(lstatSync(grouped.path).mode & 0o777, 0o660)
  t.equal(lstatSync(grouped.path).gid, gid)
  const own = await startFake()
  t.teardown(() => own.stop())
  const expected = groupId('caracal') === undefined ? 0o600 : lstatSync(own.path).mode & 0o660
  t.equal(lstatSync(own.path).mode & 0o777, expected)
})

test('groups are looked up by name and number', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-group-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'group')
  writeFileSync(file, 'root:x:0:\ncaracal:x:990:alice\n\nbroken\n')
  t.equal(groupId('caracal', file), 990)
  t.equal(groupId('12', file), 12)
  t.equal(groupId('broken', file), undefined)
  t.equal(groupId('caracal', '/nonexistent'), undefined)
  t.equal(groupName(990, file), 'caracal')
  t.equal(groupName(5, file), '5')
})

test('a client is told why it cannot connect', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-client-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  await t.rejects(ControlClient.connect(join(directory, 'none')), { code: 'CARACAL_E_NO_DAEMON' })
  const file = join(directory, 'file')
  writeFileSync(file, '')
  await t.rejects(ControlClient.connect(file), { code: 'CARACAL_E_NO_DAEMON' })
  const silent = join(directory, 'silent')
  const server = createServer((socket) => socket.on('error', () => undefined).destroy())
  await new Promise<void>((resolve) => server.listen(silent, resolve))
  t.teardown(() => server.close())
  const client = await ControlClient.connect(silent)
  await t.rejects(client.call('status', {}), { code: 'CARACAL_E_DISCONNECTED' })
  chmodSync(directory, 0o755)
})

test('filters choose', async (t) => {
  const wire: TapEvent = {
    ...event,
    point: 'wire',
    direction: 'out',
    frame: 'data',
    local: '10.0.0.1:7474',
    remote: '[fd00::2]:7474',
    flow: '00aa',
    verdict: 'bad-tag',
  }
  const ip = Buffer.from('450000140000000040060000c6120001c6124002', 'hex')
  const passes = (text: string, packet: TapEvent) => {
    const parsed = parseFilter(text)
    if (!parsed.ok) throw new CaracalError('CARACAL_E_FILTER', parsed.message)
    return parsed.filter(packet)
  }
  const yes: [string, TapEvent][] = [
    ['', event],
    ['tcp', event],
    ['TCP and Port 80', event],
    ['port 8000 or port 80', event],
    ['port 70-90', event],
    ['service web', event],
    ['service web.svc.internal.', event],
    ['host h2 and in', event],
    ['not udp and !(icmp || dropped)', event],
    ['udp or tcp and in', event],
    ['host 10.0.0.1', wire],
    ['host fd00:0::2', wire],
    ['host 198.18.64.2', { ...event, bytes: ip }],
    ['flow 00 && frame DATA && dropped && reason bad-tag && out', wire],
  ]
  for (const [text, packet] of yes) t.ok(passes(text, packet), text)
  const no: [string, TapEvent][] = [
    ['udp', event],
    ['port 81', event],
    ['(udp or tcp) and out', event],
    ['service we', event],
    ['host h', event],
    ['host 10.0.0.9', wire],
    ['host 10.0.0.9', event],
    ['flow 01', wire],
    ['frame data', event],
  ]
  for (const [text, packet] of no) t.notOk(passes(text, packet), text)
})

test('filter errors have a column', async (t) => {
  const problem = (text: string) => {
    const parsed = parseFilter(text)
    return parsed.ok ? undefined : `${parsed.column}: ${parsed.message}`
  }
  t.equal(problem('tcp prot 80'), '5: expected `and` or `or` before `prot`')
  t.equal(problem('prot 80'), '1: `prot` is no word of a filter')
  t.match(problem('tcp and'), /^8: expected a word/)
  t.match(problem('port'), /^5: expected a port number after `port`/)
  t.match(problem('port and tcp'), /^6: expected a port number/)
  t.match(problem('port 80000'), /^6: /)
  t.match(problem('port 90-80'), /^6: /)
  t.equal(problem('(tcp'), '5: expected `)`')
  t.equal(problem('tcp)'), '4: `)` without `(`')
  t.match(problem('flow xyz'), /^6: expected up to 16 hex digits/)
  t.match(problem('reason bored'), /^8: `bored` is no drop reason/)
  t.match(problem('tcp & udp'), /^5: /)
  t.match(problem('('.repeat(200)), /nested too deeply/)
  t.match(problem('not '.repeat(200)), /nested too deeply/)
})
