import { test } from 'tap'
import {
  answerIcmpError,
  carriedIcmpError,
  errorToFrame,
  IcmpErrorPacket,
  parseIcmpError,
} from '../../../lib/flow/icmp-error.js'
import { IcmpKind } from '../../../lib/wire/icmp.js'
import { PacketHead } from '../../../lib/wire/headers.js'
import { IcmpErrorFrame, readIcmpErrorFrame, writeIcmpErrorFrame } from '../../../lib/wire/open.js'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import {
  checkPacket,
  client,
  echo,
  icmp,
  packetOf,
  server,
  tcp,
  u16,
  u32,
  udp,
  VNET,
  viewOf,
  type Family,
} from '../wire/sample-packets.js'

const families = [4, 6] as const
const number = (family: Family, protocol: number) => (family === 6 && protocol === 1 ? 58 : protocol)

/** An ICMP error from the server's kernel about a packet of the client. */
function errorAbout(
  family: Family,
  protocol: number,
  transport: readonly number[],
  header: readonly number[],
  cut = 1000,
) {
  const quoted = packetOf({ family, protocol: number(family, protocol), transport }).slice(VNET, VNET + cut)
  const message = icmp(family, server(family), client(family), [...header, ...quoted])
  return packetOf({
    family,
    protocol: number(family, 1),
    transport: message,
    source: server(family),
    destination: client(family),
  })
}

function read(bytes: Uint8Array) {
  const packet = new ParsedPacket()
  const parsed = parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet)
  if (parsed !== 'icmp-error') throw new Error(parsed)
  const error = new IcmpErrorPacket()
  return { result: parseIcmpError(bytes, viewOf(bytes), packet, error), error }
}

const portUnreachable = { 4: [3, 3, 0, 0, 0, 0, 0, 0], 6: [1, 4, 0, 0, 0, 0, 0, 0] } as const

test('the quoted packet is found', (t) => {
  for (const family of families) {
    const bytes = errorAbout(family, 17, udp(family, [1, 2, 3]), portUnreachable[family])
    const { result, error } = read(bytes)
    t.equal(result, 'ok')
    t.match(error, {
      kind: IcmpKind.portUnreachable,
      family,
      protocol: 17,
      sourcePort: 5353,
      destinationPort: 53,
      transportMtu: 0,
    })
    const length = family === 4 ? 4 : 16
    t.same(bytes.slice(error.sourceOffset, error.sourceOffset + length), client(family))
    t.same(bytes.slice(error.destinationOffset, error.destinationOffset + length), server(family))

    const ping = read(errorAbout(family, 1, echo(family, true, 321), portUnreachable[family]))
    t.equal(ping.result, 'ok')
    t.match(ping.error, { protocol: 1, sourcePort: 321, destinationPort: 0 })
    const pong = read(errorAbout(family, 1, echo(family, false, 321), portUnreachable[family]))
    t.match(pong.error, { protocol: 1, sourcePort: 0, destinationPort: 321 })
  }
  t.end()
})

test('a quote may be cut short, but not too short', (t) => {
  const header = 20
  t.equal(read(errorAbout(4, 6, tcp(4), portUnreachable[4], header + 8)).result, 'ok')
  t.equal(read(errorAbout(4, 6, tcp(4), portUnreachable[4], header + 7)).result, 'malformed-packet')
  t.equal(read(errorAbout(4, 6, tcp(4), portUnreachable[4], 10)).result, 'malformed-packet')
  t.end()
})

test('extensions behind the quote are not part of it (RFC 4884)', (t) => {
  const quoted = packetOf({ family: 4, protocol: 17, transport: udp(4, new Array<number>(200).fill(1)) }).slice(
    VNET,
    VNET + 128,
  )
  const message = icmp(4, server(4), client(4), [3, 3, 0, 0, 0, 32, 0, 0, ...quoted, 0x20, 0, 0, 0, 0, 4, 1, 1])
  const bytes = packetOf({ family: 4, protocol: 1, transport: message })
  const { error } = read(bytes)
  t.equal(error.end, VNET + 20 + 8 + 128)
  t.end()
})

