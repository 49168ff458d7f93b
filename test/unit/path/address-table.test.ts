import { test } from 'tap'
import { AddressTable } from '../../../lib/path/address-table.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { ADDRESS_LOCAL, ADDRESS_RECORD } from '../../../lib/wire/batch.js'

const record = (n: number, port = 7474) => encodeLocator({ address: `10.0.${n >> 8}.${n & 255}`, port })

test('one address has one slot, however many hold it', (t) => {
  const table = new AddressTable(4)
  const slot = table.acquire(record(1))
  t.equal(table.acquire(record(1)), slot)
  t.not(table.acquire(record(2)), slot)
  t.not(table.acquire(record(1, 80)), slot, 'another port is another address')
  t.strictSame(table.record(slot), record(1))
  t.strictSame(table.records.slice(slot * ADDRESS_RECORD, (slot + 1) * ADDRESS_RECORD), record(1))
  t.end()
})

test('a slot is free again when its last holder lets go', (t) => {
  const table = new AddressTable(1)
  const slot = table.acquire(record(1))
  table.acquire(record(1))
  table.release(slot)
  t.equal(table.acquire(record(2)), -1, 'still held')
  table.release(slot)
  t.equal(table.acquire(record(2)), slot)
  t.strictSame(table.record(slot), record(2))
  t.end()
})

test('one release too many takes nothing from anybody', (t) => {
  const table = new AddressTable(2)
  const slot = table.acquire(record(1))
  table.release(slot)
  table.release(slot)
  table.release(99)
  const again = table.acquire(record(3))
  const other = table.acquire(record(4))
  t.not(again, other)
  t.strictSame(table.record(again), record(3))
  t.equal(table.acquire(record(5)), -1)
  t.end()
})

test('a record among others is found and compared without a copy', (t) => {
  const table = new AddressTable(4)
  const many = new Uint8Array(3 * ADDRESS_RECORD)
  many.set(record(7), ADDRESS_RECORD)
  const slot = table.acquire(many, ADDRESS_RECORD)
  t.ok(table.matches(slot, many, ADDRESS_RECORD))
  t.notOk(table.matches(slot, many, 0))
  t.notOk(table.matches(slot, record(7, 7475), 0))
  many.fill(0)
  t.strictSame(table.record(slot), record(7), 'the table keeps its own')
  t.end()
})

test('filled and emptied many times, no slot is lost', (t) => {
  const table = new AddressTable(64)
  for (let round = 0; round < 20; round++) {
    const slots = Array.from({ length: 64 }, (_, i) => table.acquire(record(round * 64 + i)))
    t.equal(new Set(slots).size, 64)
    t.equal(table.acquire(record(60_000)), -1)
    slots.forEach((slot) => table.release(slot))
  }
  t.end()
})

test('the own address counts where the slot names one', (t) => {
  const table = new AddressTable(4)
  const from = (own: number) => {
    const bytes = record(1)
    bytes.set([10, 9, 0, own], ADDRESS_LOCAL)
    return bytes
  }
  const free = table.acquire(record(1))
  const pinned = table.acquire(from(1))
  t.not(pinned, free)
  t.ok(table.matches(free, record(1), 0))
  t.ok(table.matches(free, from(1), 0), 'the kernel may have chosen that')
  t.ok(table.matches(pinned, from(1), 0))
  t.notOk(table.matches(pinned, from(2), 0))
  t.notOk(table.matches(pinned, record(1), 0))
  t.notOk(table.matches(free, record(2), 0))
  t.end()
})
