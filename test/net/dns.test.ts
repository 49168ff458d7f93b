// How a host's programs come to our names, by each --dns mode, next to another name server and with the real systemd-resolved; and multicast DNS among hostile neighbours.
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'
import { Fixture } from './fixture.js'
import { ResolvedPackage } from './resolved.js'

const statusShape = z.object({ dns: z.object({ mode: z.string(), detail: z.string() }) })
const OURS = /^nameserver 198\.18\.0\.53 # added by caracal\n/

/** A name server of the world: every name has the address 192.0.2.7, but those under test. Prints the names it is asked for. */
const foreignServer = `
const socket = require('node:dgram').createSocket('udp4')
socket.on('message', (m, from) => {
  const labels = []
  let at = 12
  for (; m[at] > 0; at += 1 + m[at]) labels.push(m.toString('latin1', at + 1, at + 1 + m[at]))
  console.log('asked ' + labels.join('.'))
  const end = at + 5
  const v4 = m.readUInt16BE(at + 1) === 1 && labels.at(-1) !== 'test'
  const head = Buffer.from([m[0], m[1], 0x85, 0x80, 0, 1, 0, v4 ? 1 : 0, 0, 0, 0, 0])
  const record = v4 ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]) : Buffer.alloc(0)
  socket.send(Buffer.concat([head, m.subarray(12, end), record]), from.port, from.address)
})
socket.bind(53, '127.0.0.2', () => console.log('ready'))`

/** Datagrams with source port 0 and plain garbage from the host itself. */
const oddDatagrams = `
import os, socket, struct, sys
target = sys.argv[1]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
query = bytes.fromhex('000101000001000000000000') + b'\\x02h1\\x04host\\x03svc\\x08internal\\x00\\x00\\x01\\x00\\x01'
for source in (0, 5353):
    for body in [query] * 20 + [os.urandom(n) for n in range(0, 600, 7)]:
        raw.sendto(struct.pack('!HHHH', source, 53, 8 + len(body), 0) + body, (target, 0))`

/** Multicast DNS from a neighbour that knows the protocol's beginning and then raves. */
const hostileMulticast = `
const { randomBytes, randomInt } = require('node:crypto')
const socket = require('node:dgram').createSocket({ type: 'udp4', reuseAddr: true })
const name = (...labels) => Buffer.concat([...labels.map((l) => Buffer.concat([Buffer.from([Buffer.byteLength(l)]), Buffer.from(l)])), Buffer.from([0])])
const record = (owner, type, data) => {
  const fixed = Buffer.alloc(10)
  fixed.writeUInt16BE(type, 0); fixed.writeUInt16BE(1, 2); fixed.writeUInt32BE(randomInt(2) * 120, 4); fixed.writeUInt16BE(data.length, 8)
  return Buffer.concat([owner, fixed, data])
}
const text = (...items) => Buffer.concat(items.map((i) => Buffer.concat([Buffer.from([i.length]), Buffer.from(i)])))
const type = name('_caracal', '_udp', 'local')
const one = (i) => {
  const own = [name('x' + i, '_caracal', '_udp', 'local'), name('x'), name('a.b', ''), Buffer.from([0]), type][i % 5]
  const txt = [text('v=1', 'network=' + 'ab'.repeat(32), 'host=' + randomBytes(32).toString('hex')), text('=', '__proto__=x', 'host'), randomBytes(40), Buffer.alloc(0)][i % 4]
  const records = [record(type, 12, own), record(own, 33, Buffer.concat([randomBytes(6), name('h', 'local')])), record(own, 16, txt), record(name('h', 'local'), i % 2 ? 1 : 28, randomBytes(i % 2 ? 4 : 16))]
  const head = Buffer.from([0, 0, i % 7 ? 0x84 : 0, 0, 0, 0, 0, records.length, 0, 0, 0, 0])
  const whole = Buffer.concat([head, ...records])
  if (i % 3 === 0) for (let k = 0; k < 4; k++) whole[randomInt(whole.length)] = randomInt(256)
  return i % 11 ? whole : randomBytes(randomInt(400))
}
socket.bind(0, async () => {
  socket.setMulticastInterface(process.argv[1])
  for (let i = 0; i < 3000; i++) await new Promise((resolve) => socket.send(one(i), 5353, '224.0.0.251', resolve))
  socket.close()
})`

