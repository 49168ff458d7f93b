// No feature of the kernel or the processor is assumed: with each of them switched off on one host, and with all of them switched off on both, everything
// crosses whole, both ways at once. A feature of the TUN device and one of the UDP sockets are tried at the same time, on a host each.
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { doctorShape, hostsShape } from '../../daemon/control/shapes.js'
import { codecAddon } from '../../daemon/native-codec.js'
import { Fixture } from './fixture.js'

const HOSTS = ['h1', 'h2'] as const
type Host = (typeof HOSTS)[number]
const other = (host: Host): Host => (host === 'h1' ? 'h2' : 'h1')
const box = (host: Host) => `box-${host}.svc.internal`

/** Sends every datagram back as it is, over both families. */
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
 * 1,000 datagrams of 8 to 4,000 bytes to a name in each family, 20 on the way at a time: half of them one by one, half as one send that the
 * kernel cuts. Each has to come back as it went, once.
 */
const ASK = `
import os, random, socket, sys
def turn(s, family, number):
    sizes = [random.randint(8, 1372) for _ in range(9)] + [random.randint(1373, 4000)]
    sent = [os.urandom(size) for size in sizes]
    s.setsockopt(17, 103, 0)
    for datagram in sent:
        s.send(datagram)
    size = random.randint(8, 1300)
    burst = os.urandom(9 * size + random.randint(8, size))
    s.setsockopt(17, 103, size)
    s.send(burst)
    sent += [burst[i:i + size] for i in range(0, len(burst), size)]
    got = []
    try:
        for _ in sent:
            got.append(s.recv(65536))
    except TimeoutError:
        sys.exit('%s, turn %d: of sizes %s came %s' % (family.name, number, [len(d) for d in sent], [len(d) for d in got]))
    assert sorted(got) == sorted(sent), '%s, turn %d: a datagram was changed' % (family.name, number)
    return len(sent)
random.seed(7)
for family in (socket.AF_INET, socket.AF_INET6):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect(socket.getaddrinfo(sys.argv[1], 9000, family, socket.SOCK_DGRAM)[0][4])
    print(sum(turn(s, family, number) for number in range(50)), 'answered')
`

/** The programs of one host, and its daemon with one configuration after the other. */
class Bench {
  readonly #inForce = new Map<Host, string>(HOSTS.map((host) => [host, '']))

  private constructor(
    readonly net: Fixture,
    private readonly hash: string,
  ) {}

  static async up(t: Test): Promise<Bench> {
    const net = await Fixture.up(t, HOSTS)
    const body = randomBytes(10_000_000)
    for (const host of HOSTS) {
      const folder = join(net.folder, host)
      mkdirSync(folder)
      writeFileSync(join(folder, 'body'), body)
      const conf = join(folder, 'nginx.conf')
      writeFileSync(
        conf,
        `daemon off; master_process off; user root; pid ${join(folder, 'pid')}; error_log stderr notice; events { }
         http { access_log off; server { listen 8080; listen [::]:8080; root ${folder}; } }`,
      )
      await net.start(host, ['nginx', '-c', conf, '-p', folder])
      await net.start(host, ['python3', '-c', ECHO], /listening/)
      await net.listening(host, 8080)
      const { code, err } = await net.caracal(host, 'expose', `box-${host}`, '--tcp', '80:8080', '--udp', '9000')
      if (code !== 0) throw new Error(err)
    }
    return new Bench(net, createHash('sha256').update(body).digest('hex'))
  }

