import { test } from 'tap'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import { client, echo, packetOf, server, tcp, udp, VNET, viewOf } from './sample-packets.js'

function parse(bytes: Uint8Array) {
  const into = new ParsedPacket()
  return { result: parsePacket(bytes, viewOf(bytes), 0, bytes.length, into), into }
}

test('a TCP segment of each family', (t) => {
  for (const family of [4, 6] as const) {
    const header = family === 4 ? 20 : 40
    const transport = tcp(family, { flags: 0x12, options: [2, 4, 5, 0xb4], payload: [1, 2, 3] })
    const bytes = packetOf({ family, protocol: 6, transport, trafficClass: 0xb9, hopLimit: 33 })
    const { result, into } = parse(bytes)
    t.equal(result, 'ok')
    t.match(into, {
      family,
      protocol: 6,
      ipOffset: VNET,
      transportOffset: VNET + header,
      wireOffset: VNET + header + 4,
      payloadOffset: VNET + header + 24,
      end: bytes.length,
      sourcePort: 40_000,
      destinationPort: 80,
      tcpFlags: 0x12,
      trafficClass: 0xb9,
      hopLimit: 33,
      gsoSize: 0,
      needsChecksum: false,
      isFragment: false,
    })
    const length = family === 4 ? 4 : 16
    t.same(bytes.slice(into.sourceOffset, into.sourceOffset + length), client(family))
    t.same(bytes.slice(into.destinationOffset, into.destinationOffset + length), server(family))
  }
  t.end()
})

test('a packet somewhere in a batch, with bytes behind it that are not its own', (t) => {
  const packet = packetOf({ family: 4, protocol: 17, transport: udp(4, [1, 2, 3, 4]) })
  const batch = new Uint8Array(300).fill(0xaa)
  batch.set(packet, 101)
  const into = new ParsedPacket()
  t.equal(parsePacket(batch, viewOf(batch), 101, packet.length + 9, into), 'ok')
  t.equal(into.end, 101 + packet.length)
  t.equal(into.payloadOffset, 101 + VNET + 28)
  t.equal(into.sourcePort, 5353)
  t.end()
})

test('UDP data behind the length of UDP is no part of the datagram', (t) => {
  const { result, into } = parse(packetOf({ family: 6, protocol: 17, transport: [...udp(6, [1, 2]), 9, 9, 9] }))
  t.equal(result, 'ok')
  t.equal(into.end, VNET + 40 + 10)
  t.end()
})

test('echoes of both families are one protocol; the identifier stands for a port', (t) => {
  for (const family of [4, 6] as const) {
    const protocol = family === 4 ? 1 : 58
    const request = parse(packetOf({ family, protocol, transport: echo(family, true, 77, [1]) }))
    t.equal(request.result, 'ok')
    t.match(request.into, { protocol: 1, icmpType: 8, sourcePort: 77, destinationPort: 0 })
    t.equal(request.into.wireOffset, request.into.transportOffset)
    const reply = parse(packetOf({ family, protocol, transport: echo(family, false, 77, [1]) }))
    t.equal(reply.result, 'ok')
    t.match(reply.into, { protocol: 1, icmpType: 0, sourcePort: 0, destinationPort: 77 })
  }
  t.end()
})

