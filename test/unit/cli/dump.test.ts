import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { t as root, test } from 'tap'
import type { DumpPacket } from '../../../daemon/control/protocol.js'
import type { TapEvent } from '../../../lib/host/tap.js'
import { formatPacket, hexLines } from '../../../cli/dump/format.js'
import { PcapngReader, pcapngHeader, pcapngPacket } from '../../../cli/dump/pcapng.js'
import { caracal, startFake, untilAborted } from './fake-daemon.js'

// a loaded machine starts programs slowly
root.setTimeout(180_000)

/** An IPv4 TCP SYN of 198.18.0.1:40022 to 198.18.64.2:80. */
const syn = Buffer.from(
  '4500002812344000400600' +
    '00' +
    'c6120001c6124002' +
    '9c560050' +
    '00000001' +
    '00000000' +
    '5002faf0' +
    '0000' +
    '0000',
  'hex',
)
const TIME = Date.UTC(2030, 0, 2, 3, 4, 5) + 123.456

const tun: TapEvent = {
  point: 'tun',
  direction: 'out',
  time: TIME,
  bytes: syn,
  length: syn.length,
  peer: 'h2',
  service: 'web',
  flow: '0011223344556677',
  protocol: 'tcp',
  sourcePort: 40022,
  destinationPort: 80,
  verdict: 'pass',
}
const payload = Buffer.from('06010000aabbccdd0100000000000000', 'hex')
const wire4: TapEvent = {
  ...tun,
  point: 'wire',
  direction: 'in',
  bytes: payload,
  length: payload.length,
  local: '10.0.0.1:7474',
  remote: '10.0.0.2:7475',
  frame: 'open',
}
const wire6: TapEvent = { ...wire4, direction: 'out', local: '[fd00::1]:7474', remote: '[fd00::2]:7474', frame: 'data' }
const dropped: TapEvent = { ...tun, point: 'drop', verdict: 'no-instance' }
const stranger: TapEvent = {
  point: 'drop',
  direction: 'in',
  time: TIME,
  bytes: payload,
  length: payload.length,
  local: '10.0.0.1:7474',
  remote: '192.0.2.9:99',
  verdict: 'not-ours',
}
const all: DumpPacket[] = [tun, wire4, wire6, dropped, stranger]

test('a packet is one line with names, flow and verdict', async (t) => {
  const text = (packet: DumpPacket) => formatPacket(packet).replace(/^\d\d:\d\d/, 'hh:mm')
  t.equal(
    text(tun),
    'hh:mm:05.123456 tun  > web@h2  tcp 198.18.0.1:40022 > 198.18.64.2:80 [S] seq 1 win 64240 len 0  flow 0011223344556677  pass',
  )
  t.equal(
    text(wire4),
    'hh:mm:05.123456 wire < web@h2  open 10.0.0.2:7475 > 10.0.0.1:7474 len 16 (tcp 40022 > 80)  flow 0011223344556677  pass',
  )
  t.match(text(dropped), /drop > web@h2 {2}tcp .* DROP no-instance$/)
  t.equal(text(stranger), 'hh:mm:05.123456 drop < -  frame 192.0.2.9:99 > 10.0.0.1:7474 len 16  DROP not-ours')
  t.match(text({ ...tun, verdict: '\n\u001b[2J' }), /DROP \?\?\[2J$/, 'a name cannot steer the terminal')
  t.match(text({ ...tun, bytes: Buffer.from('zz'), length: 2 }), /not an IP packet, 2 bytes/)
})

test('other protocols, fragments and cut packets', async (t) => {
  const line = (hex: string) => formatPacket({ ...tun, bytes: Buffer.from(hex, 'hex') })
  const ip4 = (protocol: string, rest: string, fragment = '0000') =>
    `4500001c0000${fragment}40${protocol}0000c6120001c6124002${rest}`
  const ip6 = (next: string, rest: string) =>
    `60000000${'0010'}${next}40${'00'.repeat(15)}01${'00'.repeat(15)}02${rest}`
  t.match(line(ip4('01', '0800000000070001')), / icmp 198\.18\.0\.1 > 198\.18\.64\.2 echo request id 7 seq 1 /)
  t.match(line(ip4('01', '0303000000000000')), /unreachable code 3/)
  t.match(line(ip4('11', '0035003600080000')), / udp 198\.18\.0\.1:53 > 198\.18\.64\.2:54 len 0 /)
  t.match(line(ip4('11', '0035003600080000', '2001')), /fragment at 8 /)
  t.match(line(ip4('2f', '00000000')), /protocol 47 .* len 8/)
  t.match(line(ip6('3a', '8100000000070001')), /icmp6 ::1 > ::2 echo reply id 7 seq 1/)
  t.match(line(ip6('2c', '1100000800000001')), /fragment at 8 /)
  t.match(line(ip6('11', '0035003600080000')), /udp \[::1\]:53 > \[::2\]:54 len 8/)
  t.match(line(syn.subarray(0, 24).toString('hex')), /tcp 198\.18\.0\.1:40022 > 198\.18\.64\.2:80 cut/)
})

test('hex lines', async (t) => {
  t.strictSame(hexLines(Buffer.from('GET / HTTP/1.1\r\nHost')), [
    '  0000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..',
    '  0010  48 6f 73 74                                       Host',
  ])
})

test('a capture file gives back what was written, in pieces of any size', async (t) => {
  const file = Buffer.concat([pcapngHeader(), ...all.map(pcapngPacket)])
  for (const size of [1, 7, file.length]) {
    const reader = new PcapngReader()
    const packets: DumpPacket[] = []
    for (let at = 0; at < file.length; at += size) packets.push(...reader.push(file.subarray(at, at + size)))
    reader.end()
    t.equal(reader.problem, undefined)
    t.equal(packets.length, all.length)
    for (const [i, packet] of packets.entries()) {
      t.ok(Math.abs(packet.time - TIME) < 0.001, 'microseconds')
      const same = { ...packet, time: TIME, bytes: Buffer.from(packet.bytes) }
      t.strictSame(same, { ...all[i]!, bytes: Buffer.from(all[i]!.bytes) })
    }
  }
})

test('a file that is cut off, or another kind of file, is a problem that is named', async (t) => {
  const file = Buffer.concat([pcapngHeader(), pcapngPacket(tun)])
  const problem = (bytes: Buffer) => {
    const reader = new PcapngReader()
    Array.from(reader.push(bytes))
    reader.end()
    return reader.problem
  }
  t.match(problem(file.subarray(0, file.length - 4)), /cut off/)
  t.match(problem(Buffer.from('d4c3b2a1020004000000000000000000ffff000001000000', 'hex')), /no pcapng file/)
  t.match(problem(Buffer.alloc(0)), /no pcapng file/)
  t.match(problem(Buffer.concat([pcapngHeader(), Buffer.from('06000000ffffffff00000000', 'hex')])), /a block of/)
})

const tshark = spawnSync('tshark', ['--version']).status === 0

test('tshark reads the file', { skip: tshark ? false : 'tshark is not installed' }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-dump-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = join(directory, 'x.pcapng')
  const cut: TapEvent = { ...wire6, bytes: payload.subarray(0, 4) }
  writeFileSync(path, Buffer.concat([pcapngHeader(), ...[...all, cut].map(pcapngPacket)]))
  const fields = ['frame.interface_name', 'frame.comment', 'frame.time_epoch', 'ip.src', 'ipv6.dst', 'udp.dstport']
  const args = [...fields, 'udp.checksum.status', 'ip.checksum.status', 'tcp.flags.syn', 'frame.len', 'frame.cap_len']
  const options = ['-o', 'udp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-T', 'fields', '-E', 'separator=;']
  const out = execFileSync('tshark', ['-n', '-r', path, ...options, ...args.flatMap((name) => ['-e', name])], {
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
  })
  const rows = out
    .trimEnd()
    .split('\n')
    .map((line) => line.split(';'))
  t.equal(rows.length, 6)
  const [first = [], second = [], third = [], fourth = [], , sixth = []] = rows
  t.equal(first[0], 'caracal-tun')
  t.match(first[1], /service=web peer=h2 flow=0011223344556677 protocol=tcp ports=40022>80 verdict=pass/)
  t.match(first[2], /^1893553445\.123456/)
  t.equal(first[3], '198.18.0.1')
  t.match(first[8], /^(1|True)$/)
  t.strictSame([second[0], second[3], second[5], second[6], second[7]], ['caracal-wire', '10.0.0.2', '7474', '1', '1'])
  t.strictSame([third[4], third[6]], ['fd00::2', '1'])
  t.match(fourth[1], /verdict=no-instance/)
  t.equal(fourth[0], 'caracal-drop')
  t.strictSame([sixth[9], sixth[10]], ['64', '52'], 'a cut frame keeps its length')
})

