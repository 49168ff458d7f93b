import { test } from 'tap'
import { decodeLocator, encodeLocator, formatLocator, locatorRecord, parseLocator } from '../../../lib/path/locator.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'

test('a locator survives its record and its text', (t) => {
  for (const locator of [
    { address: '192.0.2.1', port: 7474 },
    { address: '2001:db8::1', port: 1 },
    { address: '::1', port: 65_535 },
    { address: 'fe80::1', port: 443 },
  ]) {
    const record = encodeLocator(locator)
    t.equal(record.length, ADDRESS_RECORD)
    t.strictSame(decodeLocator(record), locator)
    t.strictSame(parseLocator(formatLocator(locator)), locator)
    const among = new Uint8Array(3 * ADDRESS_RECORD)
    among.set(record, ADDRESS_RECORD)
    t.strictSame(decodeLocator(among, ADDRESS_RECORD), locator)
  }
  t.end()
})

test('records are as the socket wants them', (t) => {
  const v4 = encodeLocator({ address: '10.1.2.3', port: 0x1234 })
  t.strictSame([...v4], [4, 0, 0x12, 0x34, 0, 0, 0, 0, 10, 1, 2, 3, ...new Array<number>(28).fill(0)])
  const v6 = encodeLocator({ address: '2001:db8::7', port: 80 })
  t.strictSame(
    [...v6],
    [
      6,
      0,
      0,
      80,
      0,
      0,
      0,
      0,
      0x20,
      1,
      0xd,
      0xb8,
      ...new Array<number>(11).fill(0),
      7,
      ...new Array<number>(16).fill(0),
    ],
  )
  t.end()
})

test('IPv4 in IPv6 is IPv4: one address has one record', (t) => {
  t.strictSame(encodeLocator({ address: '::ffff:10.0.0.1', port: 1 }), encodeLocator({ address: '10.0.0.1', port: 1 }))
  t.strictSame(parseLocator('[::ffff:10.0.0.1]:5'), { address: '10.0.0.1', port: 5 })
  t.end()
})

test('a zone is left out', (t) => {
  t.strictSame(decodeLocator(encodeLocator({ address: 'fe80::1%eth0', port: 9 })), { address: 'fe80::1', port: 9 })
  t.end()
})

test('texts that people write', (t) => {
  t.strictSame(parseLocator('192.0.2.1:80'), { address: '192.0.2.1', port: 80 })
  t.strictSame(parseLocator('192.0.2.1', 7474), { address: '192.0.2.1', port: 7474 })
  t.strictSame(parseLocator('[2001:DB8::1]:80'), { address: '2001:db8::1', port: 80 })
  t.strictSame(parseLocator('[2001:db8::1]', 7474), { address: '2001:db8::1', port: 7474 })
  t.strictSame(parseLocator('2001:db8::1', 7474), { address: '2001:db8::1', port: 7474 })
  t.end()
})

test('what is no locator', (t) => {
  for (const text of [
    '',
    ':80',
    '192.0.2.1',
    '192.0.2.1:0',
    '192.0.2.1:65536',
    '192.0.2.1:',
    '192.0.2.256:1',
    'host:80',
    '[::1',
    '::1]:80',
    '[::g]:1',
  ]) {
    t.equal(parseLocator(text), undefined, JSON.stringify(text))
  }
  t.equal(parseLocator('10.0.0.1', 0), undefined)
  for (const locator of [
    { address: 'host', port: 1 },
    { address: '10.0.0.1', port: 0 },
    { address: '10.0.0.1', port: 65_536 },
    { address: '10.0.0.1', port: 1.5 },
  ]) {
    t.throws(() => encodeLocator(locator), RangeError)
    t.equal(locatorRecord(locator), undefined, 'what others say is no reason to throw')
  }
  t.equal(decodeLocator(new Uint8Array(ADDRESS_RECORD)), undefined)
  t.equal(decodeLocator(Uint8Array.of(4, 0, 0, 0, ...new Array<number>(20).fill(1))), undefined, 'port 0')
  t.equal(decodeLocator(Uint8Array.of(5, 0, 0, 1, ...new Array<number>(20).fill(1))), undefined, 'no family')
  t.end()
})
