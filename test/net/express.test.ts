// Packets that come alone pass by native code, with all features of the kernel and without them, and all is as if they did not: a dump shows every one of them, and what is switched
// off is not done.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { doctorShape, statusShape } from '../../daemon/control/shapes.js'
import { Fixture } from './fixture.js'

const HOSTS = ['h1', 'h2'] as const
const PINGS = 40
/** Answers each line of a TCP connection, and each datagram, with what it was. */
const SERVER = `
import socket, threading
tcp, udp = socket.create_server(('', 9000)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('', 9000))
def datagrams():
    while True: udp.sendto(*udp.recvfrom(65536))
def echo(connection):
    while data := connection.recv(65536): connection.sendall(data)
threading.Thread(target=datagrams, daemon=True).start()
print('listening', flush=True)
while True: threading.Thread(target=echo, args=(tcp.accept()[0],), daemon=True).start()
`
/** Turns of one packet there and one back, over both protocols: of different sizes, each compared. */
const CLIENT = `
import os, socket, sys, time
tcp = socket.create_connection((sys.argv[1], 9000), 5)
tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((sys.argv[1], 9000))
udp.settimeout(5)
for turn in range(${PINGS}):
    data = os.urandom(1 + 29 * turn)
    tcp.sendall(data)
    got = b''
    while len(got) < len(data): got += tcp.recv(65536)
    assert got == data, 'TCP, turn %d' % turn
    udp.send(data)
    assert udp.recv(65536) == data, 'UDP, turn %d' % turn
    time.sleep(.002)
print('whole')
`

class Pair {
  constructor(readonly net: Fixture) {}

  static async up(t: Test): Promise<Pair> {
    const net = await Fixture.up(t, HOSTS)
    await net.start('h2', ['python3', '-c', SERVER], /listening/)
    const { code, err } = await net.caracal('h2', 'expose', 'echo', '--tcp', '9000', '--udp', '9000')
    if (code !== 0) throw new Error(err)
    const pair = new Pair(net)
    await net.knows('h1', 'echo', ['h2'])
    return pair
  }

  async configure(text: string): Promise<void> {
    const file = join(this.net.folder, 'settings.yaml')
    writeFileSync(file, text)
    await Promise.all(
      HOSTS.map(async (host) => {
        await this.net.lab.stopDaemon(host)
        await this.net.lab.startDaemon(host, ['--config', file])
      }),
    )
    await this.net.knows('h1', 'echo', ['h2'])
  }

  async status(host: string) {
    return statusShape.parse(JSON.parse((await this.net.caracal(host, 'status', '--json')).out))
  }

  /** What has passed at both hosts while programs talked. */
  async talk(t: Test): Promise<number> {
    const passed = async () => {
      const all = await Promise.all(HOSTS.map((host) => this.status(host)))
      return all.reduce((sum, { counters }) => sum + counters.expressPacketsOut! + counters.expressPacketsIn!, 0)
    }
    const before = await passed()
    const { out, err } = await this.net.run('h1', ['python3', '-c', CLIENT, 'echo.svc.internal'])
    t.equal(out, 'whole\n', err)
    for (const family of [4, 6]) {
      const words = ['ping', `-${family}`, '-n', '-c', String(PINGS), '-i', '0.005', '-w', '10', 'h2.host.svc.internal']
      const ping = await this.net.run('h1', words)
      t.match(ping.out, / 0% packet loss/, `IPv${family} ${ping.err}`)
    }
    return (await passed()) - before
  }
}

test('packets that come alone', async (t) => {
  const pair = await Pair.up(t)

  await t.test('pass at once', async (t) => {
    t.ok((await pair.status('h1')).express)
    const passed = await pair.talk(t)
    // There and back, out of one host and into the other, four times: datagrams, TCP, and echoes of both families.
    t.ok(passed > PINGS * 4 * 2, `${passed} packets`)
    const { counters, flows } = await pair.status('h1')
    t.ok(flows.open > 0 && counters.tunPacketsIn! >= counters.expressPacketsOut!, 'they are counted as all others are')
  })

  await t.test('leave room for what is due: paths are probed while they pass, and answered', async (t) => {
    const before = (await pair.status('h1')).counters
    const ping = ['ping', '-4', '-n', '-q', '-c', '2500', '-i', '0.002', '-w', '20', 'h2.host.svc.internal']
    t.match((await pair.net.run('h1', ping)).out, / 0% packet loss/)
    const { counters } = await pair.status('h1')
    const [sent, echoed] = (['probesSent', 'probesEchoed'] as const).map((name) => counters[name]! - before[name]!)
    // One a second while the peer's packets keep coming.
    t.ok(sent! >= 3, `${sent} probes`)
    t.ok(echoed! >= 3, `${echoed} answered`)
  })

  await t.test('do not while a dump is open, which shows all of them', async (t) => {
    const count = 100
    const dumping = pair.net.caracal('h1', 'dump', '-c', String(count), 'icmp')
    await pair.net.until('the dump is open', async () => !(await pair.status('h1')).express)
    const ping = ['ping', '-4', '-n', '-c', '60', '-i', '0.01', '-w', '10', 'h2.host.svc.internal']
    t.match((await pair.net.run('h1', ping)).out, / 0% packet loss/)
    const { out } = await dumping
    t.equal(out.trim().split('\n').length, count, 'request and answer, at the TUN and on the wire')
    await pair.net.until('it goes on afterwards', async () => (await pair.status('h1')).express)
  })

  await t.test('pass without what the kernel may not have', async (t) => {
    await pair.configure('offload: { tun: none, vnet-header: false, gso: false, gro: false }\n')
    const passed = await pair.talk(t)
    t.ok(passed > PINGS * 4 * 2, `${passed} packets`)
  })

  await t.test('do not where it is switched off', async (t) => {
    await pair.configure('loop: { express: false }\n')
    t.equal((await pair.status('h1')).express, false)
    t.equal(await pair.talk(t), 0)
    const { checks } = doctorShape.parse(JSON.parse((await pair.net.caracal('h1', 'doctor', '--json')).out))
    t.match(checks.find(({ name }) => name === 'express')?.detail, /`loop.express: false` switches it off/)
  })

  await t.test('pass in the main thread', async (t) => {
    await pair.configure('loop: { thread: main }\n')
    const passed = await pair.talk(t)
    t.ok(passed > PINGS * 4 * 2, `${passed} packets`)
  })
})
