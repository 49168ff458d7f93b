// Underlays of other sizes: whatever programs send arrives whole, and no frame is larger than the link that carries it.
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { pathsShape, statusShape } from '../../daemon/control/shapes.js'
import { Fixture } from './fixture.js'

const BODY_BYTES = 20_000_000
const HOSTS = ['h1', 'h2'] as const
const NAME = 'box.svc.internal'

/** h2: sends every datagram back as it is, over both families. */
const ECHO = `
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', 9000))
print('listening', flush=True)
while True:
    s.sendto(*s.recvfrom(65536))
`
/**
 * h1: datagrams of these sizes, one after the other in each family; each has to come back as it went. Says how often the socket was told that they are too large for the path, which is
 * an error of the next call, whichever it is.
 */
const ASK = `
import errno, os, socket, sys
def call(work):
    global told
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno != errno.EMSGSIZE: raise
            told += 1
sizes = [int(size) for size in sys.argv[2].split(',')]
for family in (socket.AF_INET, socket.AF_INET6):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect(socket.getaddrinfo(sys.argv[1], 9000, family, socket.SOCK_DGRAM)[0][4])
    told = 0
    for size in sizes:
        sent = os.urandom(size)
        call(lambda: s.send(sent))
        try:
            assert call(lambda: s.recv(65536)) == sent, '%s: %d bytes were changed' % (family.name, size)
        except TimeoutError:
            sys.exit('%s: %d bytes did not come back' % (family.name, size))
    print(len(sizes), 'answered, told', told)
`
/** h2: takes what is put, and says its hash. */
const TAKE = `
const { createHash } = require('crypto')
require('http').createServer((request, response) => {
  const hash = createHash('sha256')
  request.on('data', (chunk) => hash.update(chunk)).on('end', () => response.end(hash.digest('hex')))
}).listen(8081, '::', () => console.log('listening'))
`
/** Around every limit that there is: of the TUN, of frames on each underlay, of pieces, of IP. */
const SIZES = [
  1, 2, 100, 1000, 1150, 1180, 1190, 1200, 1210, 1220, 1232, 1240, 1252, 1280, 1350, 1372, 1392, 1400, 1420, 1432, 1452,
  1472, 1500, 2400, 2800, 4000, 8000, 8800, 8872, 8900, 8960, 9000, 17_000, 40_000, 60_000,
]

/** Counts, on each host, what arrives over the underlay as a fragment. */
async function countFragments(net: Fixture): Promise<() => Promise<number>> {
  for (const host of HOSTS) {
    const { code, err } = await net.run(
      host,
      `nft 'add table ip fragments' &&
       nft 'add chain ip fragments arriving { type filter hook prerouting priority -450; }' &&
       nft 'add rule ip fragments arriving iif eth0 ip frag-off & 0x3fff != 0 counter'`,
    )
    if (code !== 0) throw new Error(err)
  }
  return async () => {
    let sum = 0
    for (const host of HOSTS) {
      const { out } = await net.run(host, 'nft list table ip fragments')
      const packets = /counter packets (\d+)/.exec(out)?.[1]
      if (packets === undefined) throw new Error(`no counter: ${out}`)
      sum += Number(packets)
    }
    return sum
  }
}

