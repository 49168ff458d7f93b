import { test } from 'tap'
import { CommandError, type CommandRunner } from '../../../daemon/command.js'
import { doctorCheckShape, type DoctorCheck } from '../../../daemon/control/shapes.js'
import { runDoctor, type DoctorInputs } from '../../../daemon/doctor.js'
import type { KeeperReport } from '../../../daemon/keeper/keeping.js'
import { blackholeMetric } from '../../../daemon/link.js'

const DAY = 86_400
const now = 1_700_000_000
const metric = blackholeMetric('caracal0')

/** What the system's programs answer on a host where all is well, by their arguments. */
const answers: Readonly<Record<string, string>> = {
  'ip -j link show dev caracal0': '[{"ifname":"caracal0","flags":["POINTOPOINT","UP","LOWER_UP"],"mtu":1380}]',
  'ip -j route get 198.18.128.1': '[{"dst":"198.18.128.1","dev":"caracal0","prefsrc":"198.18.0.1"}]',
  'ip -j route get fd00:1:2:d1a1::1': '[{"dst":"fd00:1:2:d1a1::1","dev":"caracal0"}]',
  'ip -j -4 route show type blackhole': `[{"type":"blackhole","dst":"198.18.0.0/15","metric":${metric}}]`,
  'ip -j -6 route show type blackhole': `[{"type":"blackhole","dst":"fd00:1:2::/48","dev":"lo","metric":${metric}}]`,
  'nft -j list table inet caracal_caracal0': '{"nftables":[]}',
}
const settings: Readonly<Record<string, string>> = {
  'net/ipv4/conf/caracal0/route_localnet': '1\n',
  'net/ipv4/conf/caracal0/rp_filter': '0\n',
  'net/ipv4/conf/all/rp_filter': '0\n',
  'net/ipv6/conf/caracal0/disable_ipv6': '0\n',
  'net/core/rmem_max': '212992\n',
  'net/core/wmem_max': '212992\n',
}

function runner(changed: Readonly<Record<string, string | CommandError>> = {}): CommandRunner {
  return (program, args) => {
    const line = [program, ...args].join(' ')
    const answer = changed[line] ?? answers[line]
    if (typeof answer === 'string') return Promise.resolve(answer)
    return Promise.reject(answer ?? new CommandError(program, 1, `unexpected: ${line}`, false))
  }
}

function reader(changed: Readonly<Record<string, string | undefined>> = {}): DoctorInputs['readSetting'] {
  return (path) => Promise.resolve(path in changed ? changed[path] : settings[path])
}

const missing = (program: string) => new CommandError(program, undefined, 'not found', true)
const refused = (program: string, complaint: string) => new CommandError(program, 1, complaint, false)

/** Of three lanes so many work. */
const session = (lanesWorking: number, upMs = 60_000) => ({ upMs, lanes: 3, lanesWorking })

const keeper: KeeperReport = {
  ...{ on: true, pid: 77, descriptors: 3, held: 3, takeovers: 0 },
  ...{ flows: true, failedCommands: 0, problem: undefined },
}