test('errors that are not carried', (t) => {
  t.equal(read(errorAbout(4, 17, udp(4), [3, 14, 0, 0, 0, 0, 0, 0])).result, 'unsupported-protocol', 'an obscure code')
  t.equal(read(errorAbout(4, 132, udp(4), portUnreachable[4])).result, 'unsupported-protocol', 'another protocol')
  t.equal(
    read(errorAbout(4, 1, [3, 1, 0, 0, 0, 0, 0, 0], portUnreachable[4])).result,
    'unsupported-protocol',
    'an error about an error',
  )
  const fragment = packetOf({ family: 4, protocol: 17, transport: udp(4), fragment: 5 }).slice(VNET)
  const message = icmp(4, server(4), client(4), [...portUnreachable[4], ...fragment])
  t.equal(
    read(packetOf({ family: 4, protocol: 1, transport: message })).result,
    'unsupported-protocol',
    'a later fragment',
  )
  const other = packetOf({ family: 6, protocol: 17, transport: udp(6) }).slice(VNET)
  const mixed = icmp(4, server(4), client(4), [...portUnreachable[4], ...other])
  t.equal(read(packetOf({ family: 4, protocol: 1, transport: mixed })).result, 'malformed-packet', 'another family')
  t.end()
})

/** Takes an error read at the server's end of family `from` over the wire, to a client of family `to`. */
function carry(bytes: Uint8Array, to: Family, quotedPorts: readonly [number, number]) {
  const { result, error } = read(bytes)
  if (result !== 'ok') throw new Error(result)
  const frame = new IcmpErrorFrame()
  errorToFrame(bytes, error, frame)
  const buffer = new Uint8Array(700)
  const length = writeIcmpErrorFrame(buffer, viewOf(buffer), 12, frame)
  const received = new IcmpErrorFrame()
  if (readIcmpErrorFrame(buffer, viewOf(buffer), 12, length, received) !== 'ok') throw new Error('frame')
  const quoted = new PacketHead()
  quoted.family = to
  quoted.protocol = error.protocol
  quoted.source = client(to)
  quoted.destination = server(to)
  quoted.sourcePort = quotedPorts[0]
  quoted.destinationPort = quotedPorts[1]
  return carriedIcmpError(received, quoted, server(to), 0)
}

test("an error reaches the client's kernel with the packet that it sent", (t) => {
  for (const from of families) {
    for (const to of families) {
      const segment = tcp(from, { sequence: 0x01020304, payload: new Array<number>(900).fill(1) })
      for (const [protocol, transport, ports] of [
        [6, segment, [51_000, 8080]],
        [17, udp(from, [1, 2, 3]), [51_000, 8080]],
        [1, echo(from, true, 9), [4711, 0]],
      ] as const) {
        const packet = carry(errorAbout(from, protocol, transport, portUnreachable[from]), to, ports)
        if (packet === undefined) return t.fail('not written')
        t.doesNotThrow(() => checkPacket(packet))
        t.ok(packet.length <= VNET + (to === 4 ? 576 : 1280))
        const { result, error } = read(packet)
        t.equal(result, 'ok')
        t.match(error, {
          kind: IcmpKind.portUnreachable,
          family: to,
          protocol,
          sourcePort: ports[0],
          destinationPort: ports[1],
        })
        const length = to === 4 ? 4 : 16
        t.same(packet.slice(error.sourceOffset, error.sourceOffset + length), client(to))
        t.same(packet.slice(error.destinationOffset, error.destinationOffset + length), server(to))
        const outer = new ParsedPacket()
        parsePacket(packet, viewOf(packet), 0, packet.length, outer)
        t.same(packet.slice(outer.destinationOffset, outer.destinationOffset + length), client(to))
        if (protocol === 6) t.equal(viewOf(packet).getUint32(error.wireOffset), 0x01020304, 'sequence number')
      }
    }
  }
  t.end()
  return undefined
})

