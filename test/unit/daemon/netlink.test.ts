import { test } from 'tap'
import { HostLinks } from '../../../daemon/host-links.js'
import { parseNetlink } from '../../../daemon/netlink-messages.js'
import { ownLocators, parsePools } from '../../../daemon/own-locators.js'
import { addressBytes, attribute, linkBytes, message, routeBytes, u16, u32 } from '../../tools/netlink-bytes.js'

const [UP, LOOPBACK, RUNNING] = [0x1, 0x8, 0x40]
const GONE = 1
const REPLACE = 0x100
const WELL = UP | RUNNING
const v4 = (...numbers: number[]) => Buffer.from(numbers)
const v6 = (hex: string) => Buffer.from(hex.padEnd(32, '0'), 'hex')

/** Takes the messages in; returns for each whether it matters. */
function apply(links: HostLinks, ...bytes: Buffer[]): boolean[] {
  return bytes.flatMap((one) => parseNetlink(one)).map((parsed) => links.apply(parsed, 'over0'))
}

test('what the kernel tells of links, addresses and routes', async (t) => {
  t.strictSame(
    parseNetlink(
      Buffer.concat([
        linkBytes(2, 'eth0', WELL, 1400),
        addressBytes(2, v4(10, 0, 0, 1), 0x80, 20, 24),
        addressBytes(2, v6('20010db8'), 0x40 | 0x20 | 0x01, 20, 64),
        routeBytes(2, v4(10, 0, 0, 254)),
        routeBytes(2, v6('fe80'), v6('fd00'), 24 + GONE),
        message(3, u32(0), 2, 7),
        message(2, u32(-16), 0, 8),
        message(4, Buffer.alloc(0)),
        message(99, Buffer.alloc(40)),
      ]),
    ),
    [
      { kind: 'link', gone: false, index: 2, name: 'eth0', loopback: false, up: true, running: true, mtu: 1400 },
      {
        ...{ kind: 'address', gone: false, link: 2, family: 4, address: '0a000001', prefixLength: 24 },
        ...{ tentative: false, deprecated: false, temporary: false },
      },
      {
        ...{ kind: 'address', gone: false, link: 2, family: 6, address: '20010db8'.padEnd(32, '0'), prefixLength: 64 },
        ...{ tentative: true, deprecated: true, temporary: true },
      },
      {
        ...{ kind: 'route', gone: false, replaces: false, family: 4, table: 254, unicast: true, refuses: false },
        ...{ prefixLength: 0, destination: '', gateway: '0a0000fe', link: 2, metric: 100 },
      },
      {
        ...{ kind: 'route', gone: true, replaces: false, family: 6, table: 254, unicast: true, refuses: false },
        ...{
          prefixLength: 128,
          destination: 'fd00'.padEnd(32, '0'),
          gateway: 'fe80'.padEnd(32, '0'),
          link: 2,
          metric: 100,
        },
      },
      { kind: 'done', sequence: 7, error: 0, interrupted: false },
      { kind: 'done', sequence: 8, error: -16, interrupted: false },
      { kind: 'overrun' },
    ],
  )
})

test("the far end's address is not this host's", async (t) => {
  const body = Buffer.concat([
    Buffer.from([2, 32, 0, 0]),
    u32(3),
    attribute(1, v4(10, 0, 0, 2)),
    attribute(2, v4(10, 0, 0, 1)),
  ])
  t.match(parseNetlink(message(20, body)), [{ address: '0a000001', link: 3 }])
})

test('what is damaged is left out', async (t) => {
  const good = addressBytes(2, v4(10, 0, 0, 1))
  for (let length = 0; length < good.length; length++) t.strictSame(parseNetlink(good.subarray(0, length)), [])
  t.equal(parseNetlink(Buffer.concat([message(20, Buffer.from([2, 32])), good])).length, 1)
  t.strictSame(
    parseNetlink(message(20, Buffer.concat([Buffer.from([2, 33, 0, 0]), u32(2), attribute(1, v4(1, 2, 3, 4))]))),
    [],
  )
  t.strictSame(parseNetlink(message(20, Buffer.concat([Buffer.from([2, 32, 0, 0]), u32(2), attribute(1, v6(''))]))), [])
  t.strictSame(parseNetlink(Buffer.concat([u32(0), Buffer.alloc(40)])), [], 'a length of nothing')
})

test('only what changes anything counts', async (t) => {
  const links = new HostLinks()
  const eth = linkBytes(2, 'eth0', WELL)
  const address = addressBytes(2, v4(10, 0, 0, 1))
  const route = routeBytes(2, v4(10, 0, 0, 254))
  t.strictSame(apply(links, eth, address, route), [true, true, true])
  t.strictSame(apply(links, eth, address, route), [false, false, false], 'told again')
  t.strictSame(apply(links, linkBytes(2, 'eth0', UP), linkBytes(2, 'eth0', UP, 1400)), [true, true], 'carrier, MTU')
  t.strictSame(apply(links, routeBytes(2, v4(10, 0, 0, 254), v4(), 24, 2)), [false], 'a local route')
  t.strictSame(apply(links, routeBytes(2, v4(10, 0, 0, 254), v4(10, 9, 0, 0))), [true], 'a route to somewhere')
  t.equal([...links.defaultRoutes].length, 1)
  t.strictSame(apply(links, routeBytes(2, v4(10, 0, 0, 254), v4(), 24 + GONE)), [true])
  t.strictSame([...links.defaultRoutes], [])
  t.strictSame(apply(links, addressBytes(2, v4(10, 0, 0, 9), 0x80, 20 + GONE)), [false], 'one that was not there')
  t.strictSame(apply(links, linkBytes(2, 'eth0', 0, 1500, 16 + GONE)), [true])
  t.strictSame([...links.addresses], [], 'its addresses are gone with it')
})

