// Attacks on where a host is taken to be, by somebody on the way who sees all frames and sends any: refused, counted by reason, and nobody's connection is harmed. What only another member can
// send is in test/sim/move-attacks.test.ts.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test, type Test } from 'tap'
import { z } from 'zod'
import { enter } from '../../cli/lab/holder.js'
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { statusShape } from '../../daemon/control/protocol.js'
import type { DropReason } from '../../lib/wire/drop.js'
import { Crowd } from './moves/crowd.js'
import { moveKinds } from './moves/kinds.js'
import { MoveNet } from './moves/move-net.js'

tap.setTimeout(240_000)

const CONNECTIONS = 50
const LIMIT_MS = 20_000
const HEADERS = 28
const [CLIENT, SERVER] = ['h1', 'h2']
/** Nobody is there. */
const [STRANGER, ANOTHER] = ['10.80.77.7', '10.80.77.8']
const cliMain = fileURLToPath(new URL('../../cli/main.js', import.meta.url))
const countersShape = z.object({
  nftables: z.array(
    z.object({ counter: z.object({ name: z.string(), packets: z.number(), bytes: z.number() }).optional() }),
  ),
})

/** Sends the UDP payloads of a capture from an address and port to another one; says how many. */
const REPLAY = `
import socket, struct, sys, time
pcap, source, target, port = sys.argv[1], sys.argv[2], sys.argv[3], 7474
raw, frames, at = open(pcap, 'rb').read(), [], 24
while at + 16 <= len(raw):
    length = struct.unpack('<I', raw[at + 8:at + 12])[0]
    ip = raw[at + 16 + 14:at + 16 + length]; at += 16 + length
    if len(ip) > 28 and ip[9] == 17: frames.append(ip[28:20 + struct.unpack('>H', ip[24:26])[0]])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for n, payload in enumerate(frames):
    ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 28 + len(payload), 0, 0x4000, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    s.sendto(ip + struct.pack('>HHHH', port, port, 8 + len(payload), 0) + payload, (target, 0))
    if n % 50 == 49: time.sleep(0.005)
print(len(frames))
`

const counterName = (way: 'from' | 'to', address: string) => `${way}_${address.replaceAll('.', '_')}`

/** Two hosts with a crowd of connections, and a router between them that is not to be trusted. */
async function onTheWay(t: Test) {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-attacks-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  // Each frame is a datagram, so that a capture has them one by one.
  const config = join(folder, 'config.yaml')
  writeFileSync(config, 'offload: { gso: false }\n')
  const upArguments = () => ['--config', config]
  const net = await MoveNet.up({ directory: join(folder, 'lab'), hosts: [CLIENT, SERVER], networks: 1, upArguments })
  t.teardown(() => net.close())
  const crowd = await Crowd.open(net, { connections: CONNECTIONS, senders: CONNECTIONS })
  t.teardown(() => crowd.close())
  net.onRouter(
    'nft',
    [
      'add table ip watch',
      'add chain ip watch in { type filter hook prerouting priority -300 ; }',
      'add chain ip watch out { type filter hook postrouting priority 300 ; }',
      ...[STRANGER, ANOTHER].flatMap((address) => [
        `add counter ip watch ${counterName('to', address)}`,
        `add counter ip watch ${counterName('from', address)}`,
        `add rule ip watch in ip daddr ${address} udp sport 7474 counter name ${counterName('to', address)}`,
        `add rule ip watch out ip saddr ${address} udp dport 7474 counter name ${counterName('from', address)}`,
      ]),
    ].join('\n'),
  )
  /** UDP payload that went from, and to, where nobody is. */
  const strange = (address: string) => {
    const printed = net.onRouter('nft', '-j', 'list', 'counters', 'table', 'ip', 'watch')
    const { nftables } = countersShape.parse(JSON.parse(printed))
    const bytes = (way: 'from' | 'to') => {
      const { counter } = nftables.find((one) => one.counter?.name === counterName(way, address)) ?? {}
      return (counter?.bytes ?? 0) - HEADERS * (counter?.packets ?? 0)
    }
    return { from: bytes('from'), to: bytes('to') }
  }
  const drops = async (reason: DropReason) => {
    const status = statusShape.parse(await (await net.control(SERVER)).call('status', {}))
    return status.drops[reason] ?? 0
  }
  /** Where the server's frames to the client go. */
  const inUse = () => net.inUse(SERVER, CLIENT)
  const real = () => `${net.address(CLIENT)}:7474`
  return { folder, net, crowd, strange, drops, inUse, real }
}

type OnTheWay = Awaited<ReturnType<typeof onTheWay>>

/** `caracal dump --point drop` on the server: the reasons that it has shown. */
function dropsShown(t: Test, net: MoveNet) {
  const words = [process.execPath, cliMain, 'dump', '--point', 'drop', '--json']
  const child = net.lab.spawn(SERVER, words, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const reasons = new Set<string>()
  let rest = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) reasons.add(JSON.parse(line).verdict)
  })
  return reasons
}