/** `told`: that a program which sends many datagrams too large for a frame, and yet small enough for the TUN, is told so once. */
async function everythingCrosses(t: Test, net: Fixture, frames: number, told: boolean): Promise<void> {
  const folder = join(net.folder, 'www')
  mkdirSync(folder)
  const body = randomBytes(BODY_BYTES)
  const hash = createHash('sha256').update(body).digest('hex')
  writeFileSync(join(folder, 'body'), body)
  const conf = join(folder, 'nginx.conf')
  writeFileSync(
    conf,
    `daemon off; master_process off; user root; pid ${join(folder, 'pid')}; error_log stderr notice; events { }
     http { access_log off; server { listen 8080; listen [::]:8080; root ${folder}; } }`,
  )
  await net.start('h2', ['nginx', '-c', conf, '-p', folder])
  await net.start('h2', ['python3', '-c', ECHO], /listening/)
  await net.start('h2', [process.execPath, '-e', TAKE], /listening/)
  await net.listening('h2', 8080)
  const exposed = await net.caracal('h2', 'expose', 'box', '--tcp', '80:8080', '--tcp', '81:8081', '--udp', '9000')
  t.equal(exposed.code, 0, exposed.err)
  await net.knows('h1', 'box', ['h2'])
  const fragments = await countFragments(net)
  await t.test('bulk, both ways, in both families', async (t) => {
    for (const family of ['-4', '-6']) {
      const down = await net.run('h1', `curl -sS ${family} -m 50 http://${NAME}/body | sha256sum`)
      t.equal(down.out.split(' ')[0], hash, `down ${family} ${down.err}`)
      const up = await net.run('h1', `curl -sS ${family} -m 50 -T ${join(folder, 'body')} http://${NAME}:81/`)
      t.equal(up.out, hash, `up ${family} ${up.err}`)
    }
  })
  await t.test('datagrams of any size', async (t) => {
    const asked = await net.run('h1', ['python3', '-c', ASK, NAME, SIZES.join()])
    t.equal(asked.out, `${SIZES.length} answered, told ${told ? 1 : 0}\n`.repeat(2), asked.err)
  })
  await t.test('echoes', async (t) => {
    for (const family of ['-4', '-6']) {
      for (const size of [0, 56, 1200, 1392, 1473, 9000, 60_000]) {
        const ping = await net.run('h1', ['ping', family, '-c', '1', '-w', '20', '-s', String(size), NAME])
        t.match(ping.out, / [1-9]\d* received/, `${family} ${size} ${ping.out}${ping.err}`)
      }
    }
  })
  t.equal(await fragments(), 0, 'no frame was larger than the underlay')
  for (const host of HOSTS) {
    const status = statusShape.parse(JSON.parse((await net.caracal(host, 'status', '--json')).out))
    for (const reason of ['send-failed', 'tun-write-failed', 'fragment-timeout', 'fragment-overflow', 'bad-frame']) {
      t.equal(status.drops[reason], 0, `${reason} on ${host}`)
    }
    const { paths } = pathsShape.parse(JSON.parse((await net.caracal(host, 'paths', '--json')).out))
    t.strictSame(
      paths.filter(({ inUse }) => inUse).map(({ mtu }) => mtu),
      [frames],
      `what ${host} takes its path to carry`,
    )
  }
  // The counter counts.
  const { address } = net.lab.host('h2')
  await net.run('h1', ['ping', '-c', '1', '-w', '10', '-s', '20000', address])
  t.ok((await fragments()) > 0, 'fragments of others are seen')
}

const CASES = [
  { underlay: 1280, tun: 1420, frames: 1280 },
  { underlay: 1500, tun: 1420, frames: 1500 },
  { underlay: 9000, tun: 1420, frames: 1500 },
  { underlay: 9000, tun: 8900, frames: 8980 },
]
for (const { underlay, tun, frames } of CASES) {
  test(`an underlay of ${underlay} bytes, a TUN of ${tun}`, async (t) => {
    const file = join(t.testdir({ 'caracal.yaml': `tun: { mtu: ${tun} }\n` }), 'caracal.yaml')
    const net = await Fixture.up(t, HOSTS, { mtu: underlay, upArguments: () => ['--config', file] })
    await everythingCrosses(t, net, frames, frames < tun)
  })
}

test('a link that becomes smaller while a connection is open', async (t) => {
  const net = await Fixture.up(t, HOSTS)
  await net.start('h2', [process.execPath, '-e', TAKE], /listening/)
  const exposed = await net.caracal('h2', 'expose', 'box', '--tcp', '81:8081')
  t.equal(exposed.code, 0, exposed.err)
  await net.knows('h1', 'box', ['h2'])
  const fragments = await countFragments(net)
  const bytes = 3_000_000
  const hash = createHash('sha256').update(Buffer.alloc(bytes, 'a')).digest('hex')
  // A request whose second half is sent when it is told to.
  const put = `
    const request = require('http').request({ host: '${NAME}', port: 81, method: 'PUT' }, (response) => {
      response.on('data', (chunk) => process.stdout.write(chunk)).on('end', () => process.exit(0))
    })
    request.write(Buffer.alloc(${bytes / 2}, 'a'), () => console.log('half'))
    process.on('SIGUSR2', () => request.end(Buffer.alloc(${bytes / 2}, 'a')))`
  const client = await net.start('h1', [process.execPath, '-e', put], /half/)
  const answer = new Promise<string>((resolve) => {
    let text = ''
    client.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString())).once('close', () => resolve(text))
  })
  for (const host of HOSTS) net.lab.script(host, 'ip link set eth0 mtu 1280')
  for (const host of HOSTS) {
    await net.until(`${host} has noticed`, async () => {
      const { paths } = pathsShape.parse(JSON.parse((await net.caracal(host, 'paths', '--json')).out))
      return paths.filter(({ inUse }) => inUse).every(({ mtu }) => mtu === 1280)
    })
  }
  const before = await fragments()
  client.kill('SIGUSR2')
  t.equal((await answer).trim(), hash)
  t.equal(await fragments(), before, 'nothing is cut by the kernel any more')
})
