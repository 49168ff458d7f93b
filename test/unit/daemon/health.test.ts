import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'
import { test, type Test } from 'tap'
import { probeHealth } from '../../../daemon/health.js'

const LOCAL = ['127.0.0.1']

async function listening(t: Test, server: Server, address = '127.0.0.1'): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, address)
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return portOf(server)
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not listening')
  return address.port
}

const tcp = (t: Test, connected: (socket: Socket) => void = () => undefined) => listening(t, createServer(connected))
const http = (t: Test, answer: (request: IncomingMessage, response: ServerResponse) => void) =>
  listening(t, createHttpServer(answer))

/** A port where nothing listens. */
async function closedPort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = portOf(server)
  server.close()
  await once(server, 'close')
  return port
}

test('a TCP server that accepts is well, and where it does is told', async (t) => {
  const port = await tcp(t)
  t.strictSame(await probeHealth({ kind: 'tcp', port }, LOCAL), { healthy: true, detail: '', address: '127.0.0.1' })
})

test('the addresses are tried in order, past those that refuse', async (t) => {
  const port = await tcp(t)
  const result = await probeHealth({ kind: 'tcp', port }, ['127.0.0.9', '127.0.0.1'])
  t.strictSame(result, { healthy: true, detail: '', address: '127.0.0.1' })
})

test('nothing listens', async (t) => {
  const port = await closedPort()
  const detail = `nothing listens on port ${port}`
  t.strictSame(await probeHealth({ kind: 'tcp', port }, LOCAL), { healthy: false, detail, address: undefined })
  t.strictSame(await probeHealth({ kind: 'http', port, path: '/' }, LOCAL), {
    healthy: false,
    detail,
    address: undefined,
  })
  t.match(await probeHealth({ kind: 'tcp', port }, []), { healthy: false, detail: 'nothing listens' })
})

test('an HTTP server is well when it answers 2xx or 3xx', async (t) => {
  const asked: (string | undefined)[] = []
  const port = await http(t, (request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.host}`)
    response.statusCode = Number(/\d+/.exec(request.url ?? '')?.[0])
    response.end('body')
  })
  for (const [status, healthy] of [
    [200, true],
    [204, true],
    [302, true],
    [399, true],
    [400, false],
    [404, false],
    [503, false],
  ] as const) {
    const path = `/is/${status}?deep=1`
    const detail = healthy ? '' : `GET ${path} answered ${status}`
    t.strictSame(await probeHealth({ kind: 'http', port, path }, LOCAL), { healthy, detail, address: '127.0.0.1' })
  }
  t.equal(asked[0], 'GET /is/200?deep=1 localhost')
})

test('an ill server is not excused by another at the next address', async (t) => {
  const port = await http(t, (_, response) => {
    response.statusCode = 500
    response.end()
  })
  const result = await probeHealth({ kind: 'http', port, path: '/' }, ['127.0.0.1', '127.0.0.1'])
  t.match(result, { healthy: false, address: '127.0.0.1', detail: /500/ })
})

test('a server that says nothing is given up after the limit', async (t) => {
  const port = await tcp(t)
  t.strictSame(await probeHealth({ kind: 'http', port, path: '/x' }, LOCAL, 30), {
    healthy: false,
    detail: 'GET /x did not answer within 30 ms',
    address: '127.0.0.1',
  })
})

test('a server that sends a byte now and then is given up too', async (t) => {
  const port = await tcp(t, (socket) => {
    socket.write('HTTP/1.1 200 OK\r\n')
    const drip = setInterval(() => socket.write('x'), 5)
    socket.once('close', () => clearInterval(drip))
  })
  const started = performance.now()
  const result = await probeHealth({ kind: 'http', port, path: '/' }, LOCAL, 60)
  t.match(result, { healthy: false, detail: 'GET / did not answer within 60 ms' })
  t.ok(performance.now() - started < 1_500)
})

test('what is not HTTP, or ends at once, is ill', async (t) => {
  const chatty = await tcp(t, (socket) => socket.end('SSH-2.0-banner\r\n'))
  t.match(await probeHealth({ kind: 'http', port: chatty, path: '/' }, LOCAL), {
    healthy: false,
    detail: `port ${chatty}: HPE_INVALID_CONSTANT`,
    address: '127.0.0.1',
  })
  const curt = await tcp(t, (socket) => socket.destroy())
  t.match(await probeHealth({ kind: 'http', port: curt, path: '/' }, LOCAL), {
    healthy: false,
    detail: `port ${curt}: ECONNRESET`,
  })
})

test('a path that no request has is told of, not thrown', async (t) => {
  const port = await http(t, (_, response) => response.end())
  t.match(await probeHealth({ kind: 'http', port, path: '/a b\n' }, LOCAL), { healthy: false, detail: /^GET \/a b/ })
})