test('MTUs grow and shrink with the IP header', (t) => {
  const mtu = { 4: [3, 4, 0, 0, 0, 0, ...u16(1400)], 6: [2, 0, 0, 0, ...u32(1400)] } as const
  const told = (packet: Uint8Array | undefined, family: Family) => {
    if (packet === undefined) return undefined
    const at = VNET + (family === 4 ? 20 : 40)
    return family === 4 ? viewOf(packet).getUint16(at + 6) : viewOf(packet).getUint32(at + 4)
  }
  for (const from of families) {
    for (const to of families) {
      const packet = carry(errorAbout(from, 6, tcp(from), mtu[from]), to, [1, 2])
      t.equal(told(packet, to), from === to ? 1400 : from === 4 ? 1420 : 1380, `${from} to ${to}`)
    }
  }
  const small = carry(errorAbout(4, 6, tcp(4), [3, 4, 0, 0, 0, 0, ...u16(600)]), 6, [1, 2])
  t.equal(told(small, 6), 1280, 'IPv6 knows no less')
  const silent = carry(errorAbout(4, 6, tcp(4), [3, 4, 0, 0, 0, 0, 0, 0]), 4, [1, 2])
  t.equal(told(silent, 4), 576, 'an old router')
  t.end()
})

test('an unreachable protocol is a parameter problem that points to the next header', (t) => {
  const packet = carry(errorAbout(4, 17, udp(4), [3, 2, 0, 0, 0, 0, 0, 0]), 6, [1, 2])
  t.same([...(packet ?? []).slice(VNET + 40, VNET + 42)], [4, 1])
  t.same([...(packet ?? []).slice(VNET + 44, VNET + 48)], [0, 0, 0, 6])
  t.end()
})

test('quotes too short or of another kind are not passed on', (t) => {
  const quoted = new PacketHead()
  quoted.protocol = 6
  quoted.source = client(4)
  quoted.destination = server(4)
  const frame = new IcmpErrorFrame()
  frame.kind = IcmpKind.portUnreachable
  frame.quote = new Uint8Array(20).fill(3)
  frame.quoteLength = 3
  t.equal(carriedIcmpError(frame, quoted, server(4), 0), undefined)
  frame.quoteLength = 8
  t.ok(carriedIcmpError(frame, quoted, server(4), 0))
  quoted.protocol = 1
  t.equal(carriedIcmpError(frame, quoted, server(4), 0), undefined, 'no echo')
  quoted.protocol = 17
  frame.kind = 0
  t.equal(carriedIcmpError(frame, quoted, server(4), 0), undefined, 'no kind')
  t.end()
})

test('packets of the own kernel are answered', (t) => {
  for (const family of families) {
    const bytes = packetOf({
      family,
      protocol: 6,
      transport: tcp(family, { payload: new Array<number>(3000).fill(1) }),
    })
    const packet = new ParsedPacket()
    parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet)
    const answer = answerIcmpError(bytes, packet, IcmpKind.tooBig, 1360, server(family), 0)
    if (answer === undefined) return t.fail('not answered')
    t.doesNotThrow(() => checkPacket(answer))
    t.equal(answer.length, VNET + (family === 4 ? 576 : 1280), 'as much as is allowed')
    const { result, error } = read(answer)
    t.equal(result, 'ok')
    t.match(error, { kind: IcmpKind.tooBig, transportMtu: 1360, sourcePort: 40_000, destinationPort: 80 })

    const expired = answerIcmpError(bytes, packet, IcmpKind.hopLimit, 0, server(family), 0)
    t.same([...(expired ?? []).slice(VNET + (family === 4 ? 20 : 40)).slice(0, 2)], family === 4 ? [11, 0] : [3, 0])
  }
  const later = packetOf({ family: 4, protocol: 17, transport: udp(4), fragment: 5 })
  const fragment = new ParsedPacket()
  t.equal(parsePacket(later, viewOf(later), 0, later.length, fragment), 'fragment')
  t.equal(answerIcmpError(later, fragment, IcmpKind.hopLimit, 0, server(4), 0), undefined, 'later fragments never')
  t.end()
  return undefined
})
