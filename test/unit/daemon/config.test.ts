import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { nearest } from '../../../daemon/config-document.js'
import { defaultConfigText } from '../../../daemon/config-example.js'
import { compareConfigs, loadConfig, type ConfigOptions } from '../../../daemon/config.js'
import { CaracalError } from '../../../daemon/errors.js'

const directory = mkdtempSync(join(tmpdir(), 'caracal-config-'))
const file = join(directory, 'c.yaml')

function load(text: string | undefined, options: ConfigOptions = {}, environment = {}) {
  if (text !== undefined) writeFileSync(file, text)
  return loadConfig({ file: text === undefined ? undefined : file, options, environment })
}

function problem(text: string): string {
  try {
    load(text)
  } catch (error) {
    if (error instanceof CaracalError && error.code === 'CARACAL_E_CONFIG')
      return error.message.replace(`${file}, `, '')
    throw error
  }
  return 'no problem'
}

test('configuration', async (t) => {
  t.teardown(() => rmSync(directory, { recursive: true }))

  t.test('defaults, and the example that explains them', async (t) => {
    const config = load(undefined)
    t.match(config, {
      state: '/var/lib/caracal',
      socket: '/run/caracal.sock',
      group: undefined,
      listen: [
        { address: '0.0.0.0', port: 7474 },
        { address: '::', port: 7474 },
      ],
      aead: { offer: ['aes-256-gcm', 'chacha20-poly1305'], implementation: 'auto' },
      offload: { tun: 'uso', vnetHeader: true, gso: true, gro: true, bufferBytes: 16_777_216 },
      limits: { flows: 262_144 },
      tun: { name: 'caracal0', mtu: 1420 },
      pool: '198.18.0.0/15',
      zone: 'svc.internal',
      dns: { kind: 'auto' },
      discovery: { mdns: true, interfaces: [], peers: [] },
      services: [],
      policy: undefined,
      rules: [],
      log: 'info',
      metrics: undefined,
    })
    t.match(config.name, /^[a-z0-9-]+$/)
    t.strictSame(load(defaultConfigText()), config)
    t.strictSame(load(''), config)
    const uncommented = defaultConfigText()
      .replace('services: {}', 'services:')
      .replace('rules: []', 'rules:')
      .replace(/^#( {2,}\S)/gm, '$1')
      .replace(/^# ((group|name|policy|metrics):| {2})/gm, '$1')
    t.match(load(uncommented), {
      group: 'caracal',
      name: 'h1',
      services: [{ name: 'web', health: { kind: 'http', path: '/ready' } }],
      policy: [{ from: ['staff'] }],
      rules: [{ name: 'ads' }, { name: 'lab' }, { name: 'corp', host: 'h2', weight: 1 }, { host: 'h3', weight: 2 }],
      metrics: { address: '127.0.0.1', port: 9474 },
    })
  })

  t.test('everything set', async (t) => {
    const config = load(`
name: H1
listen: [192.0.2.1, '[2001:db8::1]:99']
tun: { mtu: 9000 }
aead: { offer: [chacha20-poly1305], implementation: openssl }
offload: { tun: none, vnet-header: false, gso: false, gro: false, buffers: 212992 }
limits: { flows: 1000 }
pool: 10.99.7.7/16
zone: .Corp.Example.
dns: file:/etc/resolv.conf
discovery: { mdns: false, interfaces: [eth0], peers: ['192.0.2.7:7474'] }
services:
  Web: { tcp: [80, '443:8443'], udp: 53, weight: 3, priority: 1, health: tcp }
policy:
  - { from: [staff], to: [shop], ports: [tcp/80, udp, icmp] }
rules:
  - { name: Ads.Example, action: drop, below: false }
  - { name: '*', action: delay, priority: 7 }
  - { name: corp, action: resolver, host: H2, weight: 3 }
log: debug
metrics: 127.0.0.1:9
`)
    t.match(config, {
      name: 'h1',
      listen: [
        { address: '192.0.2.1', port: 7474 },
        { address: '2001:db8::1', port: 99 },
      ],
      tun: { name: 'caracal0', mtu: 9000 },
      aead: { offer: ['chacha20-poly1305'], implementation: 'openssl' },
      offload: { tun: 'none', vnetHeader: false, gso: false, gro: false, bufferBytes: 212_992 },
      limits: { flows: 1_000 },
      pool: '10.99.0.0/16',
      zone: 'corp.example',
      dns: { kind: 'file', path: '/etc/resolv.conf' },
      discovery: { mdns: false, interfaces: ['eth0'], peers: [{ address: '192.0.2.7', port: 7474 }] },
    })
    t.strictSame(config.services, [
      {
        name: 'web',
        ports: [
          { protocol: 'tcp', port: 80, local: 80 },
          { protocol: 'tcp', port: 443, local: 8443 },
          { protocol: 'udp', port: 53, local: 53 },
        ],
        weight: 3,
        priority: 1,
        health: { kind: 'tcp' },
        move: 'drain',
      },
    ])
    const ports = [
      { protocol: 'tcp', port: 80 },
      { protocol: 'udp', port: undefined },
      { protocol: 'icmp', port: undefined },
    ]
    t.strictSame(config.policy, [{ from: ['staff'], to: ['shop'], ports }])
    t.strictSame(config.rules, [
      { name: 'ads.example', below: false, action: 'drop', host: undefined, priority: 0, weight: 1 },
      { name: '*', below: true, action: 'delay', host: undefined, priority: 7, weight: 1 },
      { name: 'corp', below: true, action: 'resolver', host: 'h2', priority: 65_535, weight: 3 },
    ])
  })

  t.test('command line over environment over file', async (t) => {
    const text = 'state: /file\nsocket: /file.sock\nname: file\n'
    const environment = { CARACAL_STATE: '/env', CARACAL_SOCKET: '' }
    const config = load(text, { name: 'line', listen: ['0.0.0.0:1'], tun: 'ov0' }, environment)
    t.match(config, { state: '/env', socket: '/file.sock', name: 'line', listen: [{ port: 1 }], tun: { name: 'ov0' } })
    t.equal(load(text, { state: 'relative' }, environment).state, join(process.cwd(), 'relative'))
    t.throws(() => load(undefined, { name: 'no_good' }), { code: 'CARACAL_E_USAGE', message: /^--name: "no_good"/ })
  })

  t.test('what is wrong is said with its place', async (t) => {
    t.equal(problem('name: h1\nsocet: x\n'), 'line 2, column 1: unknown setting "socet": did you mean "socket"?')
    t.equal(problem('tun:\n  name: a\n  mut: 1\n'), 'line 3, column 3: unknown setting "mut": did you mean "mtu"?')
    t.match(problem('services:\n  web:\n    tpc: 80\n'), /^line 3, column 5: unknown setting "tpc": did you mean "tcp"/)
    t.match(problem('quux: 1\n'), /unknown setting "quux": known are state, socket/)
    t.match(problem('name: [\n'), /^line \d+, column \d+: /)
    t.match(problem('a: 1\n\tb: 2\n'), /^line 2, column \d+: /)
    t.match(problem('name: a\nname: b\n'), /^line 2, column 1: .*unique/)
    t.match(problem('tun:\n  mtu: 100\n'), /^line 2, column 8: tun.mtu: .*1280/)
    t.match(problem('offload:\n  gos: true\n'), /^line 2, column 3: unknown setting "gos": did you mean "gso"/)
    t.match(problem('offload: { tun: all }\n'), /^line 1, column 17: offload.tun: .*"uso"\|"tso"\|"checksum"\|"none"/)
    t.match(problem('offload: { buffers: 4096 }\n'), /^line 1, column 21: offload.buffers: .*65536/)
    t.match(problem('aead: { offer: [aes-256-gcm] }\n'), /^line 1, column 16: aead.offer: chacha20-poly1305 is needed/)
    t.match(problem('aead: { offer: [rot13, chacha20-poly1305] }\n'), /^line 1, column 17: aead.offer.0: /)
    t.match(problem('aead: { implementation: mine }\n'), /^line 1, column 25: aead.implementation: .*"auto"/)
    t.match(problem('listen: [here]\n'), /^line 1, column 10: listen.0: "here" is no address/)
    t.match(problem('listen: []\n'), /^line 1, column 9: listen: /)
    t.match(problem('pool: 10.0.0.0/24\n'), /^line 1, column 7: pool: "10.0.0.0\/24" is no IPv4 pool/)
    t.match(problem('zone: a..b\n'), /^line 1, column 7: zone: "a..b" is no zone/)
    t.match(problem('dns: maybe\n'), /"maybe" is no DNS mode/)
    t.match(problem('services:\n  web: { tcp: 70000 }\n'), /^line 2, column 15: services.web.tcp: "70000" is no port/)
    t.match(problem('services:\n  web: {}\n'), /^line 2, column 3: service web has no port/)
    t.match(problem('services:\n  we_b: { tcp: 1 }\n'), /^line 2, column 3: .*we_b/)
    t.match(problem('services:\n  web: { tcp: 1, move: rehome }\n'), /^line 2, column 24: services.web.move/)
    t.match(
      problem('services:\n  web: { tcp: 1, proof: x }\n'),
      /^line 2, column 25: services.web.proof: no proof: expected/,
    )
    const proof = `AQ${'A'.repeat(170)}`
    t.match(problem(`services:\n  web: { tcp: 1, proof: ${proof} }\n`), /^line 2, column 3: web is no self-certifying/)
    const own = `~${'a'.repeat(52)}`
    t.match(load(`services:\n  ${own}: { tcp: 1, proof: ${proof} }\n`).services, [{ name: own, proof }])
    t.match(problem('policy:\n  - { ports: [tcp/0] }\n'), /^line 2, column 15: .*"tcp\/0" is no port of a policy/)
    t.match(
      problem('rules:\n  - { name: a, action: drop, hots: x }\n'),
      /^line 2, column 30: unknown setting "hots": did you/,
    )
    t.match(problem('rules:\n  - { name: a, action: resolver }\n'), /^line 2, column 5: rules.0: .*`host:`/)
    t.match(
      problem('rules:\n  - { name: a, action: drop, host: h2 }\n'),
      /^line 2, column 36: rules.0.host: `drop` has no/,
    )
    t.match(problem('rules:\n  - { name: a_b, action: drop }\n'), /^line 2, column 13: rules.0.name: .*a_b/)
    t.match(problem('rules:\n  - { name: a, action: sink }\n'), /^line 2, column 24: rules.0.action: .*"drop"/)
    t.match(problem('rules:\n  - { name: a, action: drop, priority: 65536 }\n'), /^line 2, column 40: rules.0.priority/)
    t.match(
      problem('rules:\n  - { name: a, action: delay }\n  - { name: A, action: delay }\n'),
      /^line 3, column 5: rules.1: the same rule stands above/,
    )
    t.match(problem('- a\n- b\n'), /expected object/)
    t.match(problem('a: &a [x]\nb: [' + '*a,'.repeat(200) + ']\n'), /too many aliases/)
    t.throws(() => loadConfig({ file: '/nonexistent', options: {}, environment: {} }), {
      message: /there is no such file/,
    })
  })

  t.test('what a reload changes', async (t) => {
    const before = load('services: { web: { tcp: 80 } }\n')
    const after = load(
      'services: { web: { tcp: 81 } }\nlog: debug\npool: 10.0.0.0/15\nrules: [{ name: a, action: drop }]\n',
    )
    t.strictSame(compareConfigs(before, after), { changed: ['services', 'rules', 'log'], restart: ['pool'] })
    t.strictSame(compareConfigs(before, before), { changed: [], restart: [] })
  })

  t.test('the nearest word', async (t) => {
    const known = ['listen', 'log', 'zone']
    t.equal(nearest('lsiten', known), 'listen')
    t.equal(nearest('LOG', known), 'log')
    t.equal(nearest('elephant', known), undefined)
  })
})
