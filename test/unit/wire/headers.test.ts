import { test } from 'tap'
import { packetToFrame } from '../../../lib/flow/translate.js'
import { Gso } from '../../../lib/wire/batch.js'
import { HEADROOM, INNER_HEADER, KindFlag } from '../../../lib/wire/constants.js'
import { PacketHead, writeHeaders } from '../../../lib/wire/headers.js'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import {
  checkPacket,
  client,
  echo,
  packetOf,
  server,
  tcp,
  udp,
  viewOf,
  type Family,
  type Sample,
} from './sample-packets.js'

const families = [4, 6] as const
const payload = [1, 2, 3, 4, 5, 6, 7]

/** What arrives when `sample` is read from one TUN and written to another of `family`, with other addresses and ports. */
function carry(sample: Sample, family: Family, change: Partial<PacketHead> = {}) {
  const bytes = packetOf(sample)
  const packet = new ParsedPacket()
  if (parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet) !== 'ok') throw new Error('sample does not parse')
  const flags = packetToFrame(bytes, viewOf(bytes), packet)
  const travels = bytes.slice(packet.wireOffset, packet.end)
  const buffer = new Uint8Array(HEADROOM + INNER_HEADER + travels.length).fill(0x5a)
  buffer.set(travels, HEADROOM + INNER_HEADER)
  const head = new PacketHead()
  head.family = family
  head.protocol = packet.protocol
  head.source = Uint8Array.from([...server(family)].map((byte, i) => (i % 2 === 0 ? byte : byte ^ 0x3c)))
  head.destination = client(family)
  head.sourcePort = packet.protocol === 1 && packet.icmpType === 0 ? 0 : 51_111
  head.destinationPort = packet.protocol === 1 && packet.icmpType === 8 ? 0 : 8080
  head.trafficClass = 0x2a
  head.hopLimit = 63
  head.checksum = flags
  Object.assign(head, change)
  const vnet = writeHeaders(buffer, viewOf(buffer), HEADROOM + INNER_HEADER, buffer.length, head)
  const arrived = vnet < 0 ? new Uint8Array(0) : buffer.slice(vnet)
  const again = new ParsedPacket()
  const result = vnet < 0 ? 'refused' : parsePacket(arrived, viewOf(arrived), 0, arrived.length, again)
  return { arrived, again, result, flags, head }
}

const partial = (family: Family, protocol: number) => [
  1,
  0,
  0,
  0,
  0,
  0,
  family === 4 ? 20 : 40,
  0,
  protocol === 6 ? 16 : 6,
  0,
]

test('TCP, UDP and echo between all pairs of families, checksums complete or partial', (t) => {
  for (const from of families) {
    for (const to of families) {
      const samples: Sample[] = [
        { family: from, protocol: 6, transport: tcp(from, { payload, options: [1, 1, 1, 0] }) },
        { family: from, protocol: 6, transport: tcp(from, { payload }), vnet: partial(from, 6) },
        { family: from, protocol: 17, transport: udp(from, payload) },
        { family: from, protocol: 17, transport: udp(from, payload), vnet: partial(from, 17) },
        { family: from, protocol: from === 4 ? 1 : 58, transport: echo(from, true, 99, payload) },
        { family: from, protocol: from === 4 ? 1 : 58, transport: echo(from, false, 99, payload) },
      ]
      for (const sample of samples) {
        const { arrived, again, result, flags, head } = carry(sample, to)
        const name = `${from} to ${to}, protocol ${sample.protocol}, ${sample.vnet === undefined ? 'complete' : 'partial'}`
        t.equal(result, 'ok', name)
        t.doesNotThrow(() => checkPacket(arrived), name)
        t.match(again, {
          family: to,
          protocol: head.protocol,
          sourcePort: head.sourcePort,
          destinationPort: head.destinationPort,
          trafficClass: 0x2a,
          hopLimit: 63,
          end: arrived.length,
        })
        t.same([...arrived.slice(again.payloadOffset)], payload)
        const length = to === 4 ? 4 : 16
        t.same(arrived.slice(again.sourceOffset, again.sourceOffset + length), head.source)
        t.same(arrived.slice(again.destinationOffset, again.destinationOffset + length), head.destination)
        const expected = head.protocol === 1 ? 0 : sample.vnet ? KindFlag.checksumPartial : KindFlag.checksumFree
        t.equal(flags, expected)
        t.equal(again.needsChecksum, expected === KindFlag.checksumPartial)
      }
    }
  }
  t.end()
})

test('a checksum that was wrong stays wrong', (t) => {
  for (const to of families) {
    const transport = tcp(4, { payload })
    transport[25]! ^= 1
    const { arrived } = carry({ family: 4, protocol: 6, transport }, to)
    t.throws(() => checkPacket(arrived), { message: 'transport checksum' })
    const ping = echo(6, true, 5, payload)
    ping[9]! ^= 1
    t.throws(() => checkPacket(carry({ family: 6, protocol: 58, transport: ping }, to).arrived))
  }
  t.end()
})

