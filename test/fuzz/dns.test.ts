// DNS messages from anybody: every one gets a reply that is well formed and no longer than its transport allows, or silence.
import { decode, encode, type Answer, type OptAnswer, type RecordType } from 'dns-packet'
import fc from 'fast-check'
import { test } from 'tap'
import { readQuery, replyTo, type DnsAnswer, type DnsTransport } from '../../daemon/dns/dns-message.js'

const RUNS = 4_000

/** What any answer of the zone may look like: `name` is whatever was asked. */
const resolve = (name: string, type: string): DnsAnswer => {
  const answers: Answer[] = []
  const count = type === 'A' ? name.length : 0
  for (let i = 0; i < count; i++) answers.push({ type: 'A', name: 'web.svc.internal', ttl: 30, data: '198.18.0.1' })
  if (name.startsWith('x')) throw new Error('no answer')
  return { code: 'NOERROR', answers, authorities: [], authoritative: true }
}

async function respond(message: Buffer, transport: DnsTransport): Promise<Buffer | undefined> {
  const reading = readQuery(message)
  if (reading.kind === 'ignored') return undefined
  return reading.kind === 'refused' ? reading.reply : await replyTo(reading.query, transport, resolve)
}

const opt: OptAnswer = {
  type: 'OPT',
  name: '.',
  udpPayloadSize: 512,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
}
const types: RecordType[] = ['A', 'AAAA', 'PTR', 'SOA', 'NS', 'MX', 'TXT', 'SRV', 'AXFR', 'CAA']
const label = fc.oneof(fc.stringMatching(/^[a-z0-9~_-]{1,63}$/), fc.string({ minLength: 1, maxLength: 12 }))
const option = fc.record({ code: fc.integer({ min: 0, max: 65_535 }), data: fc.uint8Array({ maxLength: 40 }) })

/** Queries as programs send them, and odd ones. */
const wellFormed = fc
  .record({
    id: fc.integer({ min: 0, max: 65_535 }),
    flags: fc.constantFrom(0, 0x100, 0x120, 0x7900),
    labels: fc.array(label, { maxLength: 6 }),
    type: fc.constantFrom(...types),
    questions: fc.constantFrom(0, 1, 1, 1, 1, 2),
    edns: fc.option(
      fc.record({
        size: fc.integer({ min: 0, max: 65_535 }),
        version: fc.constantFrom(0, 0, 0, 1, 255),
        options: fc.array(option, { maxLength: 3 }),
      }),
    ),
  })
  .map(({ id, flags, labels, type, questions, edns }) => {
    const name = labels
      .map((text) => text.replaceAll('.', ''))
      .filter((text) => text !== '' && Buffer.byteLength(text) < 64)
    const question = { type, name: name.join('.') || '.' }
    const additionals: OptAnswer[] =
      edns === null ? [] : [{ ...opt, udpPayloadSize: edns.size, ednsVersion: edns.version }]
    const message = encode({
      type: 'query',
      id,
      flags,
      questions: Array<typeof question>(questions).fill(question),
      additionals,
    })
    return edns === null ? message : withOptions(message, edns.options)
  })

/** Puts options into the OPT record at the end of a message, whose length field is its last two bytes. */
function withOptions(message: Buffer, options: readonly { code: number; data: Uint8Array }[]): Buffer {
  const parts = options.map(({ code, data }) => {
    const head = Buffer.alloc(4)
    head.writeUInt16BE(code, 0)
    head.writeUInt16BE(data.length, 2)
    return Buffer.concat([head, data])
  })
  const whole = Buffer.concat([message, ...parts])
  whole.writeUInt16BE(whole.length - message.length, message.length - 2)
  return whole
}

/** Bytes set, cut off or added. */
const mutated = fc
  .tuple(
    wellFormed,
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
    fc.option(fc.nat()),
    fc.uint8Array({ maxLength: 30 }),
  )
  .map(([message, changes, cut, tail]) => {
    const copy = Buffer.from(message)
    for (const [at, value] of changes) copy[at % copy.length] = value
    const kept = cut === null ? copy : copy.subarray(0, cut % (copy.length + 1))
    return Buffer.concat([kept, tail])
  })

const random = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes))
/** Past the header's first checks, so that names and records are reached. */
const behindHeader = fc
  .tuple(fc.uint8Array({ maxLength: 300 }), fc.nat(4))
  .map(([bytes, additionals]) => Buffer.concat([Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, additionals]), bytes]))

test('any message: a sound reply or silence', async (t) => {
  const message = fc.oneof(wellFormed, mutated, random, behindHeader)
  const transports = fc.constantFrom<DnsTransport>('udp', 'tcp')
  await fc.assert(
    fc.asyncProperty(message, transports, async (bytes, transport) => {
      const before = Buffer.from(bytes)
      const reply = await respond(bytes, transport)
      if (!bytes.equals(before)) throw new Error('the message was written to')
      const silent = bytes.length < 12 || (bytes[2]! & 0x80) !== 0
      if (silent || reply === undefined) return silent === (reply === undefined)
      if (reply.length > (transport === 'udp' ? 1_232 : 65_535)) return false
      // The same ID and operation, marked as a reply.
      if (reply[0] !== bytes[0] || reply[1] !== bytes[1] || (reply[2]! & 0x80) === 0) return false
      const decoded = decode(reply)
      if (decoded.questions?.length === 0) return reply.length === 12 && (reply[3]! & 0x0f) !== 0
      // The question is that of the query, to the bit.
      const end = reply.length === 12 ? 12 : 12 + questionLength(reply)
      return reply.subarray(12, end).equals(bytes.subarray(12, end))
    }),
    { numRuns: RUNS },
  )
  t.pass(`${RUNS} messages`)
})

test('a well-formed query is never called malformed', (t) => {
  fc.assert(
    fc.property(wellFormed, (bytes) => {
      const opcode = (bytes[2]! >> 3) & 15
      const fits = questionLength(bytes) <= 259
      const one = bytes.readUInt16BE(4) === 1
      return !one || !fits || opcode !== 0 || readQuery(bytes).kind === 'query'
    }),
    { numRuns: RUNS },
  )
  t.end()
})

/** Bytes of the question at the front of the question section. */
function questionLength(message: Buffer): number {
  let at = 12
  while (at < message.length && message[at] !== 0) at += 1 + message[at]!
  return at + 5 - 12
}
