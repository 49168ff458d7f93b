// A million datagrams of garbage, a third of them mutations of a live session's own frames from the peer's own address, malformed DNS queries and
// oversized control messages: the daemon lives, a live flow goes on whole, memory does not grow.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'tap'
import { z } from 'zod'
import { Fixture } from './fixture.js'

const HALF = 500_000
const MUTATED = 160_000
const GROWTH_MAX = 5
/** Within that time an idle Node gives back what it does not need. */
const COLLECTED_MS = 30_000
const statusShape = z.object({ pid: z.number(), state: z.string(), drops: z.record(z.string(), z.number()) })

// Sends COUNT datagrams, the first MUTATED of each ten-thousand's share made from captured frames, with the peer's address and port as source.
const sender = `
import random, socket, struct, sys, time
source, target, port, pcap, count, mutated, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7])
rng = random.Random(seed)
raw = open(pcap, 'rb').read()
frames, at = [], 24
while at + 16 <= len(raw):
    length = struct.unpack('<I', raw[at + 8:at + 12])[0]
    packet = raw[at + 16:at + 16 + length]; at += 16 + length
    ip = packet[14:]
    if len(ip) > 28 and ip[9] == 17 and ip[12:16] == socket.inet_aton(source): frames.append(ip[28:28 + struct.unpack('>H', ip[24:26])[0] - 8])
assert len(frames) > 100, len(frames)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
def packet(payload):
    ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return ip + struct.pack('>HHHH', port, port, 8 + len(payload), 0) + payload
def mutate(frame):
    frame = bytearray(frame)
    kind = rng.randrange(5)
    if kind == 0: frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    elif kind == 1: frame = frame[:rng.randrange(len(frame))]
    elif kind == 2: frame += rng.randbytes(rng.randrange(1, 40))
    elif kind == 3: frame[8:16] = rng.randbytes(8)
    else:
        for _ in range(rng.randrange(1, 9)): frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)
started, sent = time.monotonic(), 0
for i in range(count):
    if i % 1000 == 0:
        ahead = i / 45000 - (time.monotonic() - started)
        if ahead > 0: time.sleep(ahead)
    if i * mutated // count != (i + 1) * mutated // count: payload = mutate(rng.choice(frames))[:1472]
    else:
        payload = rng.randbytes(rng.randrange(0, 120))
        if rng.randrange(2) and len(payload) > 1: payload = bytes([rng.randrange(1, 9), 1]) + payload[2:]
    s.sendto(packet(payload), (target, 0))
    sent += 1
print(sent)
`

// Numbered lines, paced, for as long as it is read.
const streamer = `
require('node:net').createServer((s) => {
  let line = 0
  const id = setInterval(() => s.write('line ' + line++ + '\\n'), 2)
  s.on('error', () => {}).on('close', () => clearInterval(id))
}).listen(8080, '0.0.0.0', () => console.log('ready'))`
const reader = `
const s = require('node:net').connect(80, 'stream.svc.internal')
let text = '', next = 0, whole = true
s.on('connect', () => console.log('connected'))
s.on('data', (c) => { text += c; const lines = text.split('\\n'); text = lines.pop(); for (const l of lines) if (l !== 'line ' + next++) whole = false })
s.on('error', (e) => console.log('error ' + e.code)).on('end', () => console.log('end'))
process.stdin.on('data', () => { console.log('whole ' + whole + ' ' + next) })`

