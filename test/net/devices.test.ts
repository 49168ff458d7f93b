import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { test, type Test } from 'tap'
import type { TunOptions } from '../../daemon/tun.js'
import type { UdpOptions } from '../../daemon/udp.js'
import { lineOf, Namespaces } from './namespaces.js'
import type { PumpDone, PumpOptions, PumpReady } from './pump.js'
import type { Steered } from './steer-probe.js'

tap.setTimeout(300_000)

const pumpFile = fileURLToPath(new URL('pump.js', import.meta.url))
const POOLS = ['198.18.0.0/15', 'fd12:3456:789a::/48']
const ADDRESSES = [
  ['198.18.0.1', 'fd12:3456:789a::1'],
  ['198.19.0.1', 'fd12:3456:789a:1::1'],
] as const
const ROUTES = [
  ['198.18.0.0/24', 'fd12:3456:789a::/64'],
  ['198.19.0.0/24', 'fd12:3456:789a:1::/64'],
] as const

interface Side {
  readonly tun?: Partial<TunOptions>
  readonly udp?: Partial<UdpOptions>
}

interface Pumped {
  readonly spaces: Namespaces
  readonly names: readonly [string, string]
  readonly ready: readonly PumpReady[]
  stop(): Promise<PumpDone[]>
}

/** Two namespaces, a wire, and a pump at each end of it. */
async function pumped(t: Test, sides: readonly [Side, Side] = [{}, {}], underlay: 4 | 6 = 4): Promise<Pumped> {
  const spaces = new Namespaces(t)
  const names = [spaces.add(), spaces.add()] as const
  spaces.wire(...names, ['192.0.2.1/24', '2001:db8::1/64'], ['192.0.2.2/24', '2001:db8::2/64'])
  const wires = underlay === 4 ? ['192.0.2.1', '192.0.2.2'] : ['2001:db8::1', '2001:db8::2']
  const pumps: ChildProcess[] = []
  const ready: PumpReady[] = []
  for (const end of [0, 1] as const) {
    const options: PumpOptions = {
      tun: { name: 'over0', mtu: 1420, ...sides[end].tun },
      udp: { address: wires[end]!, port: 7474, ...sides[end].udp },
      remote: { address: wires[1 - end]!, port: 7474 },
      self: ADDRESSES[end],
      routes: ROUTES[end === 0 ? 1 : 0],
      pools: POOLS,
    }
    const pump = spaces.start(names[end], [process.execPath, pumpFile, JSON.stringify(options)])
    pumps.push(pump)
    ready.push(JSON.parse(await lineOf(pump, 'ready')) as PumpReady)
  }
  const stop = () =>
    Promise.all(
      pumps.map(async (pump) => {
        const line = lineOf(pump, 'done')
        pump.stdin?.end()
        return JSON.parse(await line) as PumpDone
      }),
    )
  return { spaces, names, ready, stop }
}

/** 10 MB from a server that is not ours to curl, compared by hash. */
async function download(t: Test, pair: Pumped, server: 0 | 1, address: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-devices-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const body = randomBytes(10_000_000)
  writeFileSync(join(folder, 'body'), body)
  const host = pair.names[server]
  const python = pair.spaces.start(
    host,
    ['python3', '-u', '-m', 'http.server', '-d', folder, '-b', address, '8080'],
    'ignore',
  )
  await lineOf(python, 'Serving')
  const literal = address.includes(':') ? `[${address}]` : address
  const sum = pair.spaces.run(
    pair.names[server === 0 ? 1 : 0],
    `curl -sS --fail --noproxy '*' -m 30 http://${literal}:8080/body | sha256sum`,
  )
  t.equal(sum.slice(0, 64), createHash('sha256').update(body).digest('hex'), `10 MB from ${address}`)
  python.kill('SIGTERM')
}

const UDP_SERVER = `
import hashlib, socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)
s.bind((sys.argv[1], 9000))
print('listening on', sys.argv[1], flush=True)
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(hashlib.sha256(data).digest(), peer)
`
/** Datagrams of many sizes, alone and as GSO bursts; each is answered by its hash. */
const UDP_CLIENT = `
import hashlib, os, socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], 9000))
def expect(datagrams):
    got = sorted(s.recv(64) for _ in datagrams)
    assert got == sorted(hashlib.sha256(d).digest() for d in datagrams), 'a datagram was changed'
for size in list(range(1, 1390, 27)) + [1372, 4000]:
    data = os.urandom(size)
    s.send(data)
    expect([data])
for segment, length in ((1000, 40000), (100, 6400), (1300, 20001)):
    s.setsockopt(17, 103, segment)
    data = os.urandom(length)
    s.send(data)
    expect([data[i:i + segment] for i in range(0, length, segment)])
print('all answered')
`
async function datagrams(t: Test, pair: Pumped, server: 0 | 1, address: string): Promise<void> {
  const python = pair.spaces.start(pair.names[server], ['python3', '-c', UDP_SERVER, address])
  await lineOf(python, 'listening')
  const client = pair.names[server === 0 ? 1 : 0]
  t.match(pair.spaces.run(client, `python3 - ${address}`, UDP_CLIENT), 'all answered', `datagrams to ${address}`)
  python.kill('SIGTERM')
}