  /** Restarts the daemons that do not run with this configuration yet; everything is known again when it resolves. */
  async configure(texts: Readonly<Record<Host, string>>): Promise<void> {
    const { net } = this
    await Promise.all(
      HOSTS.map(async (host) => {
        if (this.#inForce.get(host) === texts[host]) return
        const file = join(net.folder, `${host}.yaml`)
        writeFileSync(file, texts[host])
        await net.lab.stopDaemon(host)
        await net.lab.startDaemon(host, ['--config', file])
        this.#inForce.set(host, texts[host])
      }),
    )
    await Promise.all(HOSTS.map((host) => net.knows(host, `box-${other(host)}`, [other(host)])))
  }

  /** What programs of each host have of the other, in both families. */
  async exercise(t: Test): Promise<void> {
    await Promise.all(HOSTS.map((host) => this.#datagrams(t, host)))
    // Afterwards: bulk fills small buffers, and datagrams may then be lost.
    await Promise.all(HOSTS.map((host) => this.#bulk(t, host)))
  }

  async #bulk(t: Test, from: Host): Promise<void> {
    const name = box(other(from))
    for (const family of [4, 6]) {
      const { out, err } = await this.net.run(from, `curl -sS -f -${family} -m 20 http://${name}/body | sha256sum`)
      t.equal(out.slice(0, 64), this.hash, `10 MB from ${name}, IPv${family} ${err}`)
    }
  }

  async #datagrams(t: Test, from: Host): Promise<void> {
    const name = box(other(from))
    for (const family of [4, 6]) {
      const { out, err } = await this.net.run(from, `ping -${family} -n -c 3 -i 0.05 -w 5 -s 4000 ${name}`)
      t.match(out, / 0% packet loss/, `ping -s 4000 ${name}, IPv${family} ${err}`)
    }
    const echo = await this.net.run(from, ['python3', '-c', ASK, name])
    t.equal(echo.out, '1000 answered\n1000 answered\n', `datagrams to ${name} ${echo.err}`)
  }

  async doctor(host: Host, check: string) {
    const { out } = await this.net.caracal(host, 'doctor', '--json')
    return doctorShape.parse(JSON.parse(out)).checks.find(({ name }) => name === check)
  }

  /** The cipher of the session, as the host says. */
  async sealing(host: Host): Promise<string | undefined> {
    const { out } = await this.net.caracal(host, 'hosts', '--json')
    return hostsShape.parse(JSON.parse(out)).hosts.find(({ name }) => name === other(host))?.session?.aead
  }
}

const OFF_TUN = [
  ['tun: tso', /no UDP offload, as `offload.tun: tso` switches it off: .*processor time/],
  ['tun: none', /no TCP offload, as `offload.tun: none` switches it off: .*six tenths of the throughput/],
  ['vnet-header: false', /no virtio_net_hdr.* as `offload.vnet-header: false` switches it off: .*six tenths/],
] as const
const OFF_UDP = [
  ['gso: false', 'udp offloads', /no GSO.* as `offload.gso: false` switches it off: .*a quarter of the throughput/],
  ['gro: false', 'udp offloads', /no GRO.* as `offload.gro: false` switches it off: .*about half of the throughput/],
  ['buffers: 106496', 'udp buffers', /^104 KB to receive, 104 KB to send.*`offload.buffers: 106496` .*nine tenths/],
] as const

test('without what the kernel and the processor may not have', async (t) => {
  const bench = await Bench.up(t)
  const off = (says: RegExp) => ({ result: 'warn', detail: says, remedy: /out of the configuration, then start/ })

  await t.test('with everything that is there', async (t) => {
    await bench.exercise(t)
    for (const host of HOSTS)
      t.equal(await bench.sealing(host), codecAddon().codecAeads()[0], 'the best that both offer')
  })

  for (const [i, [ofTun, tunSays]] of OFF_TUN.entries()) {
    const [ofUdp, check, udpSays] = OFF_UDP[i]!
    await t.test(`${ofTun} on one host, ${ofUdp} on the other`, async (t) => {
      await bench.configure({ h1: `offload: { ${ofTun} }\n`, h2: `offload: { ${ofUdp} }\n` })
      await bench.exercise(t)
      const findings = await Promise.all([bench.doctor('h1', 'tun offloads'), bench.doctor('h2', check)])
      t.match(findings, [off(tunSays), off(udpSays)])
    })
  }

  await t.test('without any of them on both hosts', async (t) => {
    const all = [...OFF_TUN.slice(1), ...OFF_UDP].map(([setting]) => setting).join(', ')
    await bench.configure({ h1: `offload: { ${all} }\n`, h2: `offload: { ${all} }\n` })
    await bench.exercise(t)
  })

  await t.test('a host that offers ChaCha20-Poly1305 only', async (t) => {
    await bench.configure({ h1: '', h2: 'aead: { offer: [chacha20-poly1305] }\n' })
    await bench.exercise(t)
    for (const host of HOSTS) t.equal(await bench.sealing(host), 'chacha20-poly1305', `as ${host} sees it`)
    t.match(
      await bench.doctor('h2', 'sealing'),
      off(/as `aead.offer: \[chacha20-poly1305\]` switches AES-256-GCM off: .*quarter/),
    )
  })
})
