import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { endianness, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { test, type Test } from 'tap'
import { reachOf, readListeners, type Listener } from '../../../daemon/listeners.js'
import { formatAddress } from '../../../lib/service/address-plan.js'
import { row, table } from './socket-tables.js'

type Tables = Partial<Record<'tcp' | 'tcp6' | 'udp' | 'udp6', string>>

const BOTH = new Set(['tcp', 'udp'] as const)

function folder(t: Test, tables: Tables): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-net-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(tables)) writeFileSync(join(path, name), text)
  return path
}

/** As people would write them: protocol, address, port, whom it hears. */
function shown(t: Test, tables: Tables): string[] {
  return readListeners(BOTH, folder(t, tables)).map(
    (one) => `${one.protocol}${one.family} ${formatAddress(one.address)} ${one.port} ${reachOf(one)}`,
  )
}

// As Linux 6.18 printed them on a little-endian machine.
const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 8441 1 0000000000000000 100 0 0 10 5
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9120 1 0000000000000000 100 0 0 10 0
   2: 0205A8C0:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9121 1 0000000000000000 100 0 0 10 0
   3: 0205A8C0:0016 0105A8C0:D431 01 00000000:00000000 02:000A7B3C 00000000     0        0 9301 4 0000000000000000 20 4 31 10 -1
   4: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9999 1 0000000000000000 100 0 0 10 0
`
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9200 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9201 1 0000000000000000 100 0 0 10 0
   2: B80D0120000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9202 1 0000000000000000 100 0 0 10 0
   3: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9203 1 0000000000000000 100 0 0 10 0
   4: 000080FE00000000FFA2A50200FEB7C1:1F94 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9204 1 0000000000000000 100 0 0 10 0
`
const UDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  412: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 8440 2 0000000000000000 0
  498: 0205A8C0:A3F1 08080808:0035 01 00000000:00000000 00:00000000 00000000     0        0 8450 2 0000000000000000 0
  530: FB0000E0:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   102        0 8460 2 0000000000000000 0
`

/** What this machine would have printed. */
function captured(text: string): string {
  if (endianness() === 'LE') return text
  const swapped = (word: string) => Buffer.from(word, 'hex').swap32().toString('hex').toUpperCase()
  return text.replace(
    / ((?:[0-9A-F]{8})+)(?=:[0-9A-F]{4} )/g,
    (_, words: string) => ` ${words.replace(/.{8}/g, swapped)}`,
  )
}

test('the kernel tables, as captured', async (t) => {
  t.strictSame(
    shown(t, { tcp: captured(TCP) }),
    ['tcp4 127.0.0.53 53 loopback', 'tcp4 0.0.0.0 22 any', 'tcp4 192.168.5.2 8080 own'],
    'the first connection ends the listening ones',
  )
  t.strictSame(shown(t, { tcp6: captured(TCP6) }), [
    'tcp6 :: 80 any',
    'tcp6 ::1 8081 loopback',
    'tcp6 2001:db8::1 8082 own',
    'tcp4 127.0.0.1 8083 loopback',
    'tcp6 fe80::2a5:a2ff:c1b7:fe00 8084 link',
  ])
  t.strictSame(
    shown(t, { udp: captured(UDP) }),
    ['udp4 0.0.0.0 53 any', 'udp4 224.0.0.251 5353 link'],
    'connected ones hear one peer',
  )
})

test('all four tables, those that are missing left out', async (t) => {
  t.strictSame(shown(t, {}), [])
  const tables = {
    tcp: table(row('0.0.0.0', 80)),
    tcp6: table(row('::', 81)),
    udp: table(row('127.0.0.1', 82)),
    udp6: table(row('::1', 83)),
  }
  t.strictSame(shown(t, tables), [
    'tcp4 0.0.0.0 80 any',
    'tcp6 :: 81 any',
    'udp4 127.0.0.1 82 loopback',
    'udp6 ::1 83 loopback',
  ])
})

test('a line that is cut, or is none, is left out', async (t) => {
  const whole = row('0.0.0.0', 80)
  const odd = [
    '',
    'garbage',
    ' 1: 0:0050 00000000:0000 0A',
    ' 2: 00000000000000:0050 00000000:0000 0A',
    whole.slice(0, 20),
  ]
  t.strictSame(shown(t, { tcp: `${table(...odd, whole)}${whole.slice(0, -60)}` }), ['tcp4 0.0.0.0 80 any'])
})

test('a table of many blocks is read whole, up to a limit', async (t) => {
  const rows = Array.from({ length: 20_000 }, (_, i) => row('10.1.2.3', i + 1))
  t.equal(readListeners(BOTH, folder(t, { udp: table(...rows) })).length, 20_000)
  const flood = `${row('10.1.2.3', 7)}\n`.repeat(60_000)
  const read = readListeners(BOTH, folder(t, { udp: flood }))
  t.ok(read.length > 20_000 && read.length < 60_000, 'the rest of a flood is not looked at')
  t.ok(read.every(({ port }) => port === 7))
})

test('a table that is there and cannot be read is told of', async (t) => {
  const path = folder(t, {})
  mkdirSync(join(path, 'udp'))
  t.throws(() => readListeners(BOTH, path), { code: 'EISDIR' })
})

test("this process's own server is found", async (t) => {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => void server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not listening')
  const found = readListeners(BOTH).find(({ protocol, port }) => protocol === 'tcp' && port === address.port)
  t.match(found && [...found.address], [127, 0, 0, 1])
})

test('the kernel tells the same when it is asked and in its tables', async (t) => {
  const tcp = createServer()
  const mapped = createServer()
  const udp = createSocket('udp4')
  const connected = createSocket('udp6')
  t.teardown(() => {
    tcp.close()
    mapped.close()
    udp.close()
    connected.close()
  })
  tcp.listen(0, '::1')
  mapped.listen(0, '::ffff:127.0.0.1')
  udp.bind(0, '127.0.0.2')
  await Promise.all([tcp, mapped, udp].map((server) => once(server, 'listening')))
  connected.connect(9, '::1')
  await once(connected, 'connect')
  const own = [tcp, mapped, udp].map((server) => {
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('not listening')
    return address.port
  })
  const ports = [...own, connected.address().port]
  // Other programs come and go meanwhile: ours stay.
  const ours = (listeners: readonly Listener[]) =>
    listeners
      .filter(({ port }) => ports.includes(port))
      .map((one) => `${one.protocol}${one.family} ${formatAddress(one.address)} ${one.port} ${reachOf(one)}`)
      .sort()
  const expected = [
    `tcp6 ::1 ${own[0]} loopback`,
    `tcp4 127.0.0.1 ${own[1]} loopback`,
    `udp4 127.0.0.2 ${own[2]} loopback`,
  ]
  t.strictSame(ours(readListeners(BOTH)), [...expected].sort())
  t.strictSame(ours(readListeners(BOTH, '/proc/self/net')), [...expected].sort())
})

test('only the protocols that are asked for are read', (t) => {
  const tables = { tcp: table(row('0.0.0.0', 80)), udp: table(row('0.0.0.0', 53)) }
  const read = (...protocols: ('tcp' | 'udp')[]) =>
    readListeners(new Set(protocols), folder(t, tables)).map((l) => l.port)
  t.strictSame([read('tcp'), read('udp'), read()], [[80], [53], []])
  t.end()
})
