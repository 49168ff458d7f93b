import { test } from 'tap'
import { isPinned, remoteKey } from '../../../lib/path/address-record.js'
import { OwnAddresses } from '../../../lib/path/candidates.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'

const record = (address: string) => encodeLocator({ address, port: 7474 })
const own = (address: string, deprecated = false) => ({ record: record(address), deprecated })
/** The own address that a record names, of four bytes. */
const localOf = (way: Uint8Array) => [...way.subarray(ADDRESS_LOCAL, ADDRESS_LOCAL + 4)].join('.')

test('with one address a family the kernel chooses', async (t) => {
  const addresses = new OwnAddresses()
  t.strictSame(addresses.ways(record('10.9.9.9'), 8), [record('10.9.9.9')], 'as with none known')
  addresses.set([own('10.0.0.1'), own('2001:db8::1')])
  for (const remote of ['10.9.9.9', '2001:db8::9']) {
    const ways = addresses.ways(record(remote), 8)
    t.equal(ways.length, 1)
    t.notOk(isPinned(ways[0]!))
  }
})

test('with several, each is a way, the one nearest to the peer first, bounded', async (t) => {
  const addresses = new OwnAddresses()
  addresses.set([own('10.0.0.1'), own('192.168.1.1'), own('192.168.2.1'), own('2001:db8::1')])
  t.strictSame(addresses.ways(record('192.168.2.9'), 8).map(localOf), ['192.168.2.1', '192.168.1.1', '10.0.0.1'])
  t.equal(addresses.ways(record('192.168.2.9'), 2).length, 2)
  t.notOk(isPinned(addresses.ways(record('2001:db8::9'), 8)[0]!), 'the other family has one')
  for (const way of addresses.ways(record('192.168.2.9'), 8)) t.equal(remoteKey(way), remoteKey(record('192.168.2.9')))
})

test('what is about to go is no way to begin with, and known for what it is', async (t) => {
  const addresses = new OwnAddresses()
  addresses.set([own('10.0.0.1', true), own('10.0.1.1')])
  const [old] = (() => {
    const before = new OwnAddresses()
    before.set([own('10.0.0.1'), own('10.0.0.2')])
    return before.ways(record('10.0.0.9'), 1)
  })()
  t.strictSame(addresses.ways(record('10.0.0.9'), 8).map(localOf), ['10.0.1.1'])
  t.equal(addresses.standing(old!), 'deprecated')
  addresses.set([own('10.0.1.1')])
  t.equal(addresses.standing(old!), 'gone')
  t.equal(addresses.standing(record('10.0.0.9')), 'usable', 'what names none')
})
