import { test } from 'tap'
import { fromHex, hostId } from '../../../lib/wire/ids.js'
import { decodeMove, encodeMove, MOVE_ADDRESSES_MAX, type MoveMessage } from '../../../lib/wire/move.js'
import { pack, type Packable } from '../../../lib/wire/pack.js'

const host = hostId(new Uint8Array(32).fill(9))
const four = Uint8Array.of(192, 0, 2, 1)
const message: MoveMessage = {
  kind: 'move',
  host,
  sequence: 2 ** 45,
  addresses: [
    { address: new Uint8Array(16).fill(0xfe), port: 7474, standing: 'usable' },
    { address: four, port: 1, standing: 'deprecated' },
    { address: four, port: 65_535, standing: 'gone' },
  ],
}

test('messages are read as they were written', async (t) => {
  t.strictSame(decodeMove(encodeMove(message)), message)
  const receipt: MoveMessage = { kind: 'receipt', sequence: 0 }
  t.strictSame(decodeMove(encodeMove(receipt)), receipt)
})

test('a host with more addresses than a message takes tells of the best', async (t) => {
  const addresses = Array.from({ length: MOVE_ADDRESSES_MAX + 3 }, (_, i) => ({
    address: Uint8Array.of(10, 0, 0, i),
    port: 7474,
    standing: 'usable' as const,
  }))
  const read = decodeMove(encodeMove({ ...message, addresses }))
  t.strictSame(read?.kind === 'move' && read.addresses, addresses.slice(0, MOVE_ADDRESSES_MAX))
})

test('what is out of bounds is no message; what a later version adds is left out', async (t) => {
  const move = [1, 0, fromHex(host), 7, [[four, 7474, 0]]]
  const read = (fields: Packable[]) => decodeMove(pack(fields))
  t.ok(read([...move, 'more']), 'a later version’s field')
  t.match(read(move.with(4, [[four, 7474, 3]])), { addresses: [] }, 'and standing')
  for (const bad of [
    move.with(0, 2),
    move.with(1, 2),
    move.with(2, four),
    move.with(3, -1),
    move.with(3, 1.5),
    move.with(4, [[four.subarray(1), 7474, 0]]),
    move.with(4, [[four, 0, 0]]),
    move.with(4, [[four, 65_536, 0]]),
    move.with(
      4,
      Array.from({ length: MOVE_ADDRESSES_MAX + 1 }, () => [four, 1, 0]),
    ),
    [1, 1],
    [1, 1, -1],
  ]) {
    t.equal(read(bad), undefined, JSON.stringify(bad))
  }
  t.equal(decodeMove(new Uint8Array(0)), undefined)
})
