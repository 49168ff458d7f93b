// A local program sends UDP GSO messages of as many tiny segments as the kernel takes, which reach the daemon's sockets whole: what else comes meanwhile arrives, each segment is
// dropped with a reason, and the threads of all lanes live.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { statusShape } from '../../daemon/control/shapes.js'
import { Fixture } from './fixture.js'

const MESSAGES = 1_500
/** UDP_MAX_SEGMENTS of newer kernels, and of older ones. */
const SEGMENTS = [128, 64]
const DATAGRAMS = 400

const sender = `
import socket, sys
port, sent = int(sys.argv[1]), 0
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('127.0.0.1', port))
for segments in ${JSON.stringify(SEGMENTS)}:
    try:
        for i in range(${MESSAGES}):
            size = 1 + i % 16
            s.setsockopt(17, 103, size)
            s.send(bytes([6, 1] * (size * segments))[:size * segments])
            sent += segments
        break
    except OSError: pass
print(sent)
`
const echo = `
const socket = require('node:dgram').createSocket('udp4')
socket.on('message', (bytes, { port, address }) => socket.send(bytes, port, address))
socket.bind(9000, '0.0.0.0', () => console.log('ready'))`
const asker = `
const socket = require('node:dgram').createSocket('udp4')
let sent = 0, back = 0
const timer = setInterval(() => {
  if (sent < ${DATAGRAMS}) socket.send(String(sent++), 90, 'echo.svc.internal')
  else clearInterval(timer)
}, 5)
socket.on('message', () => { if (++back === ${DATAGRAMS}) { console.log('all'); process.exit() } })
setTimeout(() => { console.log(back + ' of ' + sent); process.exit() }, 20000)`

test('messages of very many segments', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const file = join(net.folder, 'h1.yaml')
  writeFileSync(file, 'loop: { lanes: 2 }\n')
  await net.lab.stopDaemon('h1')
  await net.lab.startDaemon('h1', ['--config', file])
  const status = async () => statusShape.parse(JSON.parse((await net.caracal('h1', 'status', '--json')).out))
  await net.start('h1', [process.execPath, '-e', echo], /ready/)
  t.equal((await net.caracal('h1', 'expose', 'echo', '--udp', '90:9000')).code, 0)
  await net.knows('h2', 'echo', ['h1'])

  const before = await status()
  const ports = [7474, ...before.lanes.ports]
  t.equal(ports.length, 2)
  const [asked, ...senders] = await Promise.all([
    net.run('h2', [process.execPath, '-e', asker]),
    ...ports.map((port) => net.run('h1', ['python3', '-c', sender, String(port)])),
  ])
  t.equal(asked.out.trim(), 'all', 'every datagram of a flow came through')
  const sent = senders.map(({ out, err }) => {
    t.equal(err, '')
    return Number(out)
  })
  t.ok(
    sent.every((n) => n >= 64 * MESSAGES),
    `${sent.join(' and ')} segments were sent`,
  )
  const wanted = sent.reduce((sum, n) => sum + n, 0)
  const dropped = async () => {
    const { drops } = await status()
    return ['truncated', 'bad-version', 'unknown-lane', 'bad-frame'].reduce(
      (sum, reason) => sum + (drops[reason] ?? 0) - (before.drops[reason] ?? 0),
      0,
    )
  }
  await net.until('each segment is counted', async () => (await dropped()) >= wanted)
  t.equal(await dropped(), wanted, 'once')
  t.equal((await status()).pid, before.pid)
  t.notMatch(readFileSync(net.lab.path('h1', 'daemon.log'), 'utf8'), /could not be handled|thread of a lane failed/)
})

const flood = `
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(count):
    try: s.sendto(bytes(1000), (address, port))
    except OSError: pass
`

test('what the kernel drops while the daemon does not read is told', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  await net.start('h2', [process.execPath, '-e', echo], /ready/)
  t.equal((await net.caracal('h2', 'expose', 'echo', '--udp', '90:9000')).code, 0)
  await net.knows('h1', 'echo', ['h2'])
  const address = (await net.run('h1', 'getent ahostsv4 echo.svc.internal')).out.split(' ')[0]!
  t.match(address, /^198\./)
  const status = async () => statusShape.parse(JSON.parse((await net.caracal('h1', 'status', '--json')).out))
  const before = await status()
  t.match(before.counters, { tunPacketsLost: 0, wireDatagramsLost: 0 })
  process.kill(before.pid, 'SIGSTOP')
  try {
    const send = (to: string, port: number, count: number) =>
      net.run('h1', ['python3', '-c', flood, to, String(port), String(count)])
    t.equal((await send(address, 90, 5_000)).code, 0)
    t.equal((await send('127.0.0.1', 7474, 40_000)).code, 0)
  } finally {
    process.kill(before.pid, 'SIGCONT')
  }
  const { counters } = await status()
  t.ok(counters.tunPacketsLost! > 0, `${counters.tunPacketsLost} packets`)
  t.ok(counters.wireDatagramsLost! > 0, `${counters.wireDatagramsLost} datagrams`)
})