test('caracal dump: text, JSON, capture file and back, filtered and counted', async (t) => {
  const requests: unknown[] = []
  const fake = await startFake({
    dump: async (request, emit, signal) => {
      requests.push(request)
      for (const event of [tun, wire4, wire6, dropped, stranger]) emit(event as TapEvent)
      await untilAborted(signal)
    },
  })
  t.teardown(() => fake.stop())
  const env = { CARACAL_SOCKET: fake.path }
  const text = await caracal(['dump', '-c', '1', '-X', 'not', 'tcp'], env)
  t.equal(text.status, 0)
  t.match(text.out, /DROP not-ours\n {2}0000 {2}06 01/)
  t.equal(text.out.split('\n').length, 3)
  const json = await caracal(
    ['dump', '--json', '-c', '2', '-s', '64', '--point', 'wire', '--point', 'drop', 'out'],
    env,
  )
  const lines = json.out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.strictSame(
    lines.map(({ point, frame }) => [point, frame]),
    [
      ['tun', undefined],
      ['wire', 'data'],
    ],
  )
  t.strictSame(requests[1], { points: ['wire', 'drop'], snapLength: 64, filter: 'out' })

  const file = join(fake.directory, 'x.pcapng')
  const written = await caracal(['dump', '-w', file, '-c', '5'], env)
  t.equal(written.err, '5 packets\n')
  t.equal(statSync(file).mode & 0o777, 0o600)
  const piped = await caracal(['dump', '-w', '-', '-c', '5'], env)
  t.strictSame(piped.bytes, readFileSync(file))
  const read = await caracal(['dump', '-r', file, 'service', 'web', 'and', 'dropped'], {})
  t.equal(read.status, 0)
  t.match(read.out, /^[^\n]*DROP no-instance\n$/)
  writeFileSync(file, 'nonsense and more of it')
  const bad = await caracal(['dump', '-r', file], {})
  t.equal(bad.status, 1)
  t.match(bad.err, /no pcapng file/)
  t.equal((await caracal(['dump', '-r', join(fake.directory, 'none')], {})).status, 1)
})

test('an interrupted dump ends well', async (t) => {
  const fake = await startFake({
    dump: async (_request, emit, signal) => {
      emit(tun)
      await untilAborted(signal)
    },
  })
  t.teardown(() => fake.stop())
  const stopped = await caracal(['dump'], { CARACAL_SOCKET: fake.path }, (_text, kill) => kill('SIGINT'))
  t.equal(stopped.status, 0)
  t.equal(stopped.out.split('\n').length, 2)
})
