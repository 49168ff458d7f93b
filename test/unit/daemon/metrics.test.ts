import { once } from 'node:events'
import { request, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { test, type Test } from 'tap'
import { noLog } from '../../../daemon/log.js'
import { Metrics, type MetricsSample } from '../../../daemon/metrics.js'
import { EventLoopDelay } from '../../../daemon/event-loop.js'
import { DropCounters, dropReasons } from '../../../lib/wire/drop.js'
import type { Locator } from '../../../lib/path/locator.js'

const loopback: Locator = { address: '127.0.0.1', port: 0 }

function sample(more: Partial<MetricsSample> = {}): MetricsSample {
  return {
    version: '0.1.0',
    startedAt: 1_700_000_000,
    counters: { tunPacketsIn: 7, tunBytesIn: 9000, wireFramesOut: 3, opened: 2, tooBig: 0 },
    drops: {},
    sessions: { up: 2, known: 5 },
    flows: { tcp: 4, udp: 1, icmp: 0, capacity: 65_536 },
    services: { local: 3, unhealthy: 1, known: 8 },
    directory: { synced: true, counters: { received: 12, 'not-member': 1, badSignature: 0 } },
    keeper: true,
    loopDelay: { p50Ms: 0.5, p99Ms: 2, maxMs: 40 },
    ...more,
  }
}

async function serve(t: Test, read: () => MetricsSample, listen = loopback): Promise<Locator> {
  const metrics = new Metrics({ listen }, { read })
  const address = await metrics.start()
  t.teardown(() => metrics.stop())
  return address
}

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

function ask(at: Locator, path = '/metrics', method = 'GET', body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ host: at.address, port: at.port, path, method, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

/** Series → value of a text in Prometheus's format. */
function parse(body: string): Map<string, number> {
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  )
}

test('the sample is told by Prometheus names', async (t) => {
  const drops = new DropCounters()
  drops.add('bad-tag', 5)
  const at = await serve(t, () => sample({ drops: drops.toJSON() }))
  const { status, headers, body } = await ask(at)
  t.equal(status, 200)
  t.match(headers['content-type'], /^text\/plain; version=0\.0\.4/)
  const series = parse(body)
  for (const [name, value] of [
    ['caracal_info{version="0.1.0"}', 1],
    ['caracal_tun_in_packets_total', 7],
    ['caracal_tun_in_bytes_total', 9000],
    ['caracal_wire_out_frames_total', 3],
    ['caracal_opened_total', 2],
    ['caracal_too_big_total', 0],
    ['caracal_sessions', 2],
    ['caracal_hosts_known', 5],
    ['caracal_flows{protocol="tcp"}', 4],
    ['caracal_flows{protocol="udp"}', 1],
    ['caracal_flows{protocol="icmp"}', 0],
    ['caracal_flows_capacity', 65_536],
    ['caracal_services_known', 8],
    ['caracal_instances{state="up"}', 2],
    ['caracal_instances{state="unhealthy"}', 1],
    ['caracal_directory_synced', 1],
    ['caracal_directory_events_total{event="received"}', 12],
    ['caracal_directory_events_total{event="not-member"}', 1],
    ['caracal_directory_events_total{event="bad-signature"}', 0],
    ['caracal_event_loop_delay_seconds{quantile="0.5"}', 0.0005],
    ['caracal_event_loop_delay_seconds{quantile="1"}', 0.04],
    ['caracal_drops_total{reason="bad-tag"}', 5],
    ['process_start_time_seconds', 1_700_000_000],
  ] as const) {
    t.equal(series.get(name), value, name)
  }
  t.ok((series.get('process_resident_memory_bytes') ?? 0) > 1e6)
  t.ok((series.get('process_cpu_seconds_total') ?? 0) > 0)
})

test('every reason is there from the start, each series with help and type', async (t) => {
  const { body } = await ask(await serve(t, () => sample()))
  const series = parse(body)
  for (const reason of dropReasons) t.equal(series.get(`caracal_drops_total{reason="${reason}"}`), 0, reason)
  for (const name of new Set([...series.keys()].map((key) => key.replace(/\{.*/, '')))) {
    t.match(name, /^(caracal|process)_[a-z0-9_]+$/)
    t.ok(
      body.includes(`# HELP ${name} `) &&
        body.includes(`# TYPE ${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}\n`),
      name,
    )
  }
})

test('each request reads anew, and nothing adds up', async (t) => {
  let n = 0
  const at = await serve(t, () =>
    sample({ counters: { opened: ++n * 10 }, drops: { 'no-session': n }, version: `0.${n}` }),
  )
  await ask(at)
  const series = parse((await ask(at, '/metrics?x=1')).body)
  t.equal(series.get('caracal_opened_total'), 20)
  t.equal(series.get('caracal_drops_total{reason="no-session"}'), 2)
  t.equal(series.has('caracal_info{version="0.1"}'), false)
  const both = await Promise.all([ask(at), ask(at)])
  for (const { body } of both) t.ok((parse(body).get('caracal_opened_total') ?? 0) >= 30)
})

test('strange names and values are left out', async (t) => {
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`n${i}`, i]))
  const counters = { 'bad name{}': 1, Upper: 1, tunBytesIn: 1, tunInBytes: 2, lost: Number.NaN, ...many }
  const directory = { synced: false, counters: { 'x"y': 1 } }
  const { status, body } = await ask(await serve(t, () => sample({ counters, directory, startedAt: Number.NaN })))
  t.equal(status, 200)
  const series = parse(body)
  t.ok(series.size < 400, 'bounded')
  t.equal(series.get('caracal_tun_in_bytes_total'), 1, 'the first of two that mean one series')
  t.notMatch(body, /bad name|Upper|x"y/)
  for (const value of series.values()) t.ok(Number.isFinite(value))
})