/** Asks a hundred times a second who is there, for three seconds; prints how often the other host has answered. */
const askOften = `
import select, socket, sys, time
me, other = sys.argv[1:]
group, port = '224.0.0.251', 5353
heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(me))
asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asks.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(me))
question = bytes.fromhex('000000000001000000000000') + b'\\x08_caracal\\x04_udp\\x05local\\x00\\x00\\x0c\\x00\\x01'
asked = answers = 0
began = last = time.monotonic()
while asked < 300 or time.monotonic() - last < 1.5:
    if asked < 300 and time.monotonic() >= began + asked * 0.01:
        asks.sendto(question, (group, port))
        asked += 1
    if select.select([heard], [], [], 0.01)[0]:
        packet, (source, _) = heard.recvfrom(9000)
        udp = packet[(packet[0] & 15) * 4:]
        if source == other and udp[:2] == port.to_bytes(2, 'big') and udp[10] & 0x80:
            answers += 1
            last = time.monotonic()
print(answers)`

test('names on a host, by each --dns mode', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'], { daemons: false })
  const resolvConf = net.lab.path('h1', 'resolv.conf')
  const original = '# mine\nsearch example.test\nnameserver 127.0.0.2\noptions timeout:4 attempts:2'
  const reset = () => writeFileSync(resolvConf, original)
  const current = () => readFileSync(resolvConf, 'utf8')
  reset()
  const asked: string[] = []
  const foreign = await net.start('h1', [process.execPath, '-e', foreignServer], /ready/)
  foreign.stdout?.on('data', (chunk: Buffer) =>
    asked.push(
      ...chunk
        .toString()
        .split('\n')
        .filter((line) => line.startsWith('asked')),
    ),
  )
  const leaked = () => asked.filter((line) => /svc\.internal$/.test(line))

  const lookup = async (name: string) => {
    const started = performance.now()
    const { code, out } = await net.run('h1', ['getent', 'ahostsv4', name])
    return { code, address: out.split(/\s/)[0] ?? '', ms: performance.now() - started }
  }
  const dnsStatus = async () => statusShape.parse(JSON.parse((await net.caracal('h1', 'status', '--json')).out)).dns
  const log = (host: string) => readFileSync(net.lab.path(host, 'daemon.log'), 'utf8')
  const dig = async (words: string) => (await net.run('h1', `dig +tries=1 +time=2 @198.18.0.53 ${words}`)).out

  // The neighbour's port for multicast DNS is another program's, and it does not share.
  const exclusive = `require('node:dgram').createSocket('udp4').bind(5353, '0.0.0.0', () => console.log('ready'))`
  await net.start('h2', [process.execPath, '-e', exclusive], /ready/)

  await t.test('file: beside another name server', async (t) => {
    const before = statSync(resolvConf).ino
    await net.lab.startDaemon('h1', ['--create', 'names'])
    t.match(current(), OURS)
    t.equal(current().replace(OURS, ''), original, 'what was there is there')
    t.equal(statSync(resolvConf).ino, before, 'a mount point is written in place')
    const own = await lookup('h1.host.svc.internal')
    t.match(own.address, /^198\.1[89]\./)
    const other = await lookup('www.example.org')
    t.equal(other.address, '192.0.2.7', 'foreign names are the other name server’s')
    t.ok(other.ms < 2_000, `at once: ${other.ms.toFixed()} ms, where a time-out takes 4,000`)
    t.equal((await lookup('nothing.svc.internal')).code, 2, 'no such name')
    t.match(asked.join('\n'), /www\.example\.org/)
    t.same(leaked(), [], 'the other name server hears of none of our names')
    t.match(await dnsStatus(), { mode: 'file', detail: /resolv\.conf/ })
  })

  await t.test('strangers get nothing out of the name server', async (t) => {
    net.lab.script('h2', 'ip route add 198.18.0.0/15 via 10.77.0.1')
    const { code } = await net.run('h2', 'dig +tries=1 +time=1 @198.18.0.53 h1.host.svc.internal A')
    t.equal(code, 9, 'not reached through the underlay')
    net.lab.script('h2', 'ip route del 198.18.0.0/15')
  })

  await t.test('odd datagrams do not stop it', async (t) => {
    const { code, err } = await net.run('h1', ['python3', '-c', oddDatagrams, '198.18.0.53'])
    t.equal(code, 0, err)
    t.match(await dig('h1.host.svc.internal A'), /status: NOERROR/)
  })

  await t.test('file: put back by SIGTERM, and by the next daemon after a kill', async (t) => {
    await net.lab.stopDaemon('h1', 'SIGKILL')
    t.match(current(), OURS, 'a killed daemon cannot')
    t.equal((await lookup('www.example.org')).address, '192.0.2.7', 'foreign names go on without it')
    await net.lab.startDaemon('h1')
    t.equal(current().replace(OURS, ''), original, 'its line is not there twice')
    await net.lab.stopDaemon('h1')
    t.equal(current(), original)
  })

  await t.test('none, and auto without systemd-resolved, leave the file alone', async (t) => {
    await net.lab.startDaemon('h1', ['--dns', 'none'])
    t.equal(current(), original)
    t.match(await dnsStatus(), { mode: 'none' })
    t.match(await dig('h1.host.svc.internal A'), /status: NOERROR/, 'who asks it directly is answered')
    await net.lab.stopDaemon('h1')
    t.equal(current(), original)
    net.lab.script('h1', 'mount -t tmpfs -o mode=755 tmpfs /run')
    await net.lab.startDaemon('h1', ['--dns', 'auto'])
    t.equal(current(), original)
    t.match(await dnsStatus(), { mode: 'auto', detail: /^systemd-resolved does not run: .*198\.18\.0\.53/ })
    t.match((await net.caracal('h1', 'status')).out, /systemd-resolved does not run/)
  })

  await t.test('port 5353 taken by another program: one warning, and the host works', async (t) => {
    const token = (await net.caracal('h1', 'invite')).out.trimEnd().split('\n').at(-1)!
    await net.lab.startDaemon('h2', ['--join', token])
    await net.until('h2 warns', () => log('h2').includes('multicast DNS does not work here'))
    t.match(log('h2'), /EADDRINUSE/)
  })

  await t.test('garbage by multicast DNS does not stop it', async (t) => {
    const { code, err } = await net.run('h2', [process.execPath, '-e', hostileMulticast, '10.77.0.2'])
    t.equal(code, 0, err)
    t.equal((await net.caracal('h1', 'status')).code, 0)
    t.match(await dig('h1.host.svc.internal A'), /status: NOERROR/)
  })

  await t.test('who is asked often by multicast DNS answers once a second', async (t) => {
    const { code, out, err } = await net.run('h2', ['python3', '-c', askOften, '10.77.0.2', '10.77.0.1'])
    t.equal(code, 0, err)
    t.ok(Number(out) >= 3 && Number(out) <= 6, `${out.trim()} answers`)
  })

  await t.test('before the first synchronisation nothing is denied, and addresses stay', async (t) => {
    const web = `require('node:http').createServer().listen(8080, () => console.log('ready'))`
    await net.start('h2', [process.execPath, '-e', web], /ready/)
    t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80:8080')).code, 0)
    await net.knows('h1', 'web', ['h2'])
    const names = ['web.svc.internal', 'web.at.h2.svc.internal', 'h2.host.svc.internal', 'h1.host.svc.internal']
    const addresses = async () =>
      Promise.all(names.flatMap((name) => [dig(`+short ${name} A`), dig(`+short ${name} AAAA`)]))
    const before = await addresses()
    for (const text of before) t.match(text, /^(198\.1[89]\.|fd)/)
    t.match(await dig('absent.svc.internal A'), /status: NXDOMAIN/)
    // The neighbour stays away without having said farewell, as after a power cut.
    await net.lab.stopDaemon('h2', 'SIGKILL')
    await net.lab.stopDaemon('h1')
    await net.lab.startDaemon('h1')
    t.match(await dig('web.svc.internal A'), /status: SERVFAIL/, 'not denied: it may well exist')
    t.match(await dig('absent.svc.internal A'), /status: SERVFAIL/)
    t.match(await dig('www.example.org A'), /status: REFUSED/, 'foreign names as always')
    t.match(await dig('h1.host.svc.internal A'), /status: NOERROR/, 'what is known is told')
    await net.lab.startDaemon('h2')
    await net.knows('h1', 'web', ['h2'])
    t.same(await addresses(), before, 'every name has the address it had')
    t.match(await dig('absent.svc.internal A'), /status: NXDOMAIN/)
  })

  await t.test('file: put back by caracal down', async (t) => {
    t.match(current(), OURS)
    t.equal((await net.caracal('h1', 'down')).code, 0)
    await net.lab.stopDaemon('h1')
    t.equal(current(), original)
  })

  // Within a user namespace there is no other user for it to become.
  const root = /^\s*0\s+0\s+4294967295/.test(readFileSync('/proc/self/uid_map', 'utf8'))
  const skip = root ? false : 'systemd-resolved changes to a user of its own, which needs root'
  await t.test('resolved: per-link settings of the real systemd-resolved', { skip }, async (t) => {
    const resolved = ResolvedPackage.fetch(join(net.folder, 'resolved'))
    const search = process.env.PATH
    process.env.PATH = `${resolved.installResolvectl(net.folder)}:${search}`
    t.teardown(() => (process.env.PATH = search))
    await resolved.start(net, 'h1', '127.0.0.2')
    const resolvectl = async (...words: string[]) =>
      (await net.run('h1', ['resolvectl', '--no-pager', ...words], 10_000)).out
    const setting = async (what: string) => (await resolvectl(what, 'caracal0')).trim().replace(/^Link [^:]*: */, '')
    // Programs ask its stub, as on a host that has it.
    writeFileSync(resolvConf, 'nameserver 127.0.0.53\n')
    asked.length = 0

    const config = join(net.folder, 'keeper.yaml')
    writeFileSync(config, 'keeper: { withdraw-after: 1 }\n')
    for (const mode of ['resolved', 'auto']) {
      await net.lab.startDaemon('h1', ['--dns', mode, '--config', config])
      t.match(await dnsStatus(), {
        mode,
        detail: /^systemd-resolved asks 198\.18\.0\.53 for ~svc\.internal on caracal0/,
      })
      t.match(await setting('dns'), /^198\.18\.0\.53 fd\S+::53$/)
      t.equal(await setting('domain'), '~svc.internal')
      t.equal(await setting('default-route'), 'no')
      t.equal(await setting('dnssec'), 'no')
      t.equal(await setting('dnsovertls'), 'no')
      await net.knows('h1', 'web', ['h2'])
      const answer = await resolvectl('query', 'web.svc.internal')
      t.match(answer, /web\.svc\.internal: (198\.1[89]|fd)[\s\S]*link: caracal0/)
      t.match((await lookup('web.svc.internal')).address, /^198\.1[89]\./, 'programs find it')
      t.equal((await lookup('www.example.org')).address, '192.0.2.7')
      t.equal((await lookup('absent.svc.internal')).code, 2)
      t.same(leaked(), [], 'nobody else is asked for our names')
      t.equal(current(), 'nameserver 127.0.0.53\n', 'resolv.conf is not touched')
      // The second time without a chance to clean up: its keeper takes the settings back, when no other daemon comes.
      if (mode === 'resolved') t.equal((await net.caracal('h1', 'down')).code, 0)
      await net.lab.stopDaemon('h1', mode === 'resolved' ? 'SIGTERM' : 'SIGKILL')
      t.equal((await lookup('www.example.org')).address, '192.0.2.7', 'foreign names go on at once')
      await net.until('the settings are gone', async () => !/svc\.internal|198\.18/.test(await resolvectl('status')))
      t.equal((await lookup('www.example.org')).address, '192.0.2.7', 'and afterwards')
    }
    writeFileSync(resolvConf, original)
  })

  t.equal(
    log('h2').split('multicast DNS does not work here').length - 1,
    2,
    'one warning a daemon: h2 was started twice',
  )
})
