import { test } from 'tap'
import { AddressTable } from '../../../lib/path/address-table.js'
import { isPinned } from '../../../lib/path/address-record.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { SourceChoice } from '../../../lib/path/source-choice.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'

const remote = (address: string) => encodeLocator({ address, port: 7474 })
const local = (last: number) => Uint8Array.from({ length: 16 }, (_, i) => (i < 4 ? [10, 0, 0, last][i]! : 0))
const token = (first: number) => new Uint8Array(8).fill(first)

function pinned(address: string, last: number): Uint8Array {
  const record = remote(address)
  record.set(local(last), ADDRESS_LOCAL)
  return record
}

test('a question goes from no own address, is answered once, and leaves no address slot behind', async (t) => {
  const addresses = new AddressTable(1)
  const choice = new SourceChoice(addresses)
  t.equal(choice.dueAt, Infinity)
  choice.ask(100)
  t.equal(choice.dueAt, 100)
  const slot = choice.probed(pinned('10.9.9.9', 1), token(1), 100, 30)
  t.strictSame(addresses.record(slot), remote('10.9.9.9'))
  t.notOk(isPinned(addresses.record(slot)))
  t.equal(choice.dueAt, 130, 'it is asked again when no answer has come')
  t.equal(choice.answered(token(2)), undefined)
  t.equal(choice.answered(token(1)), 100)
  t.equal(choice.answered(token(1)), undefined)
  t.equal(choice.dueAt, Infinity)
  t.equal(addresses.acquire(remote('10.9.9.8')), slot, 'the slot is free')
})

test('what was asked first may be answered last, but not once it is asked anew', async (t) => {
  const choice = new SourceChoice(new AddressTable(2))
  const from = pinned('10.9.9.9', 1)
  choice.ask(0)
  const slot = choice.probed(from, token(1), 0, 30)
  t.equal(choice.dueAt, 30)
  t.equal(choice.probed(from, token(2), 30, 30), slot)
  t.equal(choice.dueAt, 90, 'each probe has twice the time of the one before')
  t.equal(choice.answered(token(1)), 0)
  t.equal(choice.dueAt, Infinity)
  t.equal(choice.answered(token(2)), undefined, 'it is known already')
  choice.ask(100)
  choice.probed(from, token(3), 100, 30)
  choice.ask(110)
  t.equal(choice.dueAt, 110)
  t.equal(choice.answered(token(3)), undefined, 'the routes may have changed since')
  choice.probed(from, token(4), 110, 30)
  choice.probed(pinned('10.9.9.8', 1), token(5), 140, 30)
  t.equal(choice.answered(token(4)), undefined, 'it was asked of another address')
  t.equal(choice.answered(token(5)), 140)
})

test('a question without an answer is given up', async (t) => {
  const addresses = new AddressTable(1)
  const choice = new SourceChoice(addresses)
  choice.ask(0)
  let probes = 0
  while (choice.dueAt < Infinity)
    if (choice.probed(pinned('10.9.9.9', 1), token(probes), choice.dueAt, 30) >= 0) probes++
  t.equal(probes, 6)
  t.equal(choice.dueAt, Infinity)
  t.ok(addresses.acquire(remote('10.9.9.8')) >= 0, 'the slot is free')
  choice.ask(1_000)
  t.equal(choice.probed(pinned('10.9.9.9', 1), token(9), 1_000, 30), -1, 'no slot: nothing is asked')
  t.equal(choice.dueAt, Infinity)
})

test('an answer counts as another one for the same address of the peer only', async (t) => {
  const choice = new SourceChoice(new AddressTable(4))
  t.notOk(choice.knows(remote('10.9.9.9')))
  t.notOk(choice.answer(pinned('10.9.9.9', 1), local(1)), 'the first says nothing')
  t.ok(choice.knows(pinned('10.9.9.9', 2)))
  t.notOk(choice.answer(pinned('10.9.9.9', 1), local(1)))
  t.ok(choice.answer(pinned('10.9.9.9', 2), local(2)))
  t.notOk(choice.answer(pinned('10.9.9.8', 1), local(1)), 'another address of the peer')
  choice.learnt(remote('10.9.9.8'), local(3))
  t.ok(choice.answer(pinned('10.9.9.8', 1), local(1)))
  choice.release()
  t.notOk(choice.knows(remote('10.9.9.8')))
})
