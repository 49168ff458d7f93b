import { test } from 'tap'
import { PacketHead } from '../../../lib/wire/headers.js'
import { ParsedPacket, parsePacket } from '../../../lib/wire/packet.js'
import { resetFor, resetPacket } from '../../../lib/wire/reset.js'
import { checkPacket, client, packetOf, server, tcp, udp, viewOf, type Family } from './sample-packets.js'

function parsed(bytes: Uint8Array) {
  const packet = new ParsedPacket()
  if (parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet) !== 'ok') throw new Error('does not parse')
  return packet
}
function answer(family: Family, flags: number, payload: number[] = []) {
  const bytes = packetOf({ family, protocol: 6, transport: tcp(family, { flags, payload, sequence: 0xffff_fffe }) })
  const reset = resetFor(bytes, viewOf(bytes), parsed(bytes))
  if (reset === undefined) return undefined
  checkPacket(reset)
  const packet = parsed(reset)
  const view = viewOf(reset)
  return {
    flags: packet.tcpFlags,
    ports: [packet.sourcePort, packet.destinationPort],
    source: reset.slice(packet.sourceOffset, packet.destinationOffset),
    sequence: view.getUint32(packet.transportOffset + 4),
    acknowledgement: view.getUint32(packet.transportOffset + 8),
  }
}

test('refusing a packet', (t) => {
  for (const family of [4, 6] as const) {
    const common = { ports: [80, 40_000], source: server(family) }
    t.same(answer(family, 0x10, [1]), { ...common, flags: 4, sequence: 2000, acknowledgement: 0 }, 'acknowledging')
    t.same(answer(family, 0x02), { ...common, flags: 0x14, sequence: 0, acknowledgement: 0xffff_ffff }, 'SYN')
    t.same(answer(family, 0x01, [1, 2]), { ...common, flags: 0x14, sequence: 0, acknowledgement: 1 }, 'data and FIN')
    t.equal(answer(family, 0x04), undefined, 'a reset is never answered')
  }
  const datagram = packetOf({ family: 4, protocol: 17, transport: udp(4) })
  t.equal(resetFor(datagram, viewOf(datagram), parsed(datagram)), undefined)
  t.end()
})

test('a reset out of nothing', (t) => {
  const head = new PacketHead()
  head.family = 6
  head.source = server(6)
  head.destination = client(6)
  head.sourcePort = 443
  head.destinationPort = 50_000
  const bytes = resetPacket(head, 77, 88)
  t.doesNotThrow(() => checkPacket(bytes))
  const packet = parsed(bytes)
  t.match(packet, { family: 6, protocol: 6, tcpFlags: 0x14, sourcePort: 443, destinationPort: 50_000 })
  t.equal(viewOf(bytes).getUint32(packet.transportOffset + 4), 77)
  t.equal(viewOf(bytes).getUint32(packet.transportOffset + 8), 88)
  t.end()
})
