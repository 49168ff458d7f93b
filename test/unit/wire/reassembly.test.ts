import { test } from 'tap'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import { Reassembler, type ReassemblyLimits } from '../../../lib/wire/reassembly.js'
import { checkPacket, packetOf, udp, VNET, viewOf, type Family } from './sample-packets.js'

const body = Array.from({ length: 100 }, (_, i) => i)

/** A UDP datagram's bytes from..to as one fragment. */
function fragment(family: Family, from: number, to: number, identification = 7, bytes = udp(family, body)): Uint8Array {
  const more = to < bytes.length
  const transport = bytes.slice(from, to)
  return family === 4
    ? packetOf({ family, protocol: 17, transport, identification, fragment: (more ? 0x2000 : 0) | (from >> 3) })
    : packetOf({
        family,
        protocol: 17,
        transport,
        nextHeader: 44,
        extra: [17, 0, (from >> 8) & 255, (from & 0xf8) | (more ? 1 : 0), 0, 0, 0, identification],
      })
}

function reassembler(limits?: ReassemblyLimits) {
  const dropped: [string, number][] = []
  const subject = new Reassembler((reason, packets) => dropped.push([reason, packets]), limits)
  const add = (bytes: Uint8Array, now = 0) => {
    const packet = new ParsedPacket()
    const result = parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet)
    if (result !== 'fragment') throw new Error(result)
    return subject.add(bytes, packet, now)
  }
  return { subject, add, dropped }
}

function payloadOf(bytes: Uint8Array): number[] {
  const packet = new ParsedPacket()
  const result = parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet)
  if (result !== 'ok') throw new Error(result)
  checkPacket(bytes)
  return [...bytes.slice(packet.payloadOffset, packet.end)]
}
const whole = (result: Uint8Array | string) => (typeof result === 'string' ? result : payloadOf(result))

const ranges = [
  [0, 40],
  [40, 80],
  [80, 108],
] as const

test('fragments in any order become the packet', (t) => {
  for (const family of [4, 6] as const) {
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 2, 0],
      [1, 0, 2],
    ]) {
      const { subject, add, dropped } = reassembler()
      const results = order.map((i) => whole(add(fragment(family, ranges[i]![0], ranges[i]![1]))))
      t.same(results, ['held', 'held', body], `IPv${family}, order ${order.join(' ')}`)
      t.equal(subject.bytes, 0)
      t.equal(subject.nextTimeout(), Infinity)
      t.same(dropped, [])
    }
  }
  t.end()
})

test('packets under way at once are kept apart', (t) => {
  const { add } = reassembler()
  t.equal(add(fragment(4, 0, 40, 1)), 'held')
  t.equal(add(fragment(4, 40, 108, 2)), 'held')
  t.equal(add(fragment(6, 0, 40, 1)), 'held')
  t.same(whole(add(fragment(4, 40, 108, 1))), body)
  t.same(whole(add(fragment(4, 0, 40, 2))), body)
  t.same(whole(add(fragment(6, 40, 108, 1))), body)
  t.end()
})

test('extension headers in front of the fragment header are kept', (t) => {
  const { add } = reassembler()
  const bytes = udp(6, body)
  const hop = [44, 0, 1, 4, 0, 0, 0, 0]
  const piece = (from: number, to: number, flags: number) =>
    packetOf({
      family: 6,
      protocol: 17,
      transport: bytes.slice(from, to),
      nextHeader: 0,
      extra: [...hop, 17, 0, 0, flags, 0, 0, 0, 1],
    })
  t.equal(add(piece(0, 48, 1)), 'held')
  const packet = add(piece(48, 108, 48))
  if (typeof packet === 'string') return t.fail(packet)
  t.equal(packet[VNET + 6], 0, 'hop-by-hop options first')
  t.equal(packet[VNET + 40], 17, 'then UDP')
  const parsed = new ParsedPacket()
  t.equal(parsePacket(packet, viewOf(packet), 0, packet.length, parsed), 'ok')
  t.same([...packet.slice(parsed.payloadOffset)], body)
  t.end()
  return undefined
})

