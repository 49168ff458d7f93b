// Real programs reach real servers by name: bodies by hash, in both families and every pair of them.
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'
import { Fixture } from './fixture.js'

const iperfShape = z.object({
  end: z.object({
    sum_received: z.object({ bytes: z.number() }).optional(),
    sum: z.object({ packets: z.number(), lost_packets: z.number() }).optional(),
  }),
})

/** Datagrams that programs on the host have not read in time. */
async function overflown(net: Fixture, host: string): Promise<number> {
  const { out } = await net.run(host, 'nstat -asz UdpRcvbufErrors Udp6RcvbufErrors')
  const counts = [...out.matchAll(/RcvbufErrors\s+(\d+)/g)].map(([, count]) => Number(count))
  if (counts.length !== 2) throw new Error(`nstat printed ${out}`)
  return counts[0]! + counts[1]!
}

test('unmodified programs by name', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const site = join(net.folder, 'site')
  mkdirSync(site, { mode: 0o755 })
  const bodies = new Map<string, { hash: string; bytes: number }>()
  for (const [name, bytes] of [
    ['small', 1_000_000],
    ['large', 100_000_000],
  ] as const) {
    const body = randomBytes(bytes)
    bodies.set(name, { hash: createHash('sha256').update(body).digest('hex'), bytes })
    writeFileSync(join(site, name), body)
  }
  const conf = join(net.folder, 'nginx.conf')
  writeFileSync(
    conf,
    `daemon off; master_process off; user root; pid ${join(net.folder, 'nginx.pid')}; error_log stderr notice;
     events { }
     http { access_log ${join(net.folder, 'access.log')};
       server { listen 8080; root ${site}; }
       server { listen [::]:8086 ipv6only=on; root ${site}; }
       server { listen 127.0.0.1:8087; root ${site}; } }`,
  )
  await net.start('h2', ['nginx', '-c', conf, '-p', net.folder])
  await net.listening('h2', 8080)
  await net.start('h2', ['iperf3', '-s', '--forceflush'], /listening/i)
  await net.start(
    'h2',
    ['redis-server', '--port', '6379', '--protected-mode', 'no', '--save', '', '--dir', net.folder],
    /Ready to accept/,
  )
  const exposed = [
    ['web', '--tcp', '80:8080'],
    ['web6', '--tcp', '80:8086'],
    ['web-loopback', '--tcp', '80:8087'],
    ['perf', '--tcp', '5201', '--udp', '5201'],
    ['store', '--tcp', '6379'],
  ]
  for (const words of exposed) t.equal((await net.caracal('h2', 'expose', ...words)).code, 0, `expose ${words[0]}`)
  for (const [name] of exposed) await net.knows('h1', name!, ['h2'])

  const download = (options: string, url: string) =>
    net.run('h1', `curl -sS -f --max-time 60 ${options} ${url} | sha256sum`)

  await t.test('nginx: 1 MB and 100 MB, IPv4 and IPv6', async (t) => {
    for (const name of ['small', 'large']) {
      for (const family of ['-4', '-6']) {
        const { out, err } = await download(family, `http://web.svc.internal/${name}`)
        t.equal(out.slice(0, 64), bodies.get(name)!.hash, `${name} by curl ${family} ${err}`)
      }
    }
  })

  await t.test('a server of one family is reached by clients of both', async (t) => {
    for (const service of ['web', 'web6', 'web-loopback']) {
      for (const family of ['-4', '-6']) {
        const { out, err } = await download(family, `http://${service}.svc.internal/small`)
        t.equal(out.slice(0, 64), bodies.get('small')!.hash, `${service} by curl ${family} ${err}`)
      }
    }
  })

  await t.test('iperf3 both ways and UDP', async (t) => {
    for (const options of ['', '-R', '-6', '-6 -R']) {
      const { out, err } = await net.run('h1', `iperf3 -J -c perf.svc.internal -t 2 ${options}`)
      const bytes = iperfShape.parse(JSON.parse(out)).end.sum_received?.bytes ?? 0
      t.ok(bytes > 5_000_000, `tcp ${options}: ${bytes} bytes ${err}`)
    }
    for (const options of ['-4', '-6']) {
      const before = await overflown(net, 'h2')
      const { out } = await net.run('h1', `iperf3 -J -c perf.svc.internal ${options} -u -b 20M -l 1200 -t 2`)
      const sum = iperfShape.parse(JSON.parse(out)).end.sum
      t.ok(sum !== undefined && sum.packets > 3_000, `udp ${options}: ${sum?.packets} packets`)
      // What has come to the server's socket and found it full is the server's loss.
      const unread = (await overflown(net, 'h2')) - before
      t.ok((sum?.lost_packets ?? Infinity) <= unread, `udp ${options}: none lost, ${unread} not read`)
    }
  })

  await t.test('large datagrams and pings cross whole', async (t) => {
    for (const size of [56, 1372, 4000, 20000]) {
      for (const family of ['-4', '-6']) {
        const { code, out } = await net.run('h1', `ping ${family} -n -c 3 -i 0.05 -w 5 -s ${size} web.svc.internal`)
        t.equal(code, 0, `ping ${family} -s ${size}: ${out.split('\n').at(-3)}`)
        t.match(out, / 0% packet loss/, 'all of them')
      }
    }
  })

  await t.test('ping of a service, of an instance, of a host', async (t) => {
    for (const name of ['web.svc.internal', 'web.at.h2.svc.internal', 'h2.host.svc.internal', 'h1.host.svc.internal']) {
      const { code, out } = await net.run('h1', `ping -n -c 2 -i 0.05 -w 5 ${name}`)
      t.equal(code, 0, `${name} ${out}`)
    }
    const { code } = await net.run('h1', 'curl -sS --max-time 5 http://h2.host.svc.internal:8080/small')
    t.equal(code, 7, 'ports of a host are refused: only exposed services are reached')
  })

  await t.test('Redis by name', async (t) => {
    const value = randomBytes(3_000).toString('hex')
    const set = await net.run('h1', `redis-cli -h store.svc.internal set key ${value}`)
    t.equal(set.out.trim(), 'OK', set.err)
    t.equal((await net.run('h1', 'redis-cli -h store.svc.internal get key')).out.trim(), value)
  })

  await t.test('dig against the name server', async (t) => {
    const dig = async (words: string) => (await net.run('h1', `dig +tries=1 +time=2 ${words}`)).out
    t.match(await dig('web.svc.internal A'), /status: NOERROR[\s\S]*ANSWER: 1[\s\S]*\sA\s198\.1[89]\./)
    t.match(await dig('web.svc.internal AAAA'), /status: NOERROR[\s\S]*ANSWER: 1[\s\S]*\sAAAA\sfd/)
    t.match(await dig('WeB.sVc.internal A'), /status: NOERROR[\s\S]*WeB\.sVc\.internal/, 'case is kept')
    t.match(await dig('web.svc.internal MX'), /status: NOERROR[\s\S]*ANSWER: 0/, 'NODATA for another type')
    t.match(await dig('nothing.svc.internal A'), /status: NXDOMAIN[\s\S]*SOA/)
    t.match(await dig('example.com A'), /status: REFUSED/)
    t.match(await dig('+tcp web.svc.internal A'), /status: NOERROR[\s\S]*ANSWER: 1/)
    t.match(await dig('+bufsize=1232 web.svc.internal A'), /EDNS: version: 0/)
    t.match(await dig('+short h2.host.svc.internal A'), /^198\.1[89]\./)
    const first = await dig('+short web.svc.internal A')
    await net.lab.stopDaemon('h1')
    await net.lab.startDaemon('h1')
    await net.knows('h1', 'web', ['h2'])
    t.equal(await dig('+short web.svc.internal A'), first, 'addresses are stable across a restart')
  })
})
