import { test } from 'tap'
import { CommandError, type CommandRunner } from '../../../daemon/command.js'
import { findConflicts } from '../../../daemon/link-conflicts.js'
import { firewallRules, inputObstacles } from '../../../daemon/link-firewall.js'
import { blackholeMetric, LinkSetup, type LinkOptions } from '../../../daemon/link.js'

const OPTIONS: LinkOptions = {
  tun: 'no-such-tun',
  mtu: 1400,
  self: ['198.18.0.1', 'fd00:1:2::1'],
  local: ['198.18.0.53'],
  routes: ['198.18.128.0/17', 'fd00:1:2:d1a1::/64'],
  pools: ['198.18.0.0/15', 'fd00:1:2::/48'],
}
const METRIC = blackholeMetric('no-such-tun')

/** Stands for the system's programs: keeps what it was asked and answers with nothing, or as `answer` says. */
function recorder(answer: (program: string, args: readonly string[], input: string) => string | undefined = () => '') {
  const lines: string[] = []
  const run: CommandRunner = async (program, args, input = '') => {
    if (program === 'ip' && args[0] === '-batch') lines.push(...input.trim().split('\n'))
    else if (program === 'ip' && args.includes('link')) return '[]'
    return answer(program, args, input) ?? ''
  }
  return { lines, run }
}

test('blackholes stand before the device is up, addresses before the routes that name them', async (t) => {
  const { lines, run } = recorder()
  const report = await new LinkSetup(OPTIONS, run).setup()
  t.equal(report.firewall, true)
  t.strictSame(lines, [
    `route replace blackhole 198.18.0.0/15 metric ${METRIC}`,
    `route replace blackhole fd00:1:2::/48 metric ${METRIC}`,
    'link set dev no-such-tun addrgenmode none',
    'link set dev no-such-tun mtu 1400 txqueuelen 1000 up',
    'address replace 198.18.0.1/32 dev no-such-tun',
    'address replace fd00:1:2::1/128 dev no-such-tun nodad noprefixroute',
    'address replace 198.18.0.53/32 dev no-such-tun',
    'route replace 198.18.128.0/17 dev no-such-tun src 198.18.0.1',
    'route replace fd00:1:2:d1a1::/64 dev no-such-tun src fd00:1:2::1',
  ])
})

test('without nft the rest is set up, and it is said', async (t) => {
  const { run } = recorder((program) => {
    if (program === 'nft') throw new CommandError('nft', undefined, 'not found', true)
    return ''
  })
  const report = await new LinkSetup(OPTIONS, run).setup()
  t.equal(report.firewall, false)
  t.match(report.warnings.join(), 'nft is not installed')
})

test('a failure names the command and takes back what was done', async (t) => {
  const blackhole = JSON.stringify([
    { type: 'blackhole', dst: '198.18.0.0/15', metric: METRIC },
    { type: 'blackhole', dst: '10.0.0.0/8', metric: 5 },
  ])
  const { lines, run } = recorder((_program, args, input) => {
    if (args.includes('blackhole')) return args.includes('-4') ? blackhole : '[]'
    if (input.startsWith('address')) {
      throw new CommandError('ip', 1, 'RTNETLINK answers: Permission denied; Command failed -:2', false)
    }
    return ''
  })
  await t.rejects(new LinkSetup(OPTIONS, run).setup(), {
    code: 'CARACAL_E_TUN',
    message:
      'ip address replace fd00:1:2::1/128 dev no-such-tun nodad noprefixroute: RTNETLINK answers: Permission denied',
  })
  t.equal(lines.at(-1), `route delete blackhole 198.18.0.0/15 metric ${METRIC}`, "and nobody else's route")
})

test('without the program ip it says what to install', async (t) => {
  const run: CommandRunner = async (program) => {
    throw new CommandError(program, undefined, '', true)
  }
  await t.rejects(new LinkSetup(OPTIONS, run).conflicts(), {
    code: 'CARACAL_E_TUN',
    message: /apt-get install iproute2/,
  })
})

