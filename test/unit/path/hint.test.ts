import { test } from 'tap'
import { decodeHint, encodeHint, HINT_HOSTS_MAX, HINT_LOCATORS_MAX, type HintedHost } from '../../../lib/path/hint.js'
import { fromHex, hostId } from '../../../lib/wire/ids.js'
import { HINT_MAX } from '../../../lib/wire/open.js'
import { pack } from '../../../lib/wire/pack.js'

const id = (n: number) => hostId(n.toString(16).padStart(64, '0'))
const locator = (n: number) => ({ address: `2001:db8::${n}`, port: 65_535 - n })
const hosts: HintedHost[] = [
  { kind: 'instance', host: id(1), locators: [{ address: '192.0.2.1', port: 7474 }, locator(1)] },
  { kind: 'resolver', host: id(2), locators: [] },
]

test('a hint is read as it was written', async (t) => {
  t.strictSame(decodeHint(encodeHint(hosts)), hosts)
  t.strictSame(decodeHint(encodeHint([])), [])
})

test('the largest hint fits the frame; what is more is left out', async (t) => {
  const many = Array.from({ length: 9 }, (_, i) => ({
    kind: 'resolver' as const,
    host: id(i),
    locators: Array.from({ length: 9 }, (_, n) => locator(n)),
  }))
  const bytes = encodeHint(many)
  t.ok(bytes.length <= HINT_MAX, `${bytes.length} bytes`)
  const read = decodeHint(bytes)
  t.equal(read?.length, HINT_HOSTS_MAX)
  t.ok(read?.every(({ locators }) => locators.length === HINT_LOCATORS_MAX))
})

test('what is no address is not written', async (t) => {
  const bytes = encodeHint([{ kind: 'instance', host: id(1), locators: [{ address: 'here', port: 1 }, locator(1)] }])
  t.strictSame(decodeHint(bytes)?.[0]?.locators, [locator(1)])
})

test('later versions: further fields and kinds are left aside, another version is none', async (t) => {
  const host = (kind: number) => [kind, fromHex(id(1)), [[Uint8Array.of(192, 0, 2, 1), 9, 'more']], 'more']
  t.strictSame(decodeHint(pack([1, [host(0), host(7)], 'more'])), [
    { kind: 'instance', host: id(1), locators: [{ address: '192.0.2.1', port: 9 }] },
  ])
  t.equal(decodeHint(pack([2, [host(0)]])), undefined)
  t.equal(decodeHint(pack([1, [host(0), host(0), host(0), host(0)]])), undefined)
  t.equal(decodeHint(pack([1, [[0, fromHex(id(1)), [[Uint8Array.of(1, 2, 3), 9]]]]])), undefined)
  t.equal(decodeHint(pack([1, [[0, fromHex(id(1)), [[Uint8Array.of(1, 2, 3, 4), 0]]]]])), undefined)
})
