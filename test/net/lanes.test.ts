// Several lanes, each a thread with a queue of the TUN device and a UDP port of its own: whatever crosses, crosses whole and in its order.
import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { doctorShape, hostsShape, statusShape } from '../../daemon/control/shapes.js'
import { soak, SOAK_HOSTS } from '../bench/soak-run.js'
import { cliMain, Fixture } from './fixture.js'
import type { TakenOver } from './lane-probe.js'
import { Namespaces } from './namespaces.js'

const LANES = 3
const STREAMS = 8
const BODY_BYTES = 4_000_000
const SOAK = { bytes: 300e6, seconds: 8 }

class Hosts {
  constructor(readonly net: Fixture) {}

  /** Starts the daemons anew with so many lanes each. */
  async lanes(of: Readonly<Record<string, number>>): Promise<void> {
    const { net } = this
    await Promise.all(
      Object.entries(of).map(async ([host, lanes]) => {
        const file = join(net.folder, `${host}.yaml`)
        writeFileSync(file, `loop: { lanes: ${lanes} }\n`)
        await net.lab.stopDaemon(host)
        await net.lab.startDaemon(host, ['--config', file])
      }),
    )
  }

  /** Lanes of a host's session with another one that frames can go by; 0: no session. */
  async working(host: string, other: string): Promise<number> {
    const { out } = await this.net.caracal(host, 'hosts', '--json')
    return hostsShape.parse(JSON.parse(out)).hosts.find(({ name }) => name === other)?.session?.lanesWorking ?? 0
  }

  async work(host: string, other: string, lanes: number): Promise<void> {
    await this.net.until(`${lanes} lanes from ${host} to ${other} work`, async () => {
      return (await this.working(host, other)) === lanes
    })
  }

  async status(host: string) {
    return statusShape.parse(JSON.parse((await this.net.caracal(host, 'status', '--json')).out))
  }

  /** Several downloads at once; the hashes of what came. */
  async download(host: string, family: 4 | 6): Promise<string[]> {
    const get = `curl -sS -f -${family} -m 30 http://box.svc.internal/body | sha256sum`
    const all = Array.from({ length: STREAMS }, () => this.net.run(host, get))
    return (await Promise.all(all)).map(({ out, err }) => out.slice(0, 64) + err)
  }
}

test('hosts with several lanes', async (t) => {
  const net = await Fixture.up(t, [...SOAK_HOSTS, 'h3'])
  const hosts = new Hosts(net)
  const body = randomBytes(BODY_BYTES)
  writeFileSync(join(net.folder, 'body'), body)
  const conf = join(net.folder, 'nginx.conf')
  writeFileSync(
    conf,
    `daemon off; master_process off; user root; pid ${join(net.folder, 'pid')}; error_log stderr notice; events { }
     http { access_log off; server { listen 8080; listen [::]:8080; root ${net.folder}; } }`,
  )
  await net.start('h2', ['nginx', '-c', conf, '-p', net.folder])
  await net.listening('h2', 8080)
  t.equal((await net.caracal('h2', 'expose', 'box', '--tcp', '80:8080')).code, 0)
  const hashes = Array<string>(STREAMS).fill(createHash('sha256').update(body).digest('hex'))
  await hosts.lanes({ h1: LANES, h2: LANES })

  await t.test('all lanes carry frames, and everything arrives', async (t) => {
    await net.knows('h1', 'box', ['h2'])
    await hosts.work('h1', 'h2', LANES)
    await hosts.work('h2', 'h1', LANES)
    const before = await hosts.status('h2')
    for (const family of [4, 6] as const) t.strictSame(await hosts.download('h1', family), hashes, `IPv${family}`)
    const after = await hosts.status('h2')
    const ports = Array.from({ length: LANES - 1 }, (_, i) => 7475 + i)
    t.match(after.lanes, { count: LANES, ports })
    const frames = after.lanes.framesOut - before.lanes.framesOut
    t.ok(frames > 100, `${frames} frames left by the lanes above the first`)
  })

  await t.test('a host with one lane and one with several', async (t) => {
    await net.knows('h3', 'box', ['h2'])
    for (const family of [4, 6] as const) t.strictSame(await hosts.download('h3', family), hashes, `IPv${family}`)
    t.equal(await hosts.working('h3', 'h2'), 1)
  })

  await t.test('a dump shows everything, and the lanes go on after it', async (t) => {
    const dump = await net.start('h1', [process.execPath, cliMain, 'dump', '--json', '--point', 'wire'], /./)
    let shown = 0
    dump.stdout?.on('data', (chunk: Buffer) => (shown += chunk.toString().split('\n').length - 1))
    t.strictSame(await hosts.download('h1', 4), hashes)
    await net.until('the dump has shown the downloads', () => shown > 1_000)
    dump.kill('SIGINT')
    const before = (await hosts.status('h1')).lanes.framesOut
    await net.until('the lanes carry frames again', async () => {
      t.strictSame(await hosts.download('h1', 4), hashes)
      return (await hosts.status('h1')).lanes.framesOut > before
    })
  })

  await t.test('everything at once keeps its order', async (t) => {
    const report = await soak(net.lab, SOAK)
    t.comment(JSON.stringify(report))
    t.strictSame(report.errors, [])
    t.equal(report.datagrams.changed, 0)
    t.equal(report.datagrams.reordered, 0)
    t.ok(report.streams.done > 0 && report.short.done > 0)
    t.ok(report.datagrams.sent > report.datagrams.lost)
  })

  await t.test('what a firewall does not let through goes by the first lane', async (t) => {
    const drop = `nft 'add table inet guard' &&
      nft 'add chain inet guard arriving { type filter hook input priority 0; }' &&
      nft 'add rule inet guard arriving udp dport 7475-7490 drop'`
    t.equal((await net.run('h2', drop)).code, 0)
    t.strictSame(await hosts.download('h1', 4), hashes, 'while it is found out')
    await net.until('the lanes are given up', async () => {
      t.strictSame(await hosts.download('h1', 4), hashes)
      return (await hosts.working('h1', 'h2')) === 1
    })
    t.strictSame(await hosts.download('h1', 6), hashes)
    for (const [host, other] of [
      ['h1', 'h2'],
      ['h2', 'h1'],
    ] as const)
      await net.until(`doctor says so on ${host}`, async () => {
        const { out } = await net.caracal(host, 'doctor', '--json')
        const lanes = doctorShape.parse(JSON.parse(out)).checks.find(({ name }) => name === 'lanes')
        return (
          lanes?.result === 'warn' &&
          lanes.detail.includes(`${other} is reached by 1 of ${LANES}`) &&
          /7475/.test(lanes.remedy)
        )
      })
  })
})

test('the thread of a lane ends: its packets go on, and none is lost that is not counted', (t) => {
  const spaces = new Namespaces(t)
  const probe = fileURLToPath(new URL('lane-probe.js', import.meta.url))
  const result: TakenOver = JSON.parse(spaces.run(spaces.add(), `${process.execPath} ${probe}`))
  t.comment(JSON.stringify(result))
  t.ok(result.decided > 0 && result.taken > 0)
  t.equal(result.first + result.decided + result.taken, result.sent)
  t.ok(result.received + result.failed >= result.decided)
  t.ok(result.inOrder)
  t.end()
})