test('garbage changes nothing', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  await net.start('h2', [process.execPath, '-e', streamer], /ready/)
  t.equal((await net.caracal('h2', 'expose', 'stream', '--tcp', '80:8080')).code, 0)
  await net.knows('h1', 'stream', ['h2'])

  const pcap = join(net.folder, 'frames.pcap')
  const tcpdump = await net.start(
    'h2',
    ['tcpdump', '--immediate-mode', '-U', '-n', '-i', 'eth0', '-w', pcap, 'udp port 7474'],
    /listening on/,
  )
  const child = net.lab.spawn('h1', [process.execPath, '-e', reader], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let printed = ''
  child.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  await net.until('the live flow is open', () => printed.includes('connected'))
  await net.until('enough frames are captured', () => readFileSync(pcap).length > 100_000)
  const captured = new Promise((resolve) => tcpdump.once('exit', resolve))
  tcpdump.kill('SIGINT')
  await captured

  const status = async () => statusShape.parse(JSON.parse((await net.caracal('h1', 'status', '--json')).out))
  const before = await status()
  const resident = () => {
    const text = readFileSync(`/proc/${before.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1]) / 1024
  }
  const [h1, h2] = [net.lab.host('h1').address, net.lab.host('h2').address]
  const dns = (await net.run('h1', "sed -n 's/^nameserver \\([0-9.]*\\).*/\\1/p' /etc/resolv.conf")).out
    .trim()
    .split('\n')[0]!

  const halves: number[] = []
  for (const seed of [1, 2]) {
    const words = ['python3', '-c', sender, h2, h1, '7474', pcap, String(HALF), String(MUTATED), String(seed)]
    // First: the buffers that it was read into stay for seconds until they are collected, and are not to be taken for what the datagrams leave behind.
    await oversized(net)
    const [sent] = await Promise.all([net.run('h2', words, 120_000), malformedDns(net, dns, seed)])
    t.equal(sent.out.trim(), String(HALF), sent.err)
    await net.until('the daemon has seen them all', async () => {
      const first = total((await status()).drops)
      await new Promise((resolve) => setTimeout(resolve, 200))
      return total((await status()).drops) === first
    })
    halves.push(resident())
  }
  const after = await status()
  t.equal(after.pid, before.pid, 'the daemon lives')
  const dropped = total(after.drops) - total(before.drops)
  t.ok(dropped > 0.9 * 2 * HALF, `nearly all were taken in and dropped with a reason: ${dropped}`)
  for (const reason of ['truncated', 'bad-type', 'bad-tag', 'unknown-lane']) {
    t.ok((after.drops[reason] ?? 0) > (before.drops[reason] ?? 0), `some as ${reason}`)
  }
  // What has grown stays; what only waits to be collected goes while the daemon is asked.
  const stays = async () => {
    await status()
    return resident() - halves[0]! <= GROWTH_MAX
  }
  await net.until(
    `no more than ${GROWTH_MAX} MB are left by the second half: ${halves.map((mb) => mb.toFixed(1)).join(', ')} MB after each`,
    stays,
    COLLECTED_MS,
  )

  child.stdin?.write('how\n')
  await net.until('the reader answers', () => /whole/.test(printed))
  const [, whole, lines] = /whole (true|false) (\d+)/.exec(printed) ?? []
  t.equal(whole, 'true', `the live flow went on whole: ${lines} lines`)
  t.ok(Number(lines) > 5_000, 'and did not stand still')
  t.notMatch(printed, /error|end/)
  t.equal(
    (await net.run('h1', 'dig +short +time=2 +tries=1 stream.svc.internal')).out.split('.')[0],
    '198',
    'the name server answers',
  )
})

const total = (drops: Record<string, number>) => Object.values(drops).reduce((sum, n) => sum + n, 0)

async function malformedDns(net: Fixture, server: string, seed: number): Promise<void> {
  const script = `
import random, socket, struct
rng = random.Random(${seed})
good = struct.pack('>HHHHHH', 1, 0x100, 1, 0, 0, 0) + b'\\x06stream\\x03svc\\x08internal\\x00\\x00\\x01\\x00\\x01'
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(5000):
    q = bytearray(good)
    for _ in range(rng.randrange(1, 6)): q[rng.randrange(len(q))] = rng.randrange(256)
    s.sendto(bytes(q[:rng.randrange(1, len(q) + 1)]) if i % 3 == 0 else bytes(q) + rng.randbytes(rng.randrange(9)), ('${server}', 53))
for i in range(20):
    c = socket.create_connection(('${server}', 53), 5)
    c.sendall(rng.randbytes(rng.randrange(1, 3000)))
    c.close()
print('done')`
  const { out, err } = await net.run('h1', ['python3', '-c', script])
  if (out.trim() !== 'done') throw new Error(err)
}

/** A control message far over the limit, half a line, and no JSON at all. */
async function oversized(net: Fixture): Promise<void> {
  const path = net.lab.path('h1', 'control.sock')
  for (const text of [
    `${'x'.repeat(10_000_000)}\n`,
    '{"op":',
    '\u0000\u0001 nonsense\n',
    `{"a":${'['.repeat(5_000)}\n`,
  ]) {
    await new Promise<void>((resolve) => {
      const socket = connect(path, () => socket.end(text))
      socket.on('error', () => resolve()).on('close', () => resolve())
      socket.resume()
    })
  }
}