test('addresses are added once and removed only when they are there', async (t) => {
  const { lines, run } = recorder()
  const link = new LinkSetup(OPTIONS, run)
  await Promise.all([
    link.addLocal(['198.18.64.1']),
    link.addLocal(['198.18.64.1', '198.18.64.2']),
    link.removeLocal(['198.18.64.1', '198.18.64.9']),
  ])
  t.strictSame(lines, [
    'address replace 198.18.64.1/32 dev no-such-tun',
    'address replace 198.18.64.2/32 dev no-such-tun',
    'address delete 198.18.64.1/32 dev no-such-tun',
  ])
})

test('nothing that is no name, address or prefix reaches a command', async (t) => {
  const { run } = recorder()
  const bad: Partial<LinkOptions>[] = [
    { tun: 'a b' },
    { tun: 'a"b' },
    { tun: '' },
    { tun: 'sixteen-letters-' },
    { self: ['198.18.0.1 metric 1'] },
    { local: ['fe80::1%eth0'] },
    { routes: ['198.18.0.0'] },
    { pools: ['198.18.0.0/33'] },
  ]
  for (const one of bad) t.throws(() => new LinkSetup({ ...OPTIONS, ...one }, run), RangeError, JSON.stringify(one))
  t.throws(() => new LinkSetup(OPTIONS, run).addLocal(['x\nlink delete dev eth0']), RangeError)
})

test('two devices have different marks', async (t) => {
  t.not(blackholeMetric('caracal0'), blackholeMetric('caracal1'))
  t.ok(blackholeMetric('caracal0') < 2 ** 31)
})

test('conflicts: what lies in a pool or around it counts, the wide world does not', async (t) => {
  const addresses = JSON.stringify([
    { ifname: 'lo', addr_info: [{ local: '127.0.0.1', prefixlen: 8 }] },
    {
      ifname: 'eth0',
      addr_info: [
        { local: '10.1.2.3', prefixlen: 16 },
        { local: 'fe80::1', prefixlen: 64 },
      ],
    },
    { ifname: 'tun7', addr_info: [{ local: '10.1.0.1', prefixlen: 32 }] },
  ])
  const routes = JSON.stringify([
    { dst: 'default', dev: 'eth0' },
    { dst: '0.0.0.0/1', dev: 'vpn' },
    { dst: '10.0.0.0/8', dev: 'vpn' },
    { dst: '10.1.9.9', dev: 'eth0', type: 'local' },
    { dst: '10.1.128.7', dev: 'eth1' },
    { dst: '10.2.0.0/16', dev: 'eth1' },
    { dst: '10.1.0.0/16', type: 'blackhole', metric: 77 },
  ])
  const own = { device: 'tun7', route: (route: { metric?: number | undefined }) => route.metric === 77 }
  t.strictSame(findConflicts(['10.1.0.0/16', 'fd00::/48'], addresses, [routes, ''], own), [
    { pool: '10.1.0.0/16', kind: 'address', prefix: '10.1.2.3/16', device: 'eth0' },
    { pool: '10.1.0.0/16', kind: 'route', prefix: '10.0.0.0/8', device: 'vpn' },
    { pool: '10.1.0.0/16', kind: 'route', prefix: '10.1.128.7', device: 'eth1' },
  ])
})

test('the firewall table has no rules for a family without a pool', async (t) => {
  const rules = firewallRules({ tun: 'caracal0', pools4: ['198.18.0.0/15'], pools6: [] })
  t.match(rules, /^table inet caracal_caracal0\ndelete table inet caracal_caracal0\n/)
  t.match(rules, 'ip daddr 198.18.0.0/15 notrack')
  t.notMatch(rules, 'ip6')
})

test('only base chains that drop what comes in stand in the way', async (t) => {
  const chain = (table: string, hook: string | undefined, policy: string | undefined) => ({
    chain: { family: 'inet', table, name: 'c', handle: 1, hook, policy },
  })
  const json = JSON.stringify({
    nftables: [
      { metainfo: { version: '1' } },
      chain('ufw', 'input', 'drop'),
      chain('open', 'input', 'accept'),
      chain('nat', 'output', 'drop'),
      chain('called', undefined, undefined),
      chain('caracal_x', 'input', 'drop'),
    ],
  })
  t.strictSame(inputObstacles(json, 'x'), ['inet ufw c'])
})
