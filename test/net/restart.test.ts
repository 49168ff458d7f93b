// A daemon that is killed, started again, replaced, or started in vain meanwhile: what is open goes on, and nothing leaves in clear.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { runInside } from '../../cli/lab/holder.js'
import type { StatusResponse } from '../../daemon/control/shapes.js'
import { runs } from '../tools/processes.js'
import { Fixture } from './fixture.js'
import { Streams } from './streams.js'

const POOL = '198.18.0.0/15'

/** Packets to overlay addresses that come to the router, as everything would that finds no way of its own. */
const LEAKS = `table ip leaks {
  counter seen { }
  chain prerouting {
    type filter hook prerouting priority -300;
    ip daddr ${POOL} counter name seen
  }
}`

const statusOf = async (net: Fixture, host: string): Promise<StatusResponse> =>
  JSON.parse((await net.caracal(host, 'status', '--json')).out)

/** File of the host's flow table. */
const flowFile = ({ network, host }: StatusResponse) =>
  `/dev/shm/caracal-flows-${createHash('sha256').update(`${network.id} ${host.id}`).digest('hex').slice(0, 32)}`

test('what is open goes on over everything that becomes of a daemon', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const { lab } = net
  const onRouter = (script: string) => runInside(lab.switchHolder, script)
  onRouter(`nft -f - <<'END'\n${LEAKS}\nEND`)
  const leaked = () => Number(/packets (\d+)/.exec(onRouter('nft list counters'))?.[1])
  const streams = await Streams.open(t, net)
  await streams.flow()
  const before = await statusOf(net, 'h1')
  t.match(before.keeper, { on: true, descriptors: before.listen.length + before.lanes.count, takeovers: 0 })
  t.ok(existsSync(flowFile(before)))
  // What of the device and its routes ever goes away.
  const monitor = net.open('h1', ['ip', 'monitor', 'link', 'address', 'route'])
  let events = ''
  monitor.stdout?.on('data', (chunk: Buffer) => (events += chunk.toString()))
  let takeovers = 0

  const goesOn = async (t: Test, host: string) => {
    await streams.flow()
    const status = await statusOf(net, host)
    t.equal(status.keeper.pid === null, false, 'it has a keeper')
    t.ok((status.counters['flowsKept'] ?? 0) >= 2, 'it went on with the flows')
    t.equal(leaked(), 0, 'nothing has left in clear')
    if (host === 'h1') t.equal(status.keeper.takeovers, ++takeovers)
  }

  for (const host of ['h1', 'h2']) {
    await t.test(`kill -9 and up, on ${host}`, async (t) => {
      const { keeper } = await statusOf(net, host)
      await lab.stopDaemon(host, 'SIGKILL')
      t.match(lab.script(host, 'ip link show caracal0'), /LOWER_UP/, 'the device has its carrier')
      t.throws(() => lab.script(host, 'ping -c 1 -W 1 198.18.70.1'), 'nobody answers')
      await lab.startDaemon(host)
      await goesOn(t, host)
      t.equal((await statusOf(net, host)).keeper.pid, keeper.pid, 'it is the same keeper')
    })

    if (host === 'h1')
      await t.test('caracal down --keep and up', async (t) => {
        t.match(await lab.caracal(host, 'down', '--keep'), /its keeper holds [1-9]\d* flow/)
        await lab.stopDaemon(host)
        t.match(lab.script(host, 'ip link show caracal0'), /LOWER_UP/)
        await lab.startDaemon(host)
        await goesOn(t, host)
      })

    await t.test(`caracal up --replace, on ${host}`, async (t) => {
      const { pid } = await statusOf(net, host)
      await lab.startDaemon(host, ['--replace'])
      t.not((await statusOf(net, host)).pid, pid)
      await goesOn(t, host)
    })
  }

  await t.test('SIGUSR2, and starts in vain', async (t) => {
    await lab.stopDaemon('h1', 'SIGUSR2')
    await net.start('h1', ['python3', '-u', '-m', 'http.server', '9474', '--bind', '127.0.0.1'], /Serving/)
    const config = join(net.folder, 'bad.yaml')
    writeFileSync(config, 'metrics: 127.0.0.1:9474\n')
    const metrics = await net.caracal('h1', 'up', '--dns', 'none', '--config', config)
    t.match(metrics, { code: 1, err: /another process has the port/ })
    const socket = await net.caracal('h1', 'up', '--dns', 'none', '--socket', '/nowhere/socket')
    t.match(socket, { code: 1, err: /its directory does not exist/ })
    t.match(lab.script('h1', 'ip link show caracal0'), /LOWER_UP/, 'the keeper has everything')
    await lab.startDaemon('h1')
    // So had those that came to nothing.
    takeovers = (await statusOf(net, 'h1')).keeper.takeovers - 1
    await goesOn(t, 'h1')
  })

  await t.test('--replace in vain', async (t) => {
    const { pid } = await statusOf(net, 'h1')
    const other = await net.caracal('h1', 'up', '--replace', '--state', join(net.folder, 'other'))
    t.match(other, { code: 1, err: /has the state directory/ }, 'not of a daemon that is another host')
    t.equal((await statusOf(net, 'h1')).pid, pid, 'which goes on')
    const bad = join(net.folder, 'bad.yaml')
    t.match(await net.caracal('h1', 'up', '--replace', '--dns', 'none', '--config', bad), { code: 1 })
    await lab.startDaemon('h1', ['--replace'])
    takeovers = (await statusOf(net, 'h1')).keeper.takeovers - 1
    await goesOn(t, 'h1')
  })

  t.notMatch(events, /Deleted.*(caracal0|blackhole)/, 'nothing of the device was taken away and made again')
  const [client, server] = await streams.end()
  t.equal(server.hashReceived, client.hashSent)
  t.equal(client.hashReceived, server.hashSent)
  t.strictSame([...client.resets, ...server.resets], [])
  t.strictSame([client.sendErrors, server.sendErrors], [0, 0], 'and no program heard of it')
  t.match(
    JSON.parse((await net.caracal('h1', 'doctor', '--json')).out).checks.find(
      (check: { name: string }) => check.name === 'keeper',
    ),
    { result: 'ok' },
  )

  const { keeper } = await statusOf(net, 'h1')
  await lab.caracal('h1', 'down')
  await lab.stopDaemon('h1')
  t.notOk(existsSync(flowFile(before)), 'the flow table is gone')
  t.notOk(existsSync(lab.path('h1', 'state/keeper.sock')))
  t.notOk(runs(keeper.pid ?? 0), 'and the keeper')
  t.throws(() => lab.script('h1', 'ping -c 1 -W 1 198.18.70.1'))
  t.equal(leaked(), 1, 'from then on it would be seen')
})

