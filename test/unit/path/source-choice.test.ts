import { test } from 'tap'
import { AddressTable } from '../../../lib/path/address-table.js'
import { isPinned } from '../../../lib/path/candidates.js'
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

test('a question without an answer is given up', async (t) => {
  const addresses = new AddressTable(1)
  const choice = new SourceChoice(addresses)
  choice.ask(0)
  let probes = 0
  while (choice.dueAt < Infinity)
    if (choice.probed(pinned('10.9.9.9', 1), token(probes), choice.dueAt, 30) >= 0) probes++
  t.equal(probes, 3)
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
