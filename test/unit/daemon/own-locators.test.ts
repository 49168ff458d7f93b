import { test } from 'tap'
import { native } from '../../../daemon/native.js'
import { linkMtu } from '../../../daemon/own-locators.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import { ADDRESS_RECORD } from '../../../lib/wire/batch.js'

test('what a path is taken to carry until it is probed', (t) => {
  t.equal(linkMtu(0, 1420), 0, 'no route')
  t.equal(linkMtu(1500, 1420), 1500)
  t.equal(linkMtu(1400, 1420), 1400)
  t.equal(linkMtu(68, 1420), 576, 'every path carries that, in fragments if need be')
  t.equal(linkMtu(9000, 1420), 1500, 'what lies behind the first link may be narrower')
  t.equal(linkMtu(9000, 8900), 8980, 'unless the TUN says that it is not')
  t.equal(linkMtu(1500, 8900), 1500)
  t.end()
})

test('the kernel says by which MTU it reaches an address', (t) => {
  t.ok(native().routeMtu(encodeLocator({ address: '127.0.0.1', port: 9 })) >= 16_384, 'loopback')
  t.equal(native().routeMtu(new Uint8Array(ADDRESS_RECORD)), 0, 'an empty record')
  t.throws(() => native().routeMtu(new Uint8Array(4)), { code: 'CARACAL_E_RANGE' })
  t.end()
})
