import t from 'tap'
import { isPinned, remoteKey, sameRemote, sameWay, wayKey } from '../../../lib/path/address-record.js'
import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../../../lib/wire/batch.js'

const record = (): Uint8Array => Uint8Array.from({ length: ADDRESS_RECORD }, (_, i) => 200 + i)
/** Behind others, as in a table. */
const OFFSET = 2 * ADDRESS_RECORD
const inTable = (one: Uint8Array): Uint8Array => {
  const table = new Uint8Array(4 * ADDRESS_RECORD).fill(7)
  table.set(one, OFFSET)
  return table
}

t.test('records are compared, and are keys, by every byte that matters', async (t) => {
  const one = record()
  t.ok(sameWay(one, inTable(record()), 0, OFFSET))
  t.ok(sameRemote(inTable(record()), one, OFFSET))
  t.equal(wayKey(inTable(one), OFFSET), wayKey(one))
  t.equal(remoteKey(inTable(one), OFFSET), remoteKey(one))
  for (let i = 0; i < ADDRESS_RECORD; i++) {
    const other = record()
    other[i]! ^= 1
    const own = i >= ADDRESS_LOCAL
    t.notOk(sameWay(one, other), `byte ${i}`)
    t.not(wayKey(one), wayKey(other))
    t.equal(sameRemote(one, inTable(other), 0, OFFSET), own)
    t.equal(remoteKey(one) === remoteKey(other), own)
  }
})

t.test('a record names an own address when any byte of it says so', async (t) => {
  const free = record().fill(0, ADDRESS_LOCAL)
  t.notOk(isPinned(free))
  t.notOk(isPinned(inTable(free), OFFSET))
  for (const at of [ADDRESS_LOCAL, ADDRESS_RECORD - 1]) {
    const pinned = free.slice()
    pinned[at] = 1
    t.ok(isPinned(pinned))
    t.ok(isPinned(inTable(pinned), OFFSET))
  }
})