test('UDP without a checksum over IPv4 gets one from the receiving kernel', (t) => {
  const transport = udp(4, payload)
  transport[6] = 0
  transport[7] = 0
  for (const to of families) {
    const { arrived, flags } = carry({ family: 4, protocol: 17, transport }, to)
    t.equal(flags, KindFlag.checksumPartial)
    t.doesNotThrow(() => checkPacket(arrived))
  }
  t.end()
})

test('a UDP checksum that comes out as zero is written as all ones', (t) => {
  const fields = new Set<number>()
  for (let word = 0; word <= 0xffff && !fields.has(0xffff); word++) {
    const { arrived, again } = carry({ family: 4, protocol: 17, transport: udp(4, [word >> 8, word & 255]) }, 6)
    const field = (arrived[again.transportOffset + 6]! << 8) | arrived[again.transportOffset + 7]!
    fields.add(field)
    if (field === 0xffff) t.doesNotThrow(() => checkPacket(arrived))
  }
  t.ok(fields.has(0xffff))
  t.notOk(fields.has(0))
  t.end()
})

test('IPv4 packets are never to be fragmented', (t) => {
  const { arrived } = carry({ family: 6, protocol: 17, transport: udp(6, payload) }, 4)
  t.equal(arrived[10 + 6]! & 0x40, 0x40)
  t.end()
})

test('super-packets', (t) => {
  const body = new Array<number>(3000).fill(9)
  for (const family of families) {
    const gso = { gsoKind: Gso.tcp, gsoSize: 1400 }
    const sample: Sample = { family, protocol: 6, transport: tcp(family, { payload: body }), vnet: partial(family, 6) }
    const one = carry(sample, family, gso)
    t.equal(one.result, 'ok')
    t.doesNotThrow(() => checkPacket(one.arrived))
    t.equal(one.arrived[1], family === 4 ? 1 : 4)
    t.match(one.again, { gsoSize: 1400, needsChecksum: true })
    t.equal(one.arrived[2]! + one.arrived[3]! * 256, (family === 4 ? 20 : 40) + 20, 'header length')

    const reduced = { ...sample, transport: tcp(family, { payload: body, flags: 0x90 }) }
    t.equal(
      carry(reduced, family, gso).arrived[1]! & 0x80,
      0x80,
      'congestion window reduced: on the first segment only',
    )

    const datagrams = carry({ family, protocol: 17, transport: udp(family, body), vnet: partial(family, 17) }, family, {
      gsoKind: Gso.udp,
      gsoSize: 1000,
    })
    t.equal(datagrams.result, 'ok')
    t.doesNotThrow(() => checkPacket(datagrams.arrived))
    t.equal(datagrams.arrived[1], 5)

    const complete = carry({ family, protocol: 6, transport: tcp(family, { payload: body }) }, family, gso)
    t.doesNotThrow(() => checkPacket(complete.arrived), 'coalesced segments with complete checksums become partial')
    t.equal(complete.again.needsChecksum, true)

    const single = carry(
      { family, protocol: 6, transport: tcp(family, { payload }), vnet: partial(family, 6) },
      family,
      gso,
    )
    t.equal(single.arrived[1], 0, 'one segment is no super-packet')
  }
  t.end()
})

test('the UDP length is that of what arrived', (t) => {
  const { arrived, again } = carry({ family: 4, protocol: 17, transport: udp(4, payload) }, 6)
  t.equal(arrived[again.transportOffset + 5], 8 + payload.length)
  t.end()
})

test('what is no transport header is refused', (t) => {
  const head = new PacketHead()
  head.source = server(4)
  head.destination = client(4)
  head.checksum = KindFlag.checksumPartial
  const buffer = new Uint8Array(66_000)
  const view = viewOf(buffer)
  const write = (protocol: number, wire: number, end: number) => {
    head.protocol = protocol
    return writeHeaders(buffer, view, wire, end, head)
  }
  t.equal(write(17, 64, 67), -1, 'short UDP')
  t.equal(write(6, 64, 79), -1, 'short TCP')
  t.equal(write(6, 64, 90), -1, 'TCP header length of zero')
  t.equal(write(1, 64, 71), -1, 'short ICMP')
  t.equal(write(132, 64, 100), -1, 'another protocol')
  t.equal(write(17, 20, 100), -1, 'no room in front')
  t.equal(write(17, 64, 66_001), -1, 'behind the buffer')
  t.equal(write(17, 64, 64 + 65_535), -1, 'longer than any packet')
  t.equal(write(17, 100, 90), -1, 'end before begin')
  t.not(write(17, 64, 80), -1)
  head.checksum = 0
  t.equal(write(17, 64, 80), -1, 'a checksum of which nothing is said')
  buffer[64] = 13
  t.equal(write(1, 64, 80), -1, 'ICMP that is no echo')
  t.end()
})
