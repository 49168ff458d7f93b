// Client and server on one host, equal source ports, servers of one family, and nothing in clear by the default route.
import { writeFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { Fixture } from './fixture.js'

const serveFamily = (port: number, address: string, text: string) => `
require('node:http').createServer((q, a) => a.end('${text} ' + q.socket.remotePort + '\\n'))
  .listen({ port: ${port}, host: '${address}', ipv6Only: true }, () => console.log('ready'))`

test('the same host at both ends', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const serve = async (host: string, port: number, address: string, name: string, service = name) => {
    await net.start(host, [process.execPath, '-e', serveFamily(port, address, `${name}@${host}`)], /ready/)
    const { code, err } = await net.caracal(host, 'expose', service, '--tcp', `80:${port}`)
    if (code !== 0) throw new Error(err)
  }
  await serve('h1', 8080, '0.0.0.0', 'web')
  await serve('h2', 8080, '0.0.0.0', 'web')
  await serve('h1', 8084, '127.0.0.1', 'four')
  await serve('h1', 8086, '::', 'six')
  await net.knows('h1', 'web', ['h1', 'h2'])
  await net.knows('h1', 'six', ['h1'])
  await net.knows('h2', 'six', ['h1'])
  await net.knows('h2', 'four', ['h1'])

  await t.test('client and server on the same host', async (t) => {
    for (const service of ['web.at.h1', 'four', 'six']) {
      for (const family of ['-4', '-6']) {
        const { out, err } = await net.run('h1', `curl ${family} -sS --max-time 5 http://${service}.svc.internal/`)
        t.match(out, new RegExp(`^${service.split('.')[0]}@h1 `), `${service} ${family} ${err}`)
      }
    }
  })

  await t.test('an IPv4-only and an IPv6-only server from another host', async (t) => {
    for (const service of ['four', 'six']) {
      for (const family of ['-4', '-6']) {
        const { out, err } = await net.run('h2', `curl ${family} -sS --max-time 5 http://${service}.svc.internal/`)
        t.match(out, new RegExp(`^${service}@h1 `), `${service} ${family} ${err}`)
      }
    }
  })

  await t.test('two clients with the same source port towards web and web.at.h2', async (t) => {
    // Both connections are open at the same time, and the second may end at the same server as the first.
    const client = `
      const http = require('node:http')
      const agent = new http.Agent({ keepAlive: true })
      const get = (host) => new Promise((resolve, reject) => http.get({ host, port: 80, localPort: 45678, family: 4, agent, path: '/' },
        (r) => { let text = ''; r.on('data', (c) => text += c).on('end', () => resolve(text.trim())) }).on('error', reject))
      Promise.all(['web.svc.internal', 'web.at.h2.svc.internal', 'web.at.h1.svc.internal'].map(get))
        .then((texts) => { console.log(texts.join('|')); process.exit(0) }, (e) => { console.error(e.message); process.exit(1) })`
    const { code, out, err } = await net.run('h1', [process.execPath, '-e', client])
    t.equal(code, 0, err)
    const [any, h2, h1] = out.trim().split('|')
    t.match(any, /^web@h[12] \d+$/)
    t.match(h2, /^web@h2 \d+$/)
    t.match(h1, /^web@h1 \d+$/)
  })
})

test('nothing of the overlay leaves by the default route', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  await net.start('h2', ['python3', '-u', '-m', 'http.server', '8080', '--directory', net.folder], /Serving/)
  writeFileSync(join(net.folder, 'x'), 'x')
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)
  await net.knows('h1', 'web', ['h2'])
  const file = join(net.folder, 'leak.pcap')
  const filter = 'net 198.18.0.0/15 or (ip6 and net fd00::/8)'
  const tcpdump = await net.start(
    'h1',
    ['tcpdump', '--immediate-mode', '-U', '-n', '-i', 'eth0', '-w', file, filter],
    /listening on/,
  )
  const address = (await net.run('h1', 'dig +short web.svc.internal A; dig +short web.svc.internal AAAA')).out
    .trim()
    .split('\n')
  t.equal(address.length, 2)
  t.equal((await net.run('h1', 'curl -sS -o /dev/null --max-time 5 http://web.svc.internal/x')).code, 0)
  // A program that goes on sending to the same addresses while the daemon dies and after its death.
  const sender = `const d = require('node:dgram'); const s4 = d.createSocket('udp4').on('error', () => {}); const s6 = d.createSocket('udp6').on('error', () => {})
    const id = setInterval(() => { s4.send('in clear', 53, '${address[0]}', () => {}); s6.send('in clear', 53, '${address[1]}', () => {}) }, 5); console.log('sending')`
  await net.start('h1', [process.execPath, '-e', sender], /sending/)
  await net.lab.stopDaemon('h1', 'SIGKILL')
  t.not(
    (await net.run('h1', `curl -sS -o /dev/null --max-time 2 http://${address[0]}/x`)).code,
    0,
    'no service without a daemon',
  )
  t.not((await net.run('h1', `curl -g -sS -o /dev/null --max-time 2 'http://[${address[1]}]/x'`)).code, 0)
  const ended = new Promise((resolve) => tcpdump.once('exit', resolve))
  tcpdump.kill('SIGINT')
  await ended
  const { out } = await net.run('h1', ['tcpdump', '-n', '-r', file])
  t.equal(out, '', 'no packet of the overlay prefixes was seen on the underlay')
  t.ok(readFileSync(file).length >= 24, 'the capture was written')
})