/** All that the client sends while its address changes: the MOVE is among it. */
async function record({ folder, net, crowd }: OnTheWay): Promise<string> {
  const file = join(folder, 'recorded.pcap')
  const words = [...enter(net.lab.switchHolder), 'tcpdump', '--immediate-mode', '-U', '-n', '-i', 'r0h1', '-w', file]
  const child = spawn(words[0]!, [...words.slice(1), 'inbound', 'and', 'udp', 'port', '7474'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => /listening on/.test(chunk.toString()) && resolve())
    child.once('exit', () => reject(new Error('tcpdump has ended')))
  })
  const before = (await (await net.control(SERVER)).call('status', {})).counters['movesReceived']!
  const { errors } = await crowd.through(async () => void (await moveKinds.vanish.make(net)), LIMIT_MS)
  if (errors.length > 0) throw new Error(errors.join('; '))
  const after = (await (await net.control(SERVER)).call('status', {})).counters['movesReceived']!
  if (after <= before) throw new Error('no MOVE came')
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGINT')
  await ended
  return file
}

test('a recorded MOVE, and all that came with it, sent again', async (t) => {
  const way = await onTheWay(t)
  const { net, crowd, strange, drops, inUse, real } = way
  const first = net.address(CLIENT)
  const file = await record(way)
  t.equal(await inUse(), real())
  const reasons = dropsShown(t, net)
  const replay = (source: string) =>
    Number(net.onRouter('python3', '-c', REPLAY, file, source, net.address(SERVER)).trim())
  const moves = async () => (await (await net.control(SERVER)).call('status', {})).counters['movesReceived']
  const taken = await moves()
  for (const [what, source] of [
    ['from where it was', first],
    ['from where it is', net.address(CLIENT)],
    ['from somewhere else', STRANGER],
  ] as const) {
    const before = await drops('replayed')
    let sent = 0
    const { errors } = await crowd.through(async () => (sent = replay(source)), LIMIT_MS)
    t.ok(sent > CONNECTIONS, `${sent} frames, ${what}`)
    t.strictSame(errors, [], 'no connection is harmed')
    t.ok(await net.within(LIMIT_MS, async () => (await drops('replayed')) >= before + sent), 'each is counted')
    t.equal(await inUse(), real(), 'the client is where it was')
  }
  t.equal(await moves(), taken, 'none of them was a message')
  t.ok(await net.within(LIMIT_MS, () => reasons.has('replayed')), `the dump shows it: ${[...reasons].join(', ')}`)
  const { from, to } = strange(STRANGER)
  t.ok(from > 0)
  t.equal(to, 0, 'where it came from somewhere else, nothing was sent')

  await t.test('after a session change', async (t) => {
    await net.lab.stopDaemon(SERVER)
    await net.lab.startDaemon(SERVER)
    t.ok(await net.within(LIMIT_MS, async () => (await inUse()) === real()), 'there is a session again')
    const before = await drops('unknown-lane')
    const sent = replay(first) + replay(STRANGER)
    t.ok(await net.within(LIMIT_MS, async () => (await drops('unknown-lane')) >= before + sent), 'each is counted')
    t.equal(await inUse(), real())
    t.equal(strange(STRANGER).to, 0)
  })
})

test('a spoofed source', async (t) => {
  const { net, crowd, strange, drops, inUse, real } = await onTheWay(t)
  const reasons = dropsShown(t, net)
  const client = `oif r0h2 ip saddr ${net.address(CLIENT)} udp dport 7474`
  const rules = (...lines: string[]) =>
    net.onRouter(
      'nft',
      ['add table ip spoof', 'delete table ip spoof', 'add table ip spoof']
        .concat('add chain ip spoof out { type filter hook postrouting priority 200 ; }')
        .concat(lines.map((line) => `add rule ip spoof out ${client} ${line}`))
        .join('\n'),
    )

  await t.test('all that the client sends comes from an address that is not its own', async (t) => {
    const elsewhere = new Set<string | undefined>()
    const { errors } = await crowd.through(async () => {
      rules(`ip saddr set ${STRANGER}`)
      for (const until = performance.now() + 2_000; performance.now() < until;) elsewhere.add(await inUse())
      rules()
    }, LIMIT_MS)
    t.strictSame(errors, [])
    t.strictSame([...elsewhere], [real()], 'frames never went anywhere else')
    const { from, to } = strange(STRANGER)
    t.ok(from > 0 && to > 0, `${to} bytes went there to find out, for ${from}`)
    t.ok(to <= 3 * from)
  })

  await t.test('one small frame comes from there, and then nothing from anywhere', async (t) => {
    const counted = await drops('amplification')
    const { errors } = await crowd.through(async () => {
      rules(`meta length < 150 limit rate 1/day burst 1 packets ip saddr set ${ANOTHER} accept`, 'drop')
      const refused = await net.within(LIMIT_MS, async () => (await drops('amplification')) > counted)
      t.ok(refused, 'what is more than three times that is refused and counted')
      rules()
    }, LIMIT_MS)
    t.strictSame(errors, [])
    const { from, to } = strange(ANOTHER)
    t.ok(from > 0 && from < 150, `${to} bytes went there for ${from}`)
    t.ok(to <= 3 * from)
    t.ok(await net.within(LIMIT_MS, () => reasons.has('amplification')), `the dump: ${[...reasons].join(', ')}`)
    t.ok(await net.within(LIMIT_MS, async () => (await inUse()) === real()))
  })
})