async function exercise(t: Test, pair: Pumped): Promise<void> {
  const [a] = pair.names
  for (const address of ADDRESSES[1]) {
    t.match(pair.spaces.run(a, `ping -c 5 -i 0.05 -W 2 ${address}`), ' 0% packet loss', `ping ${address}`)
    t.match(pair.spaces.run(a, `ping -c 3 -i 0.05 -W 2 -s 4000 ${address}`), ' 0% packet loss', `fragments, ${address}`)
    await datagrams(t, pair, 1, address)
    await download(t, pair, 1, address)
  }
}

test('super-packets cross two TUN devices and the wire between, with every offload', async (t) => {
  const pair = await pumped(t)
  // UDP super-packets need Linux 6.2; without them the device takes them in pieces.
  t.match(pair.ready[0], { offloads: { vnetHeader: true, checksum: true, tso: true }, warnings: [] })
  await exercise(t, pair)
  await download(t, pair, 0, ADDRESSES[0][0])
  for (const done of await pair.stop()) {
    t.ok(done.gso, 'runs went as one message each')
    t.ok(done.largestRead > 30_000, `the TUN gave super-packets (${done.largestRead})`)
    t.ok(done.largestReceived > 30_000, `the socket gave several datagrams at once (${done.largestReceived})`)
    t.equal(done.notSent, 0)
  }
})

test('the same over an IPv6 wire', async (t) => {
  const pair = await pumped(t, [{}, {}], 6)
  await exercise(t, pair)
  for (const done of await pair.stop()) {
    t.ok(done.gso)
    t.ok(done.largestReceived > 1400)
  }
})

test('without GSO and GRO on the wire, and without TUN offloads', async (t) => {
  const side: Side = { tun: { offload: 'none' }, udp: { gso: false, gro: false } }
  const pair = await pumped(t, [side, side])
  t.strictSame(pair.ready[0]?.offloads, { vnetHeader: true, checksum: false, tso: false, uso: false })
  await exercise(t, pair)
  for (const done of await pair.stop()) {
    t.notOk(done.gso)
    t.ok(done.largestRead <= 1430)
    t.ok(done.largestReceived <= 1400)
  }
})

test('super-packets reach a device without USO and one without vnet headers in pieces', async (t) => {
  for (const tun of [{ offload: 'tso' }, { vnetHeader: false }] as const) {
    const pair = await pumped(t, [{}, { tun }])
    t.equal(pair.ready[1]?.offloads.uso, false)
    t.equal(pair.ready[1]?.offloads.vnetHeader, tun !== undefined && !('vnetHeader' in tun))
    await exercise(t, pair)
    const [full] = await pair.stop()
    t.ok(full!.largestRead > 30_000)
    await pair.spaces.close()
  }
})

test('after the end the namespace is as it was before', async (t) => {
  const look = ['ip address', 'ip route show table all', 'ip -6 route show table all', 'ip rule', 'nft list ruleset']
  const spaces = new Namespaces(t)
  const name = spaces.add()
  const before = look.map((command) => spaces.run(name, command))
  const options: PumpOptions = {
    tun: { name: 'over0', mtu: 1420 },
    udp: { address: '127.0.0.1', port: 0 },
    remote: { address: '127.0.0.1', port: 9 },
    self: ADDRESSES[0],
    routes: ROUTES[1],
    pools: POOLS,
  }
  const pump = spaces.start(name, [process.execPath, pumpFile, JSON.stringify(options)])
  await lineOf(pump, 'ready')
  const during = look.map((command) => spaces.run(name, command))
  t.match(during[0], 'over0')
  t.match(during[1], /blackhole 198\.18\.0\.0\/15/)
  t.match(during[1], /198\.19\.0\.0\/24 dev over0 .*src 198\.18\.0\.1/)
  t.match(during[2], /blackhole fd12:3456:789a::\/48/)
  t.match(during[4], 'caracal_over0')
  const done = lineOf(pump, 'done')
  pump.stdin?.end()
  await done
  t.strictSame(
    look.map((command) => spaces.run(name, command)),
    before,
  )
})

test('the packets of a flow come by one queue of the device, fragments included, and flows by all of them', async (t) => {
  const spaces = new Namespaces(t)
  const probe = fileURLToPath(new URL('steer-probe.js', import.meta.url))
  const { steered, udp, tcp }: Steered = JSON.parse(spaces.run(spaces.add(), `${process.execPath} ${probe}`))
  t.ok(steered)
  const used = (counts: readonly number[]) => counts.filter((count) => count > 0).length
  for (const counts of udp) {
    t.equal(used(counts), 1, `datagrams by queue: ${counts.join(' ')}`)
    t.ok(Math.max(...counts) >= 80, 'fragments among them')
  }
  for (const counts of tcp) t.equal(used(counts), 4, `connections by queue: ${counts.join(' ')}`)
})