const well: DoctorInputs = {
  nodeVersion: 'v20.20.2',
  loopDelay: { p50Ms: 0.1, p99Ms: 1, maxMs: 12 },
  express: true,
  realTime: false,
  readSetting: reader(),
  run: runner(),
  tun: { name: 'caracal0', mtu: 1380, offloads: { vnetHeader: true, checksum: true, tso: true, uso: true } },
  sockets: [
    {
      local: { address: '0.0.0.0', port: 7474 },
      bufferSizes: { receive: 1 << 24, send: 1 << 24 },
      gro: true,
      gso: true,
    },
  ],
  aeads: ['aes-256-gcm', 'chacha20-poly1305'],
  aes: {
    library: 'ipsec-mb',
    title: 'libipsec-mb 1.3.0',
    openssl: 'OpenSSL 3.0.19',
    passedOver: undefined,
    failed: false,
  },
  settings: {
    offload: { tun: 'uso', vnetHeader: true, gso: true, gro: true, bufferBytes: 1 << 24 },
    aead: { offer: ['aes-256-gcm', 'chacha20-poly1305'], implementation: 'auto' },
    loop: { thread: 'own', lanes: 'auto', express: true, priority: 'normal' },
  },
  link: {
    pools: ['198.18.0.0/15', 'fd00:1:2:0::/48'],
    routed: ['198.18.128.1', 'fd00:1:2:d1a1::1'],
    report: { ipv6: true, firewall: true, warnings: [] },
    conflicts: () => Promise.resolve([]),
    firewallObstacles: () => Promise.resolve([]),
  },
  keeper: () => Promise.resolve(keeper),
  dns: {
    settings: { description: 'systemd-resolved asks 198.18.0.53 for ~svc.internal on caracal0', active: true },
    name: 'h1.host.svc.internal',
    addresses: ['198.18.1.1', 'fd00:1:2:d1a1::5'],
    lookup: () => Promise.resolve(['fd00:1:2:d1a1::5', '198.18.1.1']),
  },
  trust: {
    wallNow: now + 0.5,
    wallFloor: now - 60,
    skewSeconds: 300,
    membership: { notBefore: now - 100 * DAY, notAfter: now + 200 * DAY },
  },
  directory: { synced: true, counters: { full: 0, sent: 3 } },
  hosts: [
    { name: 'h1', self: true, state: 'self', locators: [], session: null },
    { name: 'h2', self: false, state: 'up', locators: ['192.0.2.2:7474'], session: session(3) },
    { name: 'h3', self: false, state: 'revoked', locators: [], session: null },
  ],
  lanePorts: [7475, 7476],
  nameConflicts: [],
  unsettledClaims: [],
  instances: [{ service: 'web', state: 'up', health: { kind: 'tcp', detail: '' } }],
  drops: { 'bad-tag': 4, 'foreign-source': 0 },
}

/** What a configuration switches off. */
const switched = (setting: Partial<DoctorInputs['settings']['offload']>) => ({
  settings: { ...well.settings, offload: { ...well.settings.offload, ...setting } },
})

async function one(name: string, changed: Partial<DoctorInputs>): Promise<DoctorCheck> {
  const checks = await runDoctor({ ...well, ...changed })
  const others = checks.filter((check) => check.name !== name && check.result !== 'ok')
  if (others.length > 0) throw new Error(`others are ill too: ${JSON.stringify(others)}`)
  const found = checks.find((check) => check.name === name)
  if (found === undefined) throw new Error(`no check ${name}`)
  return found
}

test('on a host where all is well every check is ok', async (t) => {
  const checks = await runDoctor(well)
  for (const check of checks) {
    t.match(check, { result: 'ok', remedy: '' }, check.name)
    t.not(check.detail, '')
    doctorCheckShape.parse(check)
  }
  t.strictSame(
    checks.map(({ name }) => name),
    [
      'node',
      'tun',
      'tun offloads',
      'kernel settings',
      'address pools',
      'routes',
      'blackhole routes',
      'firewall table',
      'other firewalls',
      'udp offloads',
      'udp buffers',
      'keeper',
      'sealing',
      'clock',
      'membership',
      'hosts',
      'lanes',
      'directory',
      'dns',
      'names',
      'address claims',
      'services',
      'drops',
      'express',
      'priority',
      'event loop',
    ],
    'by stable names in a fixed order',
  )
})

test('the process', async (t) => {
  t.match(await one('node', { nodeVersion: 'v18.19.0' }), { result: 'fail', remedy: /Node 20/ })
  t.match(await one('node', { nodeVersion: 'nonsense' }), { result: 'fail' })
  t.match(await one('node', { nodeVersion: 'v24.0.0' }), { result: 'ok' })
  t.match(await one('event loop', { loopDelay: { p50Ms: 1, p99Ms: 80, maxMs: 300 } }), {
    result: 'warn',
    detail: /80\.0 ms at p99 and by 300\.0 ms at worst.*packets waited/,
  })
  t.match(await one('event loop', { loopDelay: { p50Ms: 0, p99Ms: 1, maxMs: 5_000 } }), { result: 'warn' })
  t.match(await one('express', { express: false }), { result: 'ok', detail: /while a dump is open/ })
  const settings = { ...well.settings, loop: { ...well.settings.loop, express: false } }
  t.match(await one('express', { express: false, settings }), {
    result: 'warn',
    detail: /as `loop.express: false` switches it off: .*twice as long/,
    remedy: /take `loop.express: false` out/,
  })
  const realTime = { ...well.settings, loop: { ...well.settings.loop, priority: 'real-time' } } as const
  t.match(await one('priority', { settings: realTime, realTime: true }), { result: 'ok', detail: /before all other/ })
  t.match(await one('priority', { settings: realTime }), { result: 'warn', remedy: /CAP_SYS_NICE/ })
})

