import { test } from 'tap'
import { encodeLocator } from '../../../lib/path/locator.js'
import { RateLimit } from '../../../lib/session/rate-limit.js'

const from = (address: string, port = 1) => encodeLocator({ address, port })

test('burst, then the rate', async (t) => {
  const limit = new RateLimit()
  const passed = (start: number, n: number, step: number) => {
    let count = 0
    for (let i = 0; i < n; i++) if (limit.allow(from('192.0.2.1', i + 1), start + i * step)) count++
    return count
  }
  t.equal(passed(0, 20, 0), 5)
  t.equal(passed(1000, 1000, 1), 5 + 19)
  t.ok(limit.allow(from('192.0.2.2'), 2000), 'others are not concerned')
})

test('an IPv6 source is its /64, a link-local one its whole address and interface', async (t) => {
  const limit = new RateLimit({ burst: 1, rate: 0.001 })
  t.ok(limit.allow(from('2001:db8::1'), 0))
  t.notOk(limit.allow(from('2001:db8::2'), 0))
  t.ok(limit.allow(from('2001:db8:0:1::1'), 0))
  t.ok(limit.allow(from('fe80::1'), 0))
  t.ok(limit.allow(from('fe80::2'), 0))
  const scoped = from('fe80::1')
  scoped[4] = 3
  t.ok(limit.allow(scoped, 0))
  t.notOk(limit.allow(scoped, 0))
})

test('memory is bounded: buckets that are full again make room, else the unknown are refused', async (t) => {
  const limit = new RateLimit({ capacity: 100 })
  const source = (i: number) => from(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`)
  for (let i = 0; i < 100; i++) t.ok(limit.allow(source(i), 0))
  t.notOk(limit.allow(source(100), 0))
  t.ok(limit.allow(source(50), 0), 'the known go on')
  t.equal(limit.size, 100)
  for (let i = 0; i < 1000; i++) limit.allow(source(1000 + i), 1000 + i * 50)
  t.equal(limit.size, 100)
})