test('an overlap spoils the packet until its time-out', (t) => {
  for (const family of [4, 6] as const) {
    const { subject, add, dropped } = reassembler()
    t.equal(add(fragment(family, 0, 40)), 'held')
    t.equal(add(fragment(family, 32, 80)), 'malformed-packet')
    t.same(dropped, [['malformed-packet', 1]])
    t.equal(subject.bytes, 0)
    t.equal(add(fragment(family, 40, 108)), 'malformed-packet')
    t.equal(add(fragment(family, 0, 40)), 'malformed-packet')
    t.equal(add(fragment(family, 0, 40), 5_000), 'held', 'the name may be used again')
  }
  t.end()
})

test('an exact copy is dropped and spoils nothing', (t) => {
  const { add, dropped } = reassembler()
  t.equal(add(fragment(4, 0, 40)), 'held')
  t.equal(add(fragment(4, 0, 40)), 'malformed-packet')
  t.same(whole(add(fragment(4, 40, 108))), body)
  t.same(dropped, [])
  t.end()
})

test('fragments that contradict each other spoil the packet', (t) => {
  const longer = udp(4, [...body, ...body])
  const two = reassembler()
  t.equal(two.add(fragment(4, 80, 108)), 'held')
  t.equal(two.add(fragment(4, 120, 160, 7, longer)), 'malformed-packet', 'data behind the end')
  const three = reassembler()
  t.equal(three.add(fragment(4, 120, 160, 7, longer)), 'held')
  t.equal(three.add(fragment(4, 80, 108)), 'malformed-packet', 'an end in front of data')
  t.end()
})

test('lengths that cannot be are refused', (t) => {
  const { subject, add } = reassembler()
  const bytes = udp(4, body)
  const odd = packetOf({ family: 4, protocol: 17, transport: bytes.slice(0, 41), fragment: 0x2000 })
  t.equal(add(odd), 'malformed-packet')
  t.equal(add(packetOf({ family: 4, protocol: 17, transport: [], fragment: 0x2000 })), 'malformed-packet')
  t.equal(add(packetOf({ family: 4, protocol: 17, transport: bytes, fragment: 0x1fff })), 'malformed-packet')
  t.equal(subject.bytes, 0)
  t.end()
})

test('what does not become whole in time is dropped and counted', (t) => {
  const { subject, add, dropped } = reassembler({ bytes: 1e6, entries: 10, timeout: 100 })
  add(fragment(4, 0, 40, 1), 1000)
  add(fragment(4, 40, 80, 1), 1050)
  add(fragment(4, 0, 40, 2), 1060)
  t.equal(subject.nextTimeout(), 1100)
  subject.expire(1099)
  t.same(dropped, [])
  subject.expire(1100)
  t.same(dropped, [['fragment-timeout', 2]])
  t.equal(subject.nextTimeout(), 1160)
  t.equal(add(fragment(4, 80, 108, 1), 1110), 'held', 'the rest comes too late')
  t.end()
})

test('memory is bounded: the oldest goes first', (t) => {
  const few = reassembler({ bytes: 1e6, entries: 2, timeout: 100 })
  for (const identification of [1, 2, 3]) t.equal(few.add(fragment(4, 0, 40, identification)), 'held')
  t.same(few.dropped, [['fragment-overflow', 1]])
  t.same(whole(few.add(fragment(4, 40, 108, 3))), body)

  const small = reassembler({ bytes: 500, entries: 100, timeout: 100 })
  for (const identification of [1, 2, 3]) t.equal(small.add(fragment(4, 0, 40, identification)), 'held')
  t.same(small.dropped, [['fragment-overflow', 1]])
  t.ok(small.subject.bytes <= 500)
  t.same(small.add(fragment(4, 40, 104, 1)), 'held', 'begins anew')

  const tiny = reassembler({ bytes: 1e6, entries: 100, timeout: 100 })
  const bytes = udp(4, new Array<number>(4000).fill(1))
  const results = new Set<string>()
  for (let at = 0; at < 1600; at += 8) {
    const result = tiny.add(fragment(4, at, at + 8, 1, bytes))
    results.add(typeof result === 'string' ? result : 'whole')
  }
  t.ok(results.has('fragment-overflow'), 'very many fragments of one packet')
  t.ok(tiny.dropped.some(([reason, packets]) => reason === 'fragment-overflow' && packets === 128))
  t.end()
})
