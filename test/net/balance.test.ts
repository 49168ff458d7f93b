// Choice among instances: weights, an instance that dies, a host that is cut off or killed.
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { z } from 'zod'
import { Fixture } from './fixture.js'

// Opens COUNT connections one after the other, EVERY ms apart, and prints what each did.
const dialler = `
const net = require('node:net')
const [host, port, count, every] = process.argv.slice(1)
const results = []
function dial(i) {
  if (i === Number(count)) return console.log(JSON.stringify(results))
  const started = performance.now()
  const socket = net.connect({ host, port: Number(port), family: 4 })
  let text = ''
  let bound
  const end = (error) => {
    results.push({ at: started + performance.timeOrigin, bound, ms: performance.now() - started, answer: text.split('\\r\\n').at(-1).trim(), error })
    socket.destroy()
    setTimeout(dial, Math.max(0, Number(every) - (performance.now() - started)), i + 1)
  }
  socket.setTimeout(5000, () => end('timeout'))
  socket.on('connect', () => (bound = performance.now() + performance.timeOrigin, socket.write('GET / HTTP/1.0\\r\\n\\r\\n')))
  socket.on('data', (chunk) => (text += chunk))
  socket.on('end', () => end(undefined))
  socket.on('error', (error) => end(error.code))
}
dial(0)
`
const attempts = z.array(
  z.object({
    at: z.number(),
    bound: z.number().optional(),
    ms: z.number(),
    answer: z.string(),
    error: z.string().optional(),
  }),
)

/**
 * The attempts without a connection that was open when its server went away: nobody can answer for that server what it had been asked.
 * The dialler has one at a time.
 */
function begunInTheGap(t: Test, results: z.infer<typeof attempts>, cut: number) {
  const open = results.filter((r) => r.error !== undefined && r.bound !== undefined && r.bound <= cut)
  t.ok(open.length <= 1, `connections open at that moment: ${open.length}`)
  return results.filter((r) => !open.includes(r))
}

async function web(net: Fixture, host: string, weight: number) {
  const folder = join(net.folder, host)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'index.html'), host)
  const conf = join(folder, 'nginx.conf')
  writeFileSync(
    conf,
    `daemon off; master_process off; user root; pid ${join(folder, 'pid')}; error_log stderr notice; events { }
     http { access_log ${join(folder, 'access.log')}; server { listen 8080; root ${folder}; } }`,
  )
  const server = await net.start(host, ['nginx', '-c', conf, '-p', folder])
  await net.listening(host, 8080)
  const { code, err } = await net.caracal(host, 'expose', 'web', '--tcp', '80:8080', '--weight', String(weight))
  if (code !== 0) throw new Error(err)
  return server
}

const logged = (net: Fixture, host: string) =>
  readFileSync(join(net.folder, host, 'access.log'), 'utf8')
    .trimEnd()
    .split('\n')
    .filter(Boolean).length

const dial = async (net: Fixture, count: number, every: number) => {
  const { out, err } = await net.run('h1', [
    process.execPath,
    '-e',
    dialler,
    'web.svc.internal',
    '80',
    String(count),
    String(every),
  ])
  if (err !== '') throw new Error(err)
  return attempts.parse(JSON.parse(out))
}

test('weights, and instances that go away', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2', 'h3'])
  await web(net, 'h2', 3)
  let server = await web(net, 'h3', 1)
  await net.knows('h1', 'web', ['h2', 'h3'])

  await t.test('400 connections split 3:1', async (t) => {
    const results = await dial(net, 400, 0)
    t.equal(results.filter((r) => r.error === undefined).length, 400, 'all are answered')
    const [h2, h3] = [logged(net, 'h2'), logged(net, 'h3')]
    t.equal(h2 + h3, 400, 'each was logged by one server')
    t.ok(Math.abs(h2 - 300) <= 26, `300 ± 26 by weight, ${h2} were`)
  })

  await t.test('the daemon of an instance stands still for a moment', async (t) => {
    const daemon = net.lab.host('h2').daemon!
    const before = logged(net, 'h2')
    const running = dial(net, 150, 20)
    await net.until('connections are made', () => logged(net, 'h2') >= before + 10)
    process.kill(daemon.pid, 'SIGSTOP')
    await new Promise((resolve) => setTimeout(resolve, 200))
    process.kill(daemon.pid, 'SIGCONT')
    const again = Date.now()
    const results = await running
    t.equal(results.filter((r) => r.error === undefined).length, 150, 'all are answered')
    const later = results.filter((r) => r.at > again + 500 && r.at < again + 2_000)
    const share = later.filter((r) => r.answer === 'h2').length / later.length
    t.ok(later.length > 20 && share > 0.5, `it has its share soon: ${share} of ${later.length}`)
  })

  await t.test('the process of an instance dies', async (t) => {
    const before = logged(net, 'h2')
    const running = dial(net, 150, 20)
    await net.until('connections are made', () => logged(net, 'h2') > before + 20)
    const ended = once(server, 'exit')
    server.kill('SIGKILL')
    await ended
    const died = Date.now()
    const results = begunInTheGap(t, await running, died)
    t.same(
      results.filter((r) => r.error !== undefined),
      [],
      'no attempt fails',
    )
    const late = results.filter((r) => r.at > died + 1_000 && r.answer === 'h3')
    t.same(late, [], 'no new connection goes there after 1 s')
    t.ok(Math.max(...results.map((r) => r.ms)) < 1_000, 'no attempt waits 1 s')
    server = await web(net, 'h3', 1)
    await net.knows('h1', 'web', ['h2', 'h3'])
  })

  await t.test('the host of an instance is cut off', async (t) => {
    const usual = Math.max(...(await dial(net, 50, 10)).map((r) => r.ms))
    const running = dial(net, 250, 10)
    await new Promise((resolve) => setTimeout(resolve, 300))
    net.lab.script('h2', 'ip link set eth0 down')
    const cut = Date.now()
    const results = begunInTheGap(t, await running, cut)
    t.same(
      results.filter((r) => r.error !== undefined),
      [],
      'no attempt fails',
    )
    const longest = Math.max(...results.map((r) => r.ms))
    t.ok(longest <= usual + 1_000, `no attempt waits longer than 1 s more than usual (${usual} ms): ${longest} ms`)
    net.lab.script('h2', 'ip link set eth0 up; ip route replace default via 10.77.0.254')
    await net.knows('h1', 'web', ['h2', 'h3'])
  })

  await t.test('the daemon of an instance is killed', async (t) => {
    const usual = Math.max(...(await dial(net, 50, 10)).map((r) => r.ms))
    const running = dial(net, 250, 10)
    await new Promise((resolve) => setTimeout(resolve, 300))
    await net.lab.stopDaemon('h2', 'SIGKILL')
    const cut = Date.now()
    const results = begunInTheGap(t, await running, cut)
    t.same(
      results.filter((r) => r.error !== undefined),
      [],
      'no attempt fails',
    )
    const longest = Math.max(...results.map((r) => r.ms))
    t.ok(longest <= usual + 1_000, `no attempt waits longer than 1 s more than usual (${usual} ms): ${longest} ms`)
    t.ok(
      results.slice(-50).every((r) => r.answer === 'h3'),
      'the other instance has taken over',
    )
  })
})
