// packetToFrame is tested together with its reverse in test/unit/wire/headers.test.ts.
import { test } from 'tap'
import { innerToOuterClass, nextHopLimit, outerToInnerEcn, packetToFrame } from '../../../lib/flow/translate.js'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import { echo, packetOf, slowSum, viewOf } from '../wire/sample-packets.js'

test('congestion marks leave a frame as figure 4 of RFC 6040 says', (t) => {
  const NOT = 0
  const ECT1 = 1
  const ECT0 = 2
  const CE = 3
  const table = [
    [NOT, [NOT, NOT, NOT, -1]],
    [ECT0, [ECT0, ECT1, ECT0, CE]],
    [ECT1, [ECT1, ECT1, ECT1, CE]],
    [CE, [CE, CE, CE, CE]],
  ] as const
  for (const [inner, byOuter] of table) {
    byOuter.forEach((expected, outer) => {
      t.equal(outerToInnerEcn(inner, outer), expected, `inner ${inner}, outer ${outer}`)
      const withDscp = expected < 0 ? -1 : 0xb8 | expected
      t.equal(outerToInnerEcn(0xb8 | inner, 0x20 | outer), withDscp, 'the inner DSCP is kept')
    })
  }
  t.end()
})

test('the outer header has the class of the inner', (t) => {
  for (const value of [0, 0xb8, 0xff]) t.equal(innerToOuterClass(value), value)
  t.end()
})

test('hop limits fall by one and end', (t) => {
  t.equal(nextHopLimit(64), 63)
  t.equal(nextHopLimit(2), 1)
  t.equal(nextHopLimit(1), 0)
  t.equal(nextHopLimit(0), 0)
  t.end()
})

test('an echo whose checksum the kernel left to us travels with a complete one', (t) => {
  for (const family of [4, 6] as const) {
    const transport = echo(family, true, 5, [1, 2, 3])
    transport[2] = 0x12
    transport[3] = 0x34
    const vnet = [1, 0, 0, 0, 0, 0, family === 4 ? 20 : 40, 0, 2, 0]
    const bytes = packetOf({ family, protocol: family === 4 ? 1 : 58, transport, vnet })
    const packet = new ParsedPacket()
    t.equal(parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet), 'ok')
    t.equal(packetToFrame(bytes, viewOf(bytes), packet), 0)
    const travels = [...bytes.slice(packet.wireOffset, packet.end)]
    t.equal(travels[0], 8)
    t.equal(slowSum(travels), 0xffff)
  }
  t.end()
})
