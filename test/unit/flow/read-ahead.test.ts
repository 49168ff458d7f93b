import { test } from 'tap'
import { Generations } from '../../../lib/flow/flow-id.js'
import { FlowState, FlowTable } from '../../../lib/flow/flow-table.js'
import { ReadAhead } from '../../../lib/flow/read-ahead.js'
import { Open, openBatch, OPEN_WORDS, packetBatch, PACKET_WORDS } from '../../../lib/wire/batch.js'
import { VNET_HEADER } from '../../../lib/wire/constants.js'
import { seeded } from './flow-host.js'
import { tcpPacket } from './packets.js'

const FLOWS = 5_000
const LOCAL = Uint8Array.of(10, 0, 0, 1)
const remote = (n: number) => Uint8Array.of(10, 1, n >> 8, n)

function fullTable(random: () => number): FlowTable {
  const bytes = (length: number) => Uint8Array.from({ length }, () => Math.floor(random() * 256))
  const table = new FlowTable(new ArrayBuffer(FlowTable.bytesFor(FLOWS)), FLOWS, new Generations(bytes))
  for (let n = 0; n < FLOWS; n++) table.link(table.allocate(FlowState.established), 4, 6, LOCAL, remote(n), 40_000, 80)
  return table
}

test('the hash of a packet leads to the place of its flow', (t) => {
  const table = fullTable(seeded(1))
  const { slots, slotMask, rowMask } = table.tupleIndex
  let longest = 0
  for (let n = 0; n < FLOWS; n++) {
    const address = remote(n)
    const hash = table.hashOf(new DataView(address.buffer), 0, 4, 6, (40_000 << 16) | 80)
    let steps = 0
    const place = () => table.words[slots + ((hash + steps) & slotMask)]!
    while (place() !== 0 && (place() & rowMask) !== n + 1) steps++
    if (place() === 0 || ((place() ^ hash) & ~rowMask) !== 0) t.fail(`flow ${n} is not there`)
    longest = Math.max(longest, steps)
  }
  t.ok(longest < 64, `${longest} steps at most`)
  t.end()
})

test('whatever comes, nothing is changed', (t) => {
  const random = seeded(2)
  const table = fullTable(random)
  const before = table.words.slice()
  const ahead = new ReadAhead(table)
  const some = (below: number) => Math.floor(random() * below)
  for (let round = 0; round < 200; round++) {
    const packets = packetBatch(8_192, 64)
    const frames = openBatch(8_192, 64)
    for (const { data } of [packets, frames]) for (let i = 0; i < data.length; i++) data[i] = some(256)
    for (let i = 0; i < 64; i++) {
      const family = some(2) === 0 ? 4 : 6
      const [source, destination] =
        family === 4 ? [LOCAL, remote(some(FLOWS))] : [new Uint8Array(16), new Uint8Array(16)]
      const packet = tcpPacket({ family, source, destination, ports: [40_000, 80], flags: 16 })
      const offset = i * 128
      if (some(4) > 0) packets.data.set(packet, offset)
      else packets.data[offset + VNET_HEADER] = some(2) === 0 ? 0x45 : 0x60
      // The last packets may end with the buffer, or claim to reach beyond it.
      packets.desc.set([i < 60 ? offset : 8_192 - some(60), some(200) - 10], i * PACKET_WORDS)
      frames.desc[i * OPEN_WORDS + Open.offset] = i < 60 ? offset : 8_180
      frames.desc[i * OPEN_WORDS + Open.length] = some(3) * 12
      frames.desc[i * OPEN_WORDS + Open.status] = some(4) === 0 ? -1 : 0
    }
    packets.count = some(65)
    frames.count = some(65)
    ahead.packets(packets)
    ahead.frames(frames)
  }
  const bytes = (words: Int32Array) => Buffer.from(words.buffer, words.byteOffset, words.byteLength)
  t.ok(bytes(table.words).equals(bytes(before)), 'the table')
  t.end()
})