test('everything but GET /metrics is 404', async (t) => {
  const at = await serve(t, () => sample())
  for (const path of ['/', '/metrics/', '/metrics/x', '//metrics', '/favicon.ico', '/METRICS']) {
    t.equal((await ask(at, path)).status, 404, path)
  }
  for (const method of ['HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
    t.equal((await ask(at, '/metrics', method, method === 'HEAD' ? undefined : 'x')).status, 404, method)
  }
  t.equal((await ask(at)).status, 200)
})

test('a sample that cannot be read is 500, and the next one is served', async (t) => {
  let broken = true
  const errors: string[] = []
  const read = () => {
    if (broken) throw new Error('no')
    return sample()
  }
  const log = { ...noLog, error: (_: unknown, message: string) => void errors.push(message) }
  const metrics = new Metrics({ listen: loopback }, { read, log })
  const at = await metrics.start()
  t.teardown(() => metrics.stop())
  t.equal((await ask(at)).status, 500)
  t.strictSame(errors, ['the metrics could not be read'])
  broken = false
  t.equal((await ask(at)).status, 200)
})

test('garbage and oversized headers end the connection, not the server', async (t) => {
  const at = await serve(t, () => sample())
  for (const bytes of ['\0\x01\x02\r\n\r\n', `GET /metrics HTTP/1.1\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`]) {
    const socket = connect(at.port, at.address)
    socket.on('error', () => undefined)
    socket.write(bytes)
    socket.resume()
    await once(socket, 'close')
  }
  t.equal((await ask(at)).status, 200)
})

test('stop ends open connections', async (t) => {
  const metrics = new Metrics({ listen: loopback }, { read: () => sample() })
  const at = await metrics.start()
  const socket = connect(at.port, at.address)
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.resume()
  const closed = once(socket, 'close')
  await metrics.stop()
  await closed
  await t.rejects(ask(at), { code: 'ECONNREFUSED' })
  await t.resolves(new Metrics({ listen: loopback }, { read: () => sample() }).stop(), 'one that never started')
})

test('an address that cannot be had says why', async (t) => {
  const taken = await serve(t, () => sample())
  const start = (listen: Locator) => new Metrics({ listen }, { read: () => sample() }).start()
  await t.rejects(start(taken), {
    code: 'CARACAL_E_LISTEN',
    message: `cannot serve metrics on TCP 127.0.0.1:${taken.port}, another process has the port: choose another address for \`metrics\` in the configuration`,
  })
  await t.rejects(start({ address: '192.0.2.1', port: 9474 }), {
    code: 'CARACAL_E_LISTEN',
    message: /192\.0\.2\.1:9474, this host does not have that address/,
  })
  await t.rejects(start({ address: '::ffff:ffff', port: 9474 }), {
    code: 'CARACAL_E_LISTEN',
    message: /\[::ffff:ffff\]:9474/,
  })
})

test('the delay of the loop is by what its deadlines were late', async (t) => {
  const delay = new EventLoopDelay()
  t.teardown(() => delay.stop())
  t.same(delay.read(), { p50Ms: 0, p99Ms: 0, maxMs: 0 }, 'none was')
  for (let i = 0; i < 98; i++) delay.record(0)
  delay.record(20)
  delay.record(80)
  const { p50Ms, p99Ms, maxMs } = delay.read()
  t.equal(p50Ms, 0)
  t.ok(Math.abs(p99Ms - 20) < 0.1, `${p99Ms}`)
  t.ok(Math.abs(maxMs - 80) < 0.1, `${maxMs}`)
})
