import { test } from 'tap'
import { clampMss, tcpHeaderLength } from '../../../lib/wire/tcp.js'
import { checkPacket, packetOf, tcp, VNET, viewOf, type Family } from './sample-packets.js'

function syn(family: Family, options: readonly number[], flags = 2) {
  const bytes = packetOf({ family, protocol: 6, transport: tcp(family, { flags, options }) })
  const transport = VNET + (family === 4 ? 20 : 40)
  const clamp = (max: number, partial = false) => clampMss(bytes, viewOf(bytes), transport, bytes.length, max, partial)
  return { bytes, clamp, options: () => [...bytes.slice(transport + 20)] }
}

test('a SYN that announces too large segments is corrected, checksum and all', (t) => {
  for (const family of [4, 6] as const) {
    const aligned = syn(family, [2, 4, 5, 0xb4, 4, 2, 1, 1])
    t.equal(aligned.clamp(1360), true)
    t.same(aligned.options(), [2, 4, 5, 0x50, 4, 2, 1, 1])
    t.doesNotThrow(() => checkPacket(aligned.bytes))
    const odd = syn(family, [1, 2, 4, 5, 0xb4, 0, 0, 0], 0x12)
    t.equal(odd.clamp(1360), true)
    t.same(odd.options(), [1, 2, 4, 5, 0x50, 0, 0, 0])
    t.doesNotThrow(() => checkPacket(odd.bytes))
  }
  t.end()
})

test('what fits, what is no SYN, and what announces nothing is left alone', (t) => {
  const fits = syn(4, [2, 4, 5, 0x50])
  t.equal(fits.clamp(1360), false)
  t.equal(syn(4, [2, 4, 5, 0xb4], 0x10).clamp(1000), false)
  t.equal(syn(4, []).clamp(1000), false)
  t.equal(syn(4, [4, 2, 0, 0]).clamp(1000), false)
  t.equal(syn(4, [0, 2, 4, 5, 0xb4, 0, 0, 0]).clamp(1000), false, 'behind the end of options')
  t.end()
})

test('malformed options end the search', (t) => {
  for (const options of [
    [3, 0, 2, 4, 5, 0xb4, 0, 0],
    [3, 40, 2, 4],
    [1, 1, 1, 2],
    [2, 3, 5, 0xb4],
  ]) {
    const packet = syn(4, options)
    t.equal(packet.clamp(1000), false)
    t.same(packet.options(), options)
  }
  const cut = packetOf({ family: 4, protocol: 6, transport: tcp(4, { flags: 2 }).slice(0, 18) })
  t.equal(clampMss(cut, viewOf(cut), VNET + 20, cut.length, 1000, false), false)
  t.end()
})

test('a partial checksum does not cover options', (t) => {
  const packet = syn(4, [2, 4, 5, 0xb4])
  const field = VNET + 20 + 16
  const before = [...packet.bytes.slice(field, field + 2)]
  t.equal(packet.clamp(1360, true), true)
  t.same([...packet.bytes.slice(field, field + 2)], before)
  t.end()
})

test('header lengths', (t) => {
  const bytes = Uint8Array.from(tcp(4, { options: [1, 1, 1, 1] }))
  t.equal(tcpHeaderLength(bytes, 0, 24), 24)
  t.equal(tcpHeaderLength(bytes, 0, 23), -1)
  bytes[12] = 0x40
  t.equal(tcpHeaderLength(bytes, 0, 24), -1)
  t.end()
})
