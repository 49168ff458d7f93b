import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { test } from 'tap'
import { lineOf, Namespaces } from './namespaces.js'

tap.setTimeout(300_000)

const clientFile = fileURLToPath(new URL('loopback-client.js', import.meta.url))
const hostFile = fileURLToPath(new URL('link-host.js', import.meta.url))

test('a server on 127.0.0.1 answers a peer behind the TUN', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-link-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'body'), 'only here')
  for (const strict of [0, 1]) {
    const spaces = new Namespaces(t)
    const name = spaces.add()
    spaces.run(name, `echo ${strict} > /proc/sys/net/ipv4/conf/all/rp_filter`)
    const server = ['python3', '-u', '-m', 'http.server', '-d', folder, '-b', '127.0.0.1', '8080']
    await lineOf(spaces.start(name, server, 'ignore'), 'Serving')
    const client = spaces.start(name, [process.execPath, clientFile, '8080'])
    t.equal(await lineOf(client, 'body'), 'only here', `rp_filter ${strict}`)
  }
})

/** Counts what a default gateway gets of the overlay's prefixes, and of a neighbouring one each. */
const LEAKS = `table inet leaks {
counter leak4 {
}
counter leak6 {
}
chain seen {
type filter hook prerouting priority raw; policy accept;
ip daddr 198.17.0.0-198.19.255.255 counter name leak4
ip6 daddr fd12:3456:789a::-fd12:3456:789b::ffff counter name leak6
}
}
`

/** A process that holds a device and its link settings; it obeys lines such as `add ADDRESS`, each answered by `done …` or `failed …`. */
class Host {
  readonly #child
  constructor(
    readonly spaces: Namespaces,
    readonly name: string,
  ) {
    this.#child = spaces.start(name, [process.execPath, hostFile])
  }

