import { connect } from 'node:net'
import fc from 'fast-check'
import { t as root, test } from 'tap'
import { PcapngReader, pcapngHeader, pcapngPacket } from '../../cli/dump/pcapng.js'
import { formatPacket } from '../../cli/dump/format.js'
import { ControlClient } from '../../daemon/control/client.js'
import { parseFilter } from '../../daemon/control/filter.js'
import { LineReader } from '../../daemon/control/lines.js'
import { summarisePacket } from '../../daemon/control/packet.js'
import type { DumpPacket } from '../../daemon/control/protocol.js'
import { parseHealth, parsePortSpec } from '../../daemon/control/spec.js'
import { startFake } from '../unit/cli/fake-daemon.js'

// many runs, and the machine may be busy
root.setTimeout(180_000)

const packet: DumpPacket = {
  point: 'tun',
  direction: 'in',
  time: 1,
  bytes: Buffer.alloc(0),
  length: 0,
  verdict: 'pass',
}

test('lines come out as they went in, whatever the pieces', async (t) => {
  const lines = fc.array(fc.stringMatching(/^[a-z]{1,40}$/), { maxLength: 20 })
  fc.assert(
    fc.property(lines, fc.integer({ min: 1, max: 60 }), (wanted, size) => {
      const bytes = Buffer.from(wanted.map((line) => `${line}\n`).join('\r\n'))
      const reader = new LineReader(64)
      const got: (string | undefined)[] = []
      for (let at = 0; at < bytes.length; at += size) got.push(...reader.push(bytes.subarray(at, at + size)))
      return JSON.stringify(got) === JSON.stringify(wanted)
    }),
    { numRuns: 2000 },
  )
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 })), (chunks) => {
      const reader = new LineReader(32)
      for (const chunk of chunks)
        for (const line of reader.push(Buffer.from(chunk))) if ((line?.length ?? 0) > 32) return false
      return true
    }),
    { numRuns: 2000 },
  )
  t.pass('held')
})

test('any text is a filter or an error inside it', async (t) => {
  const word = fc.constantFrom(
    ...[
      'tcp',
      'udp',
      'and',
      'or',
      'not',
      '(',
      ')',
      'port',
      '80',
      '1-2',
      'service',
      'web',
      'host',
      '10.0.0.1',
      'flow',
      'ff',
      '!',
      '&&',
      '&',
    ],
  )
  const text = fc.oneof(
    fc.string(),
    fc.array(word, { maxLength: 300 }).map((words) => words.join(' ')),
  )
  fc.assert(
    fc.property(text, (filter) => {
      const parsed = parseFilter(filter)
      if (!parsed.ok) return parsed.column >= 1 && parsed.column <= filter.length + 1 && parsed.message !== ''
      return typeof parsed.filter(packet) === 'boolean'
    }),
    { numRuns: 5000 },
  )
  t.pass('held')
})

test('any bytes can be shown', async (t) => {
  const headers = fc.constantFrom(
    '450000280000000040060000c6120001c6124002',
    '450000280000000040110000c6120001c6124002',
    `6000000000202c40${'00'.repeat(32)}`,
    `6000000000200040${'00'.repeat(32)}`,
    '',
  )
  const bytes = fc
    .tuple(headers, fc.uint8Array({ maxLength: 80 }))
    .map(([head, rest]) => Buffer.concat([Buffer.from(head, 'hex'), rest]))
  fc.assert(
    fc.property(bytes, (data) => {
      const summary = summarisePacket(data)
      const line = formatPacket({ ...packet, bytes: data, length: data.length })
      return !line.includes('\n') && (summary === undefined || summary.text !== '')
    }),
    { numRuns: 5000 },
  )
  t.pass('held')
})

test('ports and health checks are read or refused', async (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9:]{0,12}$/)), (text) => {
      const spec = parsePortSpec('tcp', text)
      const within = (port: number) => Number.isInteger(port) && port >= 1 && port <= 65_535
      parseHealth(text)
      return spec === undefined || (within(spec.port) && within(spec.local))
    }),
    { numRuns: 3000 },
  )
  t.pass('held')
})

test('any bytes are a capture file or a problem, and mutated files do no harm', async (t) => {
  const file = Buffer.concat([
    pcapngHeader(),
    pcapngPacket({ ...packet, bytes: Buffer.alloc(20, 0x45), length: 30, peer: 'h2' }),
    pcapngPacket({
      ...packet,
      point: 'wire',
      bytes: Buffer.alloc(9),
      length: 9,
      local: '10.0.0.1:1',
      remote: '[::1]:2',
    }),
  ])
  const edits = fc.array(fc.tuple(fc.nat(file.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 6 })
  const mutated = edits.map((list) => {
    const copy = Buffer.from(file)
    for (const [at, byte] of list) copy[at] = byte
    return copy
  })
  fc.assert(
    fc.property(
      fc.oneof(
        mutated,
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      ),
      (bytes) => {
        const reader = new PcapngReader()
        for (const read of reader.push(bytes)) if (formatPacket(read).includes('\n')) return false
        reader.end()
        return true
      },
    ),
    { numRuns: 5000 },
  )
  t.pass('held')
})

test('the server outlives whatever is written to it', async (t) => {
  const fake = await startFake({}, { lineMs: 200, connectionsMax: 8 })
  t.teardown(() => fake.stop())
  const valid = fc.record({
    v: fc.constantFrom(1, 2, '1'),
    id: fc.oneof(fc.nat(5), fc.constant(-1), fc.constant(null)),
    op: fc.constantFrom('status', 'expose', 'flows', 'dump', 'watch', 'cancel', 'ping', '__proto__', ''),
    args: fc.oneof(
      fc.jsonValue(),
      fc.record({ name: fc.string(), limit: fc.integer(), ports: fc.jsonValue(), id: fc.nat(5) }),
    ),
  })
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    valid.map((request) => Buffer.from(`${JSON.stringify(request)}\n`)),
    fc.jsonValue().map((value) => Buffer.from(`${JSON.stringify(value)}\n`)),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { minLength: 1, maxLength: 10 }), async (pieces) => {
      const lines = await converse(fake.path, pieces)
      return lines.every((line) => typeof JSON.parse(line) === 'object')
    }),
    { numRuns: 1500 },
  )
  const client = await ControlClient.connect(fake.path)
  t.equal((await client.call('status', {})).host.name, 'h1')
  client.close()
})

/** Writes all, ends, and resolves with the lines of the answer. */
function converse(path: string, pieces: readonly Buffer[]): Promise<string[]> {
  return new Promise((resolve) => {
    const socket = connect(path)
    let got = ''
    socket.on('data', (chunk: Buffer) => (got += chunk.toString()))
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(got.split('\n').filter(Boolean)))
    for (const piece of pieces) socket.write(piece)
    socket.end()
  })
}