test('what does not fit the configuration any more is set up anew', async (t) => {
  const net = await Fixture.up(t, ['h1'])
  const { lab } = net
  const { keeper } = await statusOf(net, 'h1')
  await lab.stopDaemon('h1', 'SIGKILL')
  await lab.startDaemon('h1', ['--tun', 'other0'])
  t.match(readFileSync(lab.path('h1', 'daemon.log'), 'utf8'), /"why":"it is the device caracal0".*set up anew/)
  const links = lab.script('h1', 'ip -o link; ip route show type blackhole; nft list tables')
  t.match(links, /other0/)
  t.notMatch(links, /caracal0/, 'and nothing is left of the first one')
  const next = await statusOf(net, 'h1')
  t.not(next.keeper.pid, keeper.pid)
  t.equal(next.keeper.takeovers, 0)
  await lab.caracal('h1', 'down')
})

test('a keeper that no daemon comes to withdraws our zone, then everything', async (t) => {
  let config = ''
  const net = await Fixture.up(t, ['h1'], { daemons: false, upArguments: () => ['--config', config] })
  const { lab } = net
  config = join(net.folder, 'caracal.yaml')
  writeFileSync(config, 'keeper: { withdraw-after: 1, give-up-after: 3 }\n')
  const resolv = lab.path('h1', 'resolv.conf')
  const own = readFileSync(resolv, 'utf8')
  const state = () => lab.script('h1', 'ip -o link show; ip route show table all type blackhole; nft list tables')
  const nothing = state()
  await lab.startDaemon('h1', ['--create', 'net'])
  const status = await statusOf(net, 'h1')
  t.not(readFileSync(resolv, 'utf8'), own)
  const up = state()
  await lab.stopDaemon('h1', 'SIGKILL')
  await net.until('our zone is withdrawn', () => readFileSync(resolv, 'utf8') === own)
  t.equal(state(), up, 'all else is there')
  await net.until('the keeper has ended', () => !runs(status.keeper.pid ?? 0))
  t.equal(state(), nothing)
  t.notOk(existsSync(flowFile(status)))
  t.notOk(existsSync(lab.path('h1', 'state/keeper.sock')))
  await lab.startDaemon('h1')
  t.match((await statusOf(net, 'h1')).keeper, { takeovers: 0 })
})