test('a default route that replaces another one counts each time', async (t) => {
  const links = new HostLinks()
  const by = (gateway: number) => {
    const bytes = routeBytes(2, v4(10, 0, 0, gateway))
    u16(REPLACE).copy(bytes, 6)
    return bytes
  }
  t.match(parseNetlink(by(1)), [{ replaces: true }])
  t.strictSame(apply(links, linkBytes(2, 'eth0', WELL), by(1), by(2), by(1)), [true, true, true, true])
  t.equal([...links.defaultRoutes].length, 1)
})

test('routes that refuse packets count, a default one that stands in for another too', async (t) => {
  const links = new HostLinks()
  const [unicast, local, broadcast, anycast, multicast] = [1, 2, 3, 4, 5]
  const types = [6, 7, 8, 9]
  const to = (type: number, destination = v4(), what = 24) => routeBytes(0, v4(0, 0, 0, 0), destination, what, type)
  const replacing = (bytes: Buffer) => {
    u16(REPLACE).copy(bytes, 6)
    return bytes
  }
  apply(links, linkBytes(2, 'eth0', WELL))
  for (const type of types) {
    t.strictSame(apply(links, routeBytes(2, v4(10, 0, 0, 254))), [true])
    t.strictSame(apply(links, replacing(to(type))), [true], 'it takes its place')
    t.match([...links.defaultRoutes], [{ refuses: true, unicast: false }])
    t.strictSame(apply(links, to(type, v4(), 24 + GONE)), [true], 'it goes')
    t.strictSame([...links.defaultRoutes], [])
    t.strictSame(apply(links, to(type, v4(10, 9, 0, 0)), to(type, v4(10, 9, 0, 0), 24 + GONE)), [true, true])
  }
  for (const type of [local, broadcast, anycast, multicast]) t.strictSame(apply(links, to(type)), [false])
  t.strictSame(apply(links, to(unicast), to(types[0]!)), [true, true], 'both may be there')
  t.equal([...links.defaultRoutes].length, 2)
})

test('the own TUN does not count', async (t) => {
  const links = new HostLinks()
  const route = routeBytes(5, v4(0, 0, 0, 0), v4(198, 18, 0, 0))
  t.strictSame(
    apply(links, linkBytes(5, 'over0', WELL), addressBytes(5, v4(198, 18, 0, 1)), route, linkBytes(5, 'over0', UP)),
    [false, false, false, false],
  )
  t.equal(links.named('over0')?.running, false)
  t.equal(links.named('eth0'), undefined)
})

test('a host of very many addresses', async (t) => {
  const links = new HostLinks()
  apply(links, linkBytes(2, 'eth0', WELL))
  for (let i = 0; i < 5_000; i++) apply(links, addressBytes(2, v4(10, 1, i >> 8, i & 255)))
  t.equal([...links.addresses].length, 4_096)
})

test('where others can reach this host', async (t) => {
  const links = new HostLinks()
  apply(
    links,
    linkBytes(1, 'lo', WELL | LOOPBACK),
    linkBytes(2, 'eth0', WELL),
    linkBytes(3, 'eth1', UP),
    linkBytes(4, 'eth2', 0),
    linkBytes(5, 'over0', WELL),
    addressBytes(1, v4(127, 0, 0, 1)),
    addressBytes(1, v4(192, 0, 2, 1)),
    addressBytes(2, v6('20010db80001'), 0x01),
    addressBytes(2, v4(10, 0, 0, 1)),
    addressBytes(2, v4(169, 254, 0, 1)),
    addressBytes(2, v4(198, 18, 3, 4)),
    addressBytes(2, v6('20010db80002')),
    addressBytes(2, v6('20010db80003'), 0x40),
    addressBytes(2, v6('20010db80004'), 0x08),
    addressBytes(2, v6('20010db80005'), 0x20),
    addressBytes(2, v6('fe80')),
    addressBytes(2, v6('fd123456789a')),
    addressBytes(3, v4(10, 0, 1, 1)),
    addressBytes(4, v4(10, 0, 2, 1)),
    addressBytes(5, v4(203, 0, 113, 1)),
  )
  const pools = parsePools(['198.18.0.0/15', 'fd12:3456:789a::/48'])
  const locators = (...locals: { address: string; port: number }[]) => ownLocators(locals, links, 'over0', pools)
  t.strictSame(locators({ address: '0.0.0.0', port: 7 }, { address: '::', port: 8 }), [
    { address: '10.0.0.1', port: 7, deprecated: false },
    { address: '2001:db8:2::', port: 8, deprecated: false },
    { address: '2001:db8:1::', port: 8, deprecated: false },
    { address: '2001:db8:5::', port: 8, deprecated: true },
  ])
  t.strictSame(locators({ address: '192.0.2.9', port: 7 }, { address: '192.0.2.9', port: 7 }), [
    { address: '192.0.2.9', port: 7, deprecated: false },
  ])
  apply(links, linkBytes(3, 'eth1', WELL), linkBytes(2, 'eth0', UP))
  t.strictSame(
    locators({ address: '0.0.0.0', port: 7 }),
    [{ address: '10.0.1.1', port: 7, deprecated: false }],
    'the cable was moved',
  )
})