  async ask(command: string): Promise<string> {
    const answer = lineOf(this.#child, 'answer')
    this.#child.stdin?.write(`${command}\n`)
    return answer
  }

  async kill(): Promise<void> {
    const end = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await end
  }
}

test('served addresses come and go while the device is up', async (t) => {
  const spaces = new Namespaces(t)
  const host = new Host(spaces, spaces.add())
  t.equal(await host.ask('setup'), 'done')
  t.equal(await host.ask('add 198.18.64.1 fd12:3456:789a:5e7e::1 198.18.64.2'), 'done')
  t.equal(await host.ask('add 198.18.64.1'), 'done', 'what is there stays')
  const reach = (address: string) =>
    spaces.run(host.name, `ping -c 1 -W 1 ${address} >/dev/null && echo yes || echo no`)
  t.equal(reach('198.18.64.1'), 'yes\n')
  t.equal(reach('fd12:3456:789a:5e7e::1'), 'yes\n')
  t.equal(await host.ask('remove 198.18.64.1 fd12:3456:789a:5e7e::1 198.18.99.99'), 'done')
  t.equal(reach('198.18.64.1'), 'no\n')
  t.equal(reach('fd12:3456:789a:5e7e::1'), 'no\n')
  t.equal(reach('198.18.64.2'), 'yes\n')
  t.match(await host.ask('add 198.18.64.300'), /^failed RangeError not an IP address/)
})

test('nothing of the overlay leaves by another way after a kill, nor while the next start makes its way, which leaves nothing at its end', async (t) => {
  const spaces = new Namespaces(t)
  const [name, beside] = [spaces.add(), spaces.add()]
  spaces.wire(name, beside, ['192.0.2.1/24', '2001:db8::1/64'], ['192.0.2.2/24', '2001:db8::2/64'])
  spaces.run(name, 'ip route add default via 192.0.2.2 && ip -6 route add default via 2001:db8::2')
  const look = ['ip address', 'ip route show table all', 'ip -6 route show table all', 'nft list ruleset']
  const state = () => look.map((command) => spaces.run(name, command)).join()
  const before = state()
  const host = new Host(spaces, name)
  t.equal(await host.ask('setup'), 'done')
  await host.kill()
  spaces.run(beside, 'nft -f -', LEAKS)
  const unreachable = () => {
    for (const address of ['198.19.0.1', '198.18.70.1', 'fd12:3456:789a:d1a1::1'])
      t.throws(() => spaces.run(name, `ping -c 1 -W 1 ${address} 2>&1`), address)
  }
  unreachable()
  const seen = () => spaces.run(beside, 'nft list counters').match(/packets \d+/g)
  t.strictSame(seen(), ['packets 0', 'packets 0'], 'nothing reached the default gateway')
  spaces.run(name, 'ping -c 1 -W 1 198.17.0.1 >/dev/null; ping -c 1 -W 1 fd12:3456:789b::1 >/dev/null; true')
  t.strictSame(seen(), ['packets 1', 'packets 1'], 'where other packets do go')
  const next = new Host(spaces, name)
  t.equal(await next.ask('clean'), 'done')
  t.equal(await next.ask('conflicts'), 'done []')
  unreachable()
  t.strictSame(seen(), ['packets 1', 'packets 1'])
  t.equal(await next.ask('setup'), 'done')
  t.equal(await next.ask('teardown'), 'done')
  t.equal(state(), before)
})

test('a device that goes on is adopted as it is: what is missing is added, nothing else is touched', async (t) => {
  const spaces = new Namespaces(t)
  const host = new Host(spaces, spaces.add())
  t.equal(await host.ask('setup'), 'done')
  t.equal(await host.ask('add 198.18.64.1'), 'done')
  const look = 'ip address; ip route show table all; ip -6 route show table all; nft list ruleset'
  const state = () => spaces.run(host.name, look).split('\n').sort().join('\n')
  const before = state()
  const events = spaces.start(host.name, ['ip', 'monitor', 'link', 'address'])
  let heard = ''
  events.stdout?.on('data', (chunk: Buffer) => (heard += chunk.toString()))
  const next = new Host(spaces, host.name)
  t.equal(await next.ask('adopt'), 'done')
  t.equal(state(), before)
  spaces.run(host.name, 'ip address delete 198.18.0.53/32 dev over0; ip route delete 198.18.128.0/17 dev over0')
  t.not(state(), before)
  t.equal(await next.ask('adopt'), 'done')
  t.equal(state(), before, 'what somebody took away is there again')
  t.notMatch(heard, /Deleted.*198\.18\.64\.1/)
  t.equal(await next.ask('teardown'), 'done')
})

test('a persistent device that nobody holds is removed, one in use and one of another kind are left alone', async (t) => {
  const spaces = new Namespaces(t)
  const name = spaces.add()
  const host = new Host(spaces, name)
  spaces.run(name, 'ip tuntap add dev over0 mode tun && ip link set over0 up')
  t.equal(await host.ask('clean'), 'done')
  t.notMatch(spaces.run(name, 'ip link'), 'over0')
  t.equal(await host.ask('setup'), 'done')
  const second = new Host(spaces, name)
  t.match(await second.ask('clean'), /^failed CARACAL_E_TUN the TUN device over0 belongs to a running process/)
  t.match(await second.ask('setup'), /^failed CARACAL_E_TUN .*EBUSY/)
  t.match(spaces.run(name, 'ip link'), 'over0')
  t.equal(await host.ask('teardown'), 'done')
  spaces.run(name, 'ip link add over0 type veth peer name other0')
  t.match(await second.ask('clean'), /^failed CARACAL_E_TUN over0 is a network device of another kind/)
  t.match(spaces.run(name, 'ip link'), 'over0')
})

test('the reader learns that its device was removed', async (t) => {
  const spaces = new Namespaces(t)
  const host = new Host(spaces, spaces.add())
  t.equal(await host.ask('setup'), 'done')
  const gone = host.ask('wait-gone')
  spaces.run(host.name, 'ip link delete over0')
  t.equal(await gone, 'done CARACAL_E_GONE')
})

test('pools in use on the host are found', async (t) => {
  const spaces = new Namespaces(t)
  const [name, beside] = [spaces.add(), spaces.add()]
  spaces.wire(name, beside, ['198.18.7.1/24', 'fd12:3456:789a:1::9/64'], ['198.18.7.2/24'])
  spaces.run(name, 'ip route add 198.19.5.0/24 via 198.18.7.2 && ip route add 128.0.0.0/1 via 198.18.7.2')
  const host = new Host(spaces, name)
  const answer = await host.ask('conflicts')
  const found = JSON.parse(answer.replace(/^done /, '')) as { kind: string; prefix: string; device: string }[]
  t.strictSame(found.map(({ kind, prefix, device }) => `${kind} ${prefix} ${device}`).sort(), [
    'address 198.18.7.1/24 wire',
    'address fd12:3456:789a:1::9/64 wire',
    'route 198.18.7.0/24 wire',
    'route 198.19.5.0/24 wire',
    'route fd12:3456:789a:1::/64 wire',
  ])
})

test('nobody on the wire speaks as an overlay address or to one of this host', async (t) => {
  const spaces = new Namespaces(t)
  const [name, beside] = [spaces.add(), spaces.add()]
  spaces.wire(name, beside, ['192.0.2.1/24'], ['192.0.2.2/24', '198.19.128.9/32'])
  spaces.run(beside, 'ip route add 198.18.0.0/24 via 192.0.2.1 src 192.0.2.2')
  const host = new Host(spaces, name)
  const reach = (how: string) => spaces.run(beside, `ping -c 1 -W 1 ${how} >/dev/null && echo yes || echo no`)
  t.equal(await host.ask('setup'), 'done')
  t.equal(reach('192.0.2.1'), 'yes\n')
  t.equal(reach('-I 198.19.128.9 192.0.2.1'), 'no\n')
  t.equal(reach('198.18.0.1'), 'no\n')
})

test('a firewall that drops by default is named', async (t) => {
  const spaces = new Namespaces(t)
  const host = new Host(spaces, spaces.add())
  spaces.run(
    host.name,
    'nft -f -',
    'table inet house {\nchain in {\ntype filter hook input priority 0; policy drop;\n}\n}\n',
  )
  t.equal(await host.ask('setup'), 'done')
  t.equal(await host.ask('obstacles'), 'done ["inet house in"]')
})