test('what goes on without a daemon', async (t) => {
  const says = (more: Partial<KeeperReport>) => one('keeper', { keeper: async () => ({ ...keeper, ...more }) })
  t.match(await says({ takeovers: 2 }), {
    result: 'ok',
    detail: 'process 77 holds caracal0, which was taken over 2 times',
  })
  t.match(await says({ on: false, pid: null }), { result: 'warn', detail: /`keeper.on: false` switches it off/ })
  t.match(await says({ pid: null, problem: 'it is not built' }), {
    result: 'warn',
    detail: /^there is none \(it is not built\): open connections end/,
  })
  t.match(await says({ held: 1 }), {
    result: 'warn',
    detail: /^process 77 is stale: it holds 1 descriptor of caracal0 instead of 3/,
    remedy: /^sudo kill 77/,
  })
  t.match(await says({ problem: 'it is silent' }), { result: 'warn', detail: /does not answer/ })
  t.match(await says({ flows: false }), { result: 'warn', remedy: /limits\.flows/ })
  t.match(await says({ failedCommands: 1 }), { result: 'warn', detail: /1 command failed/ })
  t.match(await one('keeper', { keeper: async () => undefined }), { result: 'warn', detail: /starting/ })
})

test('the TUN device', async (t) => {
  const shows = (answer: string | CommandError) => runner({ 'ip -j link show dev caracal0': answer })
  t.match(await one('tun', { run: shows(refused('ip', 'Device "caracal0" does not exist.')) }), {
    result: 'fail',
    detail: /caracal0 is gone/,
  })
  t.match(await one('tun', { run: shows('[{"flags":["POINTOPOINT"],"mtu":1380}]') }), {
    result: 'fail',
    remedy: 'sudo ip link set caracal0 up',
  })
  t.match(await one('tun', { run: shows('[{"flags":["UP"],"mtu":1500}]') }), {
    result: 'warn',
    detail: /1500 instead of 1380/,
  })
  const offloads = (more: object) => ({ tun: { ...well.tun, offloads: { ...well.tun.offloads, ...more } } })
  t.match(await one('tun offloads', offloads({ tso: false, uso: false })), {
    result: 'warn',
    detail: /^this kernel gives caracal0 no TCP offload: .*six tenths of the throughput/,
    remedy: /newer kernel/,
  })
  t.match(await one('tun offloads', offloads({ vnetHeader: false })), {
    result: 'warn',
    detail: /^this kernel gives caracal0 no virtio_net_hdr, so neither TCP nor UDP offload: /,
  })
  t.match(await one('tun offloads', offloads({ uso: false })), {
    result: 'warn',
    detail: /^this kernel gives .*no UDP offload/,
  })

  // Chosen, not missing: the remedy is the configuration.
  const chosen = (missing: object, setting: Partial<DoctorInputs['settings']['offload']>) =>
    one('tun offloads', { ...offloads(missing), ...switched(setting) })
  t.match(await chosen({ uso: false }, { tun: 'tso' }), {
    result: 'warn',
    detail: /no UDP offload, as `offload.tun: tso` switches it off: /,
    remedy: /^take `offload.tun: tso` out of the configuration/,
  })
  t.match(await chosen({ uso: false, tso: false }, { tun: 'checksum' }), { detail: /`offload.tun: checksum` switches/ })
  const nothing = { uso: false, tso: false, checksum: false }
  t.match(await chosen(nothing, { tun: 'none' }), { detail: /no TCP offload, as `offload.tun: none` switches it off/ })
  t.match(await chosen(nothing, { tun: 'tso' }), { detail: /^this kernel gives/ }, 'more is missing than was chosen')
  t.match(await chosen({ ...nothing, vnetHeader: false }, { vnetHeader: false }), {
    detail: /no virtio_net_hdr.*as `offload.vnet-header: false` switches it off/,
  })
})