test('super-packets and partial checksums', (t) => {
  const transport = tcp(4, { payload: new Array<number>(3000).fill(7) })
  const vnet = [1, 0x81, 40, 0, 0x78, 0x05, 20, 0, 16, 0]
  const { result, into } = parse(packetOf({ family: 4, protocol: 6, transport, vnet }))
  t.equal(result, 'ok')
  t.match(into, { gsoType: 1, gsoSize: 1400, needsChecksum: true })
  const small = parse(
    packetOf({ family: 6, protocol: 17, transport: udp(6, [1]), vnet: [1, 0, 0, 0, 0, 0, 40, 0, 6, 0] }),
  )
  t.equal(small.result, 'ok')
  t.equal(small.into.needsChecksum, true)

  const wrong = (v: number[]) => parse(packetOf({ family: 4, protocol: 6, transport, vnet: v })).result
  t.equal(wrong([1, 4, 40, 0, 0x78, 5, 20, 0, 16, 0]), 'malformed-packet', 'IPv6 segmentation of an IPv4 packet')
  t.equal(wrong([1, 3, 40, 0, 0x78, 5, 20, 0, 16, 0]), 'malformed-packet', 'fragmentation offload')
  t.equal(wrong([1, 1, 40, 0, 0, 0, 20, 0, 16, 0]), 'malformed-packet', 'segments of no size')
  t.equal(wrong([1, 0, 0, 0, 0, 0, 24, 0, 16, 0]), 'malformed-packet', 'checksum somewhere else')
  t.equal(wrong([1, 0, 0, 0, 0, 0, 20, 0, 6, 0]), 'malformed-packet', 'checksum field of another protocol')
  t.end()
})

test('IPv4 options are walked; a source route is refused', (t) => {
  const transport = udp(4, [1])
  const ok = parse(packetOf({ family: 4, protocol: 17, transport, extra: [1, 148, 4, 0, 0, 0, 0, 0] }))
  t.equal(ok.result, 'ok')
  t.equal(ok.into.transportOffset, VNET + 28)
  const route = [131, 7, 4, 10, 0, 0, 1, 0]
  t.equal(parse(packetOf({ family: 4, protocol: 17, transport, extra: route })).result, 'unsupported-protocol')
  t.equal(parse(packetOf({ family: 4, protocol: 17, transport, extra: [7, 40, 4, 0] })).result, 'malformed-packet')
  t.equal(parse(packetOf({ family: 4, protocol: 17, transport, extra: [1, 1, 1, 7] })).result, 'malformed-packet')
  t.end()
})

test('IPv6 extension headers are walked', (t) => {
  const transport = udp(6, [1])
  const hopByHop = [60, 0, 1, 4, 0, 0, 0, 0]
  const options = [17, 1, ...new Array<number>(14).fill(0)]
  const ok = parse(packetOf({ family: 6, protocol: 17, transport, nextHeader: 0, extra: [...hopByHop, ...options] }))
  t.equal(ok.result, 'ok')
  t.equal(ok.into.transportOffset, VNET + 40 + 24)
  const atomic = [17, 0, 0, 0, 1, 2, 3, 4]
  t.equal(parse(packetOf({ family: 6, protocol: 17, transport, nextHeader: 44, extra: atomic })).result, 'ok')
  const routed = [17, 0, 0, 1, 0, 0, 0, 0]
  t.equal(
    parse(packetOf({ family: 6, protocol: 17, transport, nextHeader: 43, extra: routed })).result,
    'unsupported-protocol',
  )
  const long = [17, 200, 0, 0, 0, 0, 0, 0]
  t.equal(
    parse(packetOf({ family: 6, protocol: 17, transport, nextHeader: 60, extra: long })).result,
    'malformed-packet',
  )
  const endless = Array.from({ length: 20 }, () => [60, 0, 1, 4, 0, 0, 0, 0]).flat()
  t.equal(
    parse(packetOf({ family: 6, protocol: 17, transport, nextHeader: 60, extra: endless })).result,
    'unsupported-protocol',
  )
  t.end()
})

test('fragments are told from whole packets', (t) => {
  const { result, into } = parse(
    packetOf({ family: 4, protocol: 17, transport: udp(4, [1]), fragment: 0x2003, identification: 9 }),
  )
  t.equal(result, 'fragment')
  t.match(into, { isFragment: true, fragmentOffset: 24, moreFragments: true, identification: 9 })
  const six = parse(
    packetOf({ family: 6, protocol: 17, transport: [1, 2, 3], nextHeader: 44, extra: [17, 0, 0, 16, 0, 0, 1, 2] }),
  )
  t.equal(six.result, 'fragment')
  t.match(six.into, {
    fragmentOffset: 16,
    moreFragments: false,
    identification: 0x102,
    fragmentHeaderOffset: VNET + 40,
  })
  t.end()
})

