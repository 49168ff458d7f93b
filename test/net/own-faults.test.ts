// A daemon that ends because of a fault of its own: what is open goes on with the next one.
import { openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { test } from 'tap'
import { withDaemon } from '../../cli/daemon.js'
import type { StatusResponse } from '../../daemon/control/shapes.js'
import { cliMain, Fixture } from './fixture.js'
import { Streams } from './streams.js'

const faults = new URL('native-faults.js', import.meta.url).href
const READY_MS = 30_000

const statusOf = (net: Fixture, host: string): Promise<StatusResponse> =>
  withDaemon({ socket: net.lab.path(host, 'control.sock') }, (daemon) => daemon.call('status', {}))

test('a daemon that ends because of a fault of its own leaves what is open to the next one', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const { lab } = net
  const streams = await Streams.open(t, net)
  await streams.flow()
  const broken = lab.path('h1', 'broken')

  /** A daemon on h1 that goes on with what is there; `ended` resolves with its exit status. */
  const start = async (): Promise<{ readonly ended: Promise<number | null> }> => {
    await lab.caracal('h1', 'down', '--keep')
    await lab.stopDaemon('h1')
    const log = openSync(lab.path('h1', 'daemon.log'), 'a')
    const words = [process.execPath, '--import', faults, cliMain, 'up', '--name', 'h1', '--dns', 'none']
    const env = { ...lab.environment('h1'), CARACAL_TEST_BROKEN: broken }
    const child = lab.spawn('h1', words, { stdio: ['ignore', log, log], env })
    t.teardown(() => child.kill('SIGKILL'))
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
    const isUp = async () => {
      const status = await statusOf(net, 'h1').catch(() => undefined)
      return status?.pid === child.pid
    }
    await net.until('the daemon is up', isUp, READY_MS)
    return { ended }
  }

  const ways = [
    {
      what: 'what the kernel says of links cannot be read',
      fails: 'netlinkRead',
      says: /not heard of any more: .*start/,
    },
    { what: 'packets cannot be read', fails: 'tunRead', says: /packet loop failed: .*start/ },
    { what: 'the device is removed', script: 'ip link del caracal0', says: /packet loop failed: .*start/ },
  ]
  for (const { what, fails, script, says } of ways) {
    await t.test(what, async (t) => {
      const { ended } = await start()
      await streams.flow()
      const { keeper, pid } = await statusOf(net, 'h1')
      t.ok(keeper.pid)
      if (fails !== undefined) writeFileSync(broken, fails)
      lab.script('h1', script ?? 'ip addr add 10.77.0.101/24 dev eth0')
      t.equal(await ended, 1, 'it ends with a status that has it started again')
      rmSync(broken, { force: true })
      t.match(readFileSync(lab.path('h1', 'daemon.log'), 'utf8'), says, 'and says what to do')
      if (script === undefined) {
        lab.script('h1', 'ip addr del 10.77.0.101/24 dev eth0')
        t.match(lab.script('h1', 'ip link show caracal0'), /LOWER_UP/, 'the device has its carrier')
      }
      await lab.startDaemon('h1')
      await streams.flow()
      const status = await statusOf(net, 'h1')
      t.not(status.pid, pid)
      t.ok((status.counters['flowsKept'] ?? 0) >= 2, 'it went on with the flows')
      if (script === undefined) t.equal(status.keeper.pid, keeper.pid, 'and with the keeper')
      else t.ok(status.keeper.pid, 'with a keeper of its own')
    })
  }
  const [client, server] = await streams.end()
  t.equal(server.hashReceived, client.hashSent)
  t.equal(client.hashReceived, server.hashSent)
  t.strictSame([...client.resets, ...server.resets], [])
})