test('settings of the kernel that somebody has changed', async (t) => {
  const check = (changed: Record<string, string | undefined>) =>
    one('kernel settings', { readSetting: reader(changed) })
  t.match(await check({ 'net/ipv4/conf/caracal0/route_localnet': '0' }), {
    result: 'warn',
    detail: /127\.0\.0\.1 only are not reached/,
    remedy: 'sudo sysctl -w net/ipv4/conf/caracal0/route_localnet=1',
  })
  t.match(await check({ 'net/ipv4/conf/all/rp_filter': '1' }), { result: 'warn', detail: /rp_filter is not 2/ })
  t.match(
    await check({ 'net/ipv4/conf/all/rp_filter': '1', 'net/ipv4/conf/caracal0/rp_filter': '2' }),
    { result: 'ok' },
    'the larger one holds',
  )
  t.match(await check({ 'net/ipv6/conf/caracal0/disable_ipv6': '1' }), {
    result: 'warn',
    detail: /no service is reached over IPv6/,
  })
  t.match(await check({ 'net/ipv4/conf/caracal0/route_localnet': undefined }), {
    result: 'warn',
    detail: /cannot read/,
  })
  const both = await check({ 'net/ipv4/conf/caracal0/route_localnet': '0', 'net/ipv6/conf/caracal0/disable_ipv6': '1' })
  t.match(both.remedy, /route_localnet=1 && sudo sysctl -w .*disable_ipv6=0/)
})

test('a kernel without IPv6', async (t) => {
  const link = { ...well.link, report: { ipv6: false, firewall: true, warnings: [] } }
  const no6 = {
    'ip -j route get fd00:1:2:d1a1::1': refused('ip', 'no IPv6'),
    'ip -j -6 route show type blackhole': refused('ip', 'no IPv6'),
  }
  const found = await one('kernel settings', { link, run: runner(no6) })
  t.match(found, { result: 'warn', detail: /over IPv4 only/ })
})

test('other networks in our pools, and routes that lead elsewhere', async (t) => {
  const conflicts = () =>
    Promise.resolve([{ pool: '198.18.0.0/15', kind: 'route', prefix: '198.18.4.0/24', device: 'wg0' } as const])
  t.match(await one('address pools', { link: { ...well.link, conflicts } }), {
    result: 'fail',
    detail: '198.18.0.0/15 overlaps the route 198.18.4.0/24 of wg0: some addresses lead elsewhere',
  })
  const goes = (answer: string | CommandError) =>
    one('routes', { run: runner({ 'ip -j route get 198.18.128.1': answer }) })
  t.match(await goes('[{"dst":"198.18.128.1","dev":"wg0"}]'), {
    result: 'fail',
    detail: /198\.18\.128\.1 goes to wg0 instead of caracal0/,
  })
  t.match(await goes(refused('ip', 'RTNETLINK answers: Invalid argument')), { result: 'fail', detail: /goes nowhere/ })
  t.match(await one('blackhole routes', { run: runner({ 'ip -j -4 route show type blackhole': '[]' }) }), {
    result: 'warn',
    detail: /198\.18\.0\.0\/15 missing.*in clear/,
    remedy: `sudo ip route replace blackhole 198.18.0.0/15 metric ${metric}`,
  })
  const foreign = '[{"type":"blackhole","dst":"fd00:1:2::/48","metric":1024}]'
  t.match(await one('blackhole routes', { run: runner({ 'ip -j -6 route show type blackhole': foreign }) }), {
    result: 'warn',
    detail: /fd00:1:2:0::\/48 missing/,
  })
})

test('firewalls', async (t) => {
  const nft = (error: CommandError) => ({ run: runner({ 'nft -j list table inet caracal_caracal0': error }) })
  t.match(await one('firewall table', nft(missing('nft'))), {
    result: 'warn',
    detail: /nft is not installed/,
    remedy: /nftables/,
  })
  t.match(await one('firewall table', nft(refused('nft', 'No such file or directory'))), {
    result: 'warn',
    detail: /has been removed/,
  })
  const link = { ...well.link, report: { ...well.link.report, firewall: false } }
  t.match(await one('firewall table', { link, ...nft(refused('nft', 'Operation not supported')) }), {
    result: 'warn',
    detail: /Operation not supported/,
    remedy: /modprobe nf_tables/,
  })
  const firewallObstacles = () => Promise.resolve(['inet filter input'])
  t.match(await one('other firewalls', { link: { ...well.link, firewallObstacles } }), {
    result: 'warn',
    remedy: 'sudo nft insert rule inet filter input iifname "caracal0" accept',
  })
})

