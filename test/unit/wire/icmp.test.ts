import { test } from 'tap'
import { icmp4Kind, icmp6Kind, icmpCodes, IcmpKind, isIcmpKind } from '../../../lib/wire/icmp.js'

/** An error of one family as the other has it. */
function to6(type: number, code: number) {
  const kind = icmp4Kind(type, code)
  return kind === undefined ? undefined : icmpCodes(kind)?.slice(2)
}
function to4(type: number, code: number) {
  const kind = icmp6Kind(type, code)
  return kind === undefined ? undefined : icmpCodes(kind)?.slice(0, 2)
}

test('IPv4 errors for IPv6, as RFC 7915 section 4.2 says', (t) => {
  for (const code of [0, 1, 5, 6, 7, 8, 11, 12]) t.same(to6(3, code), [1, 0], `unreachable ${code}`)
  for (const code of [9, 10, 13, 15]) t.same(to6(3, code), [1, 1], `prohibited ${code}`)
  t.same(to6(3, 2), [4, 1])
  t.same(to6(3, 3), [1, 4])
  t.same(to6(3, 4), [2, 0])
  t.same(to6(11, 0), [3, 0])
  t.same(to6(11, 1), [3, 1])
  for (const [type, code] of [
    [3, 14],
    [3, 16],
    [4, 0],
    [5, 1],
    [12, 0],
    [11, 2],
    [0, 0],
  ] as const) {
    t.equal(to6(type, code), undefined, `${type}/${code} is not carried`)
  }
  t.end()
})

test('IPv6 errors for IPv4, as RFC 7915 section 5.2 says', (t) => {
  for (const code of [0, 2, 3]) t.same(to4(1, code), [3, 1])
  t.same(to4(1, 1), [3, 10])
  t.same(to4(1, 4), [3, 3])
  t.same(to4(2, 0), [3, 4])
  t.same(to4(3, 0), [11, 0])
  t.same(to4(3, 1), [11, 1])
  t.same(to4(4, 1), [3, 2])
  for (const [type, code] of [
    [4, 0],
    [4, 2],
    [1, 9],
    [100, 0],
  ] as const)
    t.equal(to4(type, code), undefined)
  t.end()
})

test('within a family an error stays what it was', (t) => {
  for (const [type, code] of [
    [3, 0],
    [3, 1],
    [3, 2],
    [3, 3],
    [3, 4],
    [3, 10],
    [11, 0],
    [11, 1],
  ] as const) {
    t.same(icmpCodes(icmp4Kind(type, code) ?? 0)?.slice(0, 2), [type, code])
  }
  for (const [type, code] of [
    [1, 0],
    [1, 1],
    [1, 3],
    [1, 4],
    [2, 0],
    [3, 0],
    [3, 1],
    [4, 1],
  ] as const) {
    t.same(icmpCodes(icmp6Kind(type, code) ?? 0)?.slice(2), [type, code])
  }
  t.end()
})

test('kinds from frames are checked', (t) => {
  for (const kind of Object.values(IcmpKind)) t.equal(isIcmpKind(kind), true)
  t.equal(isIcmpKind(0), false)
  t.equal(isIcmpKind(99), false)
  t.equal(icmpCodes(99), undefined)
  t.end()
})
