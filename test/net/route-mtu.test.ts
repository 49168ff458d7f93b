import { fileURLToPath } from 'node:url'
import tap, { test } from 'tap'
import { Namespaces } from './namespaces.js'

tap.setTimeout(120_000)

const probeFile = fileURLToPath(new URL('route-probe.js', import.meta.url))

/** By which MTU the namespace reaches each of the addresses. */
function mtus(spaces: Namespaces, name: string, ...ways: string[]): unknown {
  return JSON.parse(spaces.run(name, `${process.execPath} ${probeFile} ${ways.map((way) => `'${way}'`).join(' ')}`))
}

test('how large a packet may be is the word of this host’s own links and routes, not of a router', async (t) => {
  const spaces = new Namespaces(t)
  const [host, router] = [spaces.add(), spaces.add()]
  spaces.wire(host, router, ['10.1.0.1/24', 'fd01::1/64'], ['10.1.0.2/24', 'fd01::2/64'])
  spaces.run(host, 'ip route add default via 10.1.0.2 && ip -6 route add default via fd01::2')
  spaces.run(
    router,
    `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && ip link add far mtu 1280 type veth peer name nowhere && ip link set nowhere up && ip link set far up &&
     ip route add 10.2.0.0/24 dev far && ip -6 route add fd02::/64 dev far`,
  )
  t.strictSame(mtus(spaces, host, '10.2.0.9', 'fd02::9'), [1500, 1500])
  for (const [to, family] of [
    ['10.2.0.9', '-4'],
    ['fd02::9', '-6'],
  ]) {
    spaces.run(host, `ping ${family} -M do -s 1400 -c 2 -i 0.2 -W 1 ${to} || true`)
    t.match(spaces.run(host, `ip ${family} route get ${to}`), /mtu 1280/, 'the kernel heeds the router')
  }
  t.strictSame(mtus(spaces, host, '10.2.0.9', 'fd02::9'), [1500, 1500], 'which could be anybody')

  spaces.run(
    host,
    `ip route add 10.3.0.0/24 via 10.1.0.2 mtu 1400 && ip route add 10.4.0.0/24 via 10.1.0.2 mtu lock 1300 &&
     ip -6 route add fd03::/64 via fd01::2 mtu 1400 && ip route add unreachable 10.5.0.0/24 && ip -6 route add unreachable fd05::/64`,
  )
  const routes = ['10.3.0.9', '10.4.0.9', 'fd03::9', '10.5.0.9', 'fd05::9']
  t.strictSame(mtus(spaces, host, ...routes), [1400, 1300, 1400, -1, -1])

  spaces.run(
    host,
    `ip link add other mtu 1450 type veth peer name nowhere && ip link set nowhere up && ip link set other up && ip address add 10.9.0.1/24 dev other &&
     ip rule add from 10.9.0.1 table 100 && ip route add default dev other table 100 && ip link set wire mtu 1350`,
  )
  const ways = ['10.2.0.9', '10.3.0.9', 'fd02::9', '10.9.0.1>10.2.0.9', '10.8.0.1>10.2.0.9']
  t.strictSame(
    mtus(spaces, host, ...ways),
    [1350, 1350, 1350, 1450, 1350],
    'from an address that it has not is no matter',
  )
})