test('the UDP sockets', async (t) => {
  const socket = well.sockets[0]!
  t.match(await one('udp offloads', { sockets: [{ ...socket, gso: false }] }), {
    result: 'warn',
    detail:
      /one frame a message .*0\.0\.0\.0:7474, where the kernel does not support it: .*a quarter of the throughput/,
    remedy: /^use Linux 5/,
  })
  t.match(await one('udp offloads', { sockets: [{ ...socket, gso: true, gsoRefused: true }] }), {
    result: 'warn',
    detail: /one frame a message is sent to some hosts \(no GSO\).*refuses more/,
    remedy: /ethtool -K/,
  })
  t.match(await one('udp offloads', { sockets: [{ ...socket, gro: false }] }), {
    result: 'warn',
    detail: /no GRO.*does not support it: .*about half of the throughput/,
  })
  t.match(
    await one('udp offloads', { sockets: [{ ...socket, gso: false, gro: false }], ...switched({ gso: false }) }),
    {
      result: 'warn',
      detail: /no GSO\), as `offload.gso: false` switches it off: .*; .*no GRO\) .*does not support it/,
      remedy: /^take `offload.gso: false` out of the configuration.*; use Linux 5/,
    },
  )
  t.match(
    await one('udp offloads', {
      sockets: [{ ...socket, gso: false, gro: false }],
      ...switched({ gso: false, gro: false }),
    }),
    { remedy: /^take `offload.gso: false` and `offload.gro: false` out of the configuration, then[^;]*$/ },
  )
  const { local, bufferSizes } = socket
  t.match(
    await one('udp offloads', { sockets: [{ local, bufferSizes }] }),
    { result: 'ok' },
    'nothing is known to be missing',
  )
  t.match(await one('udp buffers', { sockets: [{ local, bufferSizes: { receive: 212_992, send: 1 << 24 } }] }), {
    result: 'warn',
    detail: /^208 KB to receive, 16384 KB to send, less than 4096 KB \(net\.core\.rmem_max is 212992\)/,
    remedy: /^sudo sysctl -w net\/core\/rmem_max=16777216, then/,
  })
  const small = [{ local, bufferSizes: { receive: 106_496, send: 106_496 } }]
  t.match(await one('udp buffers', { sockets: small, ...switched({ bufferBytes: 106_496 }) }), {
    result: 'warn',
    detail:
      /^104 KB to receive, 104 KB to send, less than 4096 KB \(`offload.buffers: 106496` asks for no more\): .*throughput/,
    remedy: /^take `offload.buffers: 106496` out of the configuration, then[^;]*$/,
  })
  t.match(
    await one('udp buffers', { sockets: small, ...switched({ bufferBytes: 1 << 20 }) }),
    {
      detail: /1048576` asks for no more, net\.core\.rmem_max is 212992, net\.core\.wmem_max/,
      remedy: /; sudo sysctl/,
    },
    'set low, and limited to less',
  )
  t.match(await one('udp buffers', { sockets: [] }), { result: 'fail', remedy: /listen/ })
  t.match(await one('sealing', { aeads: ['chacha20-poly1305'] }), {
    result: 'warn',
    detail: /self-test, .*a quarter more processor time/,
  })
  const aead = { offer: ['chacha20-poly1305'], implementation: 'auto' } as const
  t.match(await one('sealing', { aeads: aead.offer, settings: { ...well.settings, aead } }), {
    result: 'warn',
    detail: /^chacha20-poly1305 only, as `aead.offer: \[chacha20-poly1305\]` switches AES-256-GCM off: /,
    remedy: /take `aead.offer: \[chacha20-poly1305\]` out of the configuration/,
  })
})

test('what does AES-256-GCM, and why not the faster library', async (t) => {
  const check = async (aes: Partial<DoctorInputs['aes']>, implementation: 'auto' | 'ipsec-mb' = 'auto') => {
    const settings = { ...well.settings, aead: { ...well.settings.aead, implementation } }
    const checks = await runDoctor({ ...well, settings, aes: { ...well.aes, ...aes } })
    return checks.find(({ name }) => name === 'sealing')
  }
  const openssl = { library: 'openssl', title: 'OpenSSL 3.0.19' } as const
  const by = 'aes-256-gcm by OpenSSL 3.0.19, chacha20-poly1305 by OpenSSL 3.0.19'
  const used = 'aes-256-gcm by libipsec-mb 1.3.0, chacha20-poly1305 by OpenSSL 3.0.19'
  t.match(await check({}), { result: 'ok', detail: used })
  t.match(await check({}, 'ipsec-mb'), { result: 'ok', detail: used })
  t.match(await check(openssl), { result: 'ok', detail: by }, 'as it was set')
  const missing = { ...openssl, passedOver: 'libipsec-mb is not installed' }
  t.match(await check(missing), {
    result: 'ok',
    detail: `${by}; libipsec-mb is not installed, with it sealing would be faster`,
  })
  t.match(await check(missing, 'ipsec-mb'), {
    result: 'warn',
    detail: /, not as `aead.implementation: ipsec-mb` wants it: libipsec-mb is not installed; /,
    remedy: /apt-get install libipsec-mb1/,
  })
  const failed = {
    ...openssl,
    passedOver: 'libipsec-mb 1.3.0 did not agree with OpenSSL in its self-test',
    failed: true,
  }
  for (const implementation of ['auto', 'ipsec-mb'] as const)
    t.match(await check(failed, implementation), {
      result: 'warn',
      detail: /^aes-256-gcm by OpenSSL.*did not agree/,
      remedy: /nothing is unsafe; upgrade or remove/,
    })
})

test('the clock and the membership', async (t) => {
  const check = async (name: string, more: Partial<DoctorInputs['trust']>) =>
    (await runDoctor({ ...well, trust: { ...well.trust, ...more } })).find((one) => one.name === name)
  t.match(await check('clock', { wallFloor: now + 400 }), {
    result: 'warn',
    detail: /2023-11-14T22:13:20Z is before 2023-11-14T22:20:00Z/,
    remedy: /clock/,
  })
  t.match(await check('clock', { wallFloor: now + 200 }), { result: 'ok' }, 'within the skew')
  const early = { membership: { notBefore: now + DAY, notAfter: now + 2 * DAY } }
  t.match(await check('clock', early), { result: 'fail', detail: /before this host became a member \(2023-11-15/ })
  t.match(await check('membership', early), { result: 'fail', detail: /not valid before/, remedy: /clock/ })
  const soon = { membership: { notBefore: now - 300 * DAY, notAfter: now + 3 * DAY + 60 } }
  t.match(await check('membership', soon), { result: 'warn', detail: /3 days from now/, remedy: /caracal invite/ })
  const short = { membership: { notBefore: now - 3_000, notAfter: now + 600 } }
  t.match(await check('membership', short), { result: 'ok' }, 'a short membership is not always about to end')
  t.match(await check('membership', soon), { detail: /no issuer has renewed it/ })
  const revoked = { revoked: 'the authority revoked it at 2026-01-02T03:04:05Z' }
  t.match(await check('membership', revoked), {
    ...{ result: 'fail', detail: /this host was revoked: the authority/, remedy: /empty --state/ },
  })
  const gone = { membership: { notBefore: now - 300 * DAY, notAfter: now - DAY } }
  t.match(await check('membership', gone), { result: 'fail', detail: /expired at 2023-11-13.*refuse/ })
  t.match(
    await check('membership', { wallFloor: now + DAY, membership: { notBefore: now - DAY, notAfter: now + 60 } }),
    { result: 'fail' },
    'a clock that was put back does not help',
  )
})

test('the other hosts', async (t) => {
  const [self] = well.hosts
  const host = (name: string, state: 'up' | 'down' | 'suspect' | 'connecting') =>
    ({ name, self: false, state, locators: [`192.0.2.${name.slice(1)}:7474`], session: null }) as const
  t.match(await one('hosts', { hosts: [self!] }), { result: 'ok', detail: /no other host/ })
  t.match(await one('hosts', { hosts: [self!, host('h2', 'up'), host('h3', 'down')] }), {
    result: 'warn',
    detail: 'h3 is down (192.0.2.3:7474)',
  })
  t.match(await one('hosts', { hosts: [self!, host('h2', 'suspect')] }), {
    result: 'fail',
    detail: /^no other host is reached: h2 is suspect/,
  })
  const crowd = Array.from({ length: 40 }, (_, i) => host(`h${i + 2}`, 'down'))
  t.match((await one('hosts', { hosts: crowd })).detail, /and 35 more$/, 'bounded')
  const reached = (...lanes: ReturnType<typeof session>[]) =>
    lanes.map((one, i) => ({ ...host(`h${i + 2}`, 'up'), session: one }))
  t.match(await one('lanes', { hosts: reached(session(3), session(1), session(2)) }), {
    result: 'warn',
    detail: /^h3 is reached by 1 of 3; h4 is reached by 2 of 3: /,
    remedy: /ports 7475 to 7476/,
  })
  t.match(await one('lanes', { hosts: reached(session(1, 100)) }), { result: 'ok' }, 'they are still being tried')
  t.match(await one('lanes', { hosts: reached({ ...session(1), lanes: 1 }), lanePorts: [] }), {
    result: 'ok',
    detail: 'one',
  })
  t.match(await one('directory', { directory: { synced: false, counters: {} } }), {
    result: 'warn',
    detail: /SERVFAIL/,
  })
  t.match(await one('directory', { directory: { synced: true, counters: { full: 2 } } }), {
    result: 'warn',
    detail: /^2 records had no room/,
  })
})

test('names', async (t) => {
  const { dns } = well
  t.match(await one('dns', { dns: { ...dns, lookup: () => Promise.reject(new Error('ENOTFOUND')) } }), {
    result: 'fail',
    detail: /but programs get nothing for h1\.host\.svc\.internal/,
  })
  t.match(await one('dns', { dns: { ...dns, lookup: () => Promise.resolve(['203.0.113.1']) } }), {
    result: 'fail',
    detail: /get 203\.0\.113\.1 for/,
  })
  const inactive = { ...dns, settings: { description: 'systemd-resolved does not run', active: false } }
  t.match(await one('dns', { dns: { ...inactive, lookup: () => Promise.resolve([]) } }), {
    result: 'warn',
    detail: 'systemd-resolved does not run: programs find no service by name',
  })
  t.match(await one('dns', { dns: inactive }), { result: 'ok' }, 'somebody forwards the zone to us')
  t.match(await one('names', { nameConflicts: ['web on h3: the name belongs to h2'] }), {
    result: 'warn',
    detail: 'web on h3: the name belongs to h2: these registrations are ignored',
  })
  t.match(await one('address claims', { unsettledClaims: ['web', 'api.shop'] }), {
    result: 'warn',
    detail: /web, api\.shop.*cannot move over IPv4/,
  })
})

test("this host's services, and drops that tell of its set-up", async (t) => {
  const detail = 'what listens on TCP port 80 hears [::1] only, which the kernel keeps from other hosts'
  const ill = { service: 'web', state: 'unhealthy', health: { kind: 'none', detail } } as const
  t.match(await one('services', { instances: [ill, ...well.instances] }), {
    result: 'warn',
    detail: `web: ${detail}; no new flow comes to it`,
    remedy: /127\.0\.0\.1/,
  })
  t.match(await one('services', { instances: [] }), { result: 'ok', detail: 'none exposed here' })
  t.match(await one('drops', { drops: { 'foreign-source': 12, 'not-dialled': 900, 'flow-table-full': 1 } }), {
    result: 'warn',
    detail: /^12 packets came from containers.*\(foreign-source\); 1 packet would have begun/,
  })
})

test('a check that cannot be made is a finding, and does not keep the others', async (t) => {
  const stuck = { ...well.dns, lookup: () => new Promise<readonly string[]>(() => undefined) }
  const firewallObstacles = () => Promise.reject(new Error('nft wrote\nnonsense'))
  const checks = await runDoctor({ ...well, dns: stuck, link: { ...well.link, firewallObstacles } }, 30)
  const ill = checks.filter(({ result }) => result !== 'ok')
  t.match(ill, [
    { name: 'other firewalls', result: 'warn', detail: 'could not be checked: nft wrote nonsense' },
    { name: 'dns', result: 'warn', detail: 'could not be checked: no answer within 30 ms' },
  ])
  t.equal(ill.length, 2)
})

test('without ip the checks that need it say so', async (t) => {
  const run: CommandRunner = (program) => Promise.reject(missing(program))
  const ill = (await runDoctor({ ...well, run })).filter(({ result }) => result !== 'ok')
  t.match(ill, [
    { name: 'tun', result: 'fail', remedy: /iproute2/ },
    { name: 'routes', result: 'fail' },
    { name: 'blackhole routes', result: 'warn' },
    { name: 'firewall table', result: 'warn' },
  ])
})