test('nothing of the packet before is left over', (t) => {
  const into = new ParsedPacket()
  const read = (bytes: Uint8Array) => parsePacket(bytes, viewOf(bytes), 0, bytes.length, into)
  const vnet = [1, 1, 40, 0, 0x78, 5, 20, 0, 16, 0]
  t.equal(read(packetOf({ family: 4, protocol: 6, transport: tcp(4, { flags: 2 }), vnet })), 'ok')
  t.equal(
    read(packetOf({ family: 6, protocol: 17, transport: [1], nextHeader: 44, extra: [17, 0, 0, 16, 0, 0, 0, 1] })),
    'fragment',
  )
  t.match(into, { tcpFlags: 0, sourcePort: 0, destinationPort: 0, gsoType: 0, gsoSize: 0, needsChecksum: false })
  t.equal(read(packetOf({ family: 6, protocol: 17, transport: udp(6) })), 'ok')
  t.match(into, { isFragment: false, fragmentOffset: 0, fragmentHeaderOffset: 0, identification: 0, icmpType: 0 })
  t.end()
})

test('ICMP errors are told from echoes, the rest is refused', (t) => {
  const message = (family: 4 | 6, type: number, code = 0) =>
    parse(packetOf({ family, protocol: family === 4 ? 1 : 58, transport: [type, code, 0, 0, 0, 0, 0, 0] })).result
  t.equal(message(4, 3), 'icmp-error')
  t.equal(message(4, 11), 'icmp-error')
  t.equal(message(6, 1), 'icmp-error')
  t.equal(message(6, 2), 'icmp-error')
  t.equal(message(6, 3), 'icmp-error')
  t.equal(message(6, 133), 'unsupported-protocol', 'router solicitation')
  t.equal(message(4, 13), 'unsupported-protocol', 'timestamp')
  t.equal(message(4, 8, 1), 'unsupported-protocol', 'echo with a code')
  t.equal(parse(packetOf({ family: 4, protocol: 58, transport: echo(6, true, 1) })).result, 'unsupported-protocol')
  t.equal(parse(packetOf({ family: 6, protocol: 1, transport: echo(4, true, 1) })).result, 'unsupported-protocol')
  t.equal(parse(packetOf({ family: 4, protocol: 132, transport: [0, 0, 0, 0] })).result, 'unsupported-protocol')
  t.equal(parse(packetOf({ family: 6, protocol: 59, transport: [] })).result, 'unsupported-protocol')
  t.end()
})

test('every truncation is malformed', (t) => {
  const samples = [
    packetOf({ family: 4, protocol: 6, transport: tcp(4, { options: [2, 4, 5, 0xb4], payload: [1] }) }),
    packetOf({ family: 6, protocol: 17, transport: udp(6, [1]) }),
    packetOf({ family: 6, protocol: 58, transport: echo(6, true, 1) }),
  ]
  for (const bytes of samples) {
    for (let length = 0; length < bytes.length; length++) {
      const into = new ParsedPacket()
      if (parsePacket(bytes, viewOf(bytes), 0, length, into) !== 'malformed-packet') t.fail(`accepted ${length} bytes`)
    }
  }
  t.equal(parse(packetOf({ family: 4, protocol: 6, transport: tcp(4).slice(0, 19) })).result, 'malformed-packet')
  t.equal(parse(packetOf({ family: 4, protocol: 17, transport: [0, 1, 0, 2, 0, 20, 0, 0] })).result, 'malformed-packet')
  t.equal(parse(packetOf({ family: 4, protocol: 17, transport: [0, 1, 0, 2, 0, 7, 0, 0] })).result, 'malformed-packet')
  const short = tcp(4)
  short[12] = 0x40
  t.equal(parse(packetOf({ family: 4, protocol: 6, transport: short })).result, 'malformed-packet')
  const version = packetOf({ family: 4, protocol: 6, transport: tcp(4) })
  version[VNET] = 0x55
  t.equal(parse(version).result, 'malformed-packet')
  t.end()
})
