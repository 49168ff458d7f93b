import { test } from 'tap'
import { decodeLocator, encodeLocator, formatLocator, parseLocator } from '../../../lib/path/locator.js'
import { ReflexiveAddresses } from '../../../lib/path/reflexive.js'

const NAT = '203.0.113.9:40001'
const record = (text: string) => encodeLocator(parseLocator(text)!)

/** What is believed, as it changes. */
function rig() {
  const told: string[][] = []
  const reflexive = new ReflexiveAddresses((records) =>
    told.push(records.map((one) => formatLocator(decodeLocator(one)!))),
  )
  reflexive.setOwn([record('192.168.1.5:7474')])
  let now = 0
  const pass = (ms: number) => {
    for (const end = now + ms; ;) {
      const next = reflexive.nextTimeout()
      if (next > end) {
        now = end
        return
      }
      now = Math.max(now, next)
      reflexive.handleTimeout(now)
    }
  }
  return { reflexive, told, pass, see: (peer: number, at: string) => reflexive.seen(peer, record(at), now) }
}

test('where several peers see this host is believed, where one does is not', async (t) => {
  const { told, see, pass } = rig()
  see(1, NAT)
  pass(60_000)
  t.strictSame(told, [])
  see(2, NAT)
  pass(10_000)
  t.strictSame(told, [[NAT]])
  see(3, '203.0.113.9:40002')
  pass(10_000)
  t.equal(told.length, 1)
})

test('a NAT that shows this host to each peer at another port, and a peer that lies, are believed nothing', async (t) => {
  const { told, see, pass } = rig()
  for (let peer = 1; peer < 10; peer++) see(peer, `203.0.113.9:${41_000 + peer}`)
  for (let i = 0; i < 50; i++) {
    see(1, '198.51.100.1:53')
    pass(6_000)
  }
  t.strictSame(told, [])
})

test('its own addresses are no news', async (t) => {
  const { reflexive, told, see, pass } = rig()
  for (const peer of [1, 2, 3]) see(peer, '192.168.1.5:7474')
  pass(60_000)
  t.strictSame(told, [])
  for (const peer of [1, 2, 3]) see(peer, NAT)
  pass(10_000)
  t.strictSame(told, [[NAT]])
  reflexive.setOwn([record('192.168.7.7:7474')])
  for (const peer of [1, 2, 3]) see(peer, '192.168.7.7:7474')
  pass(100_000)
  t.equal(told.length, 1, 'what was seen before is forgotten with the address that it was seen of')
})

test('what is not seen any more is forgotten, and a rebinding followed; the few that most see are kept', async (t) => {
  const { reflexive, told, see, pass } = rig()
  for (const peer of [1, 2]) see(peer, NAT)
  pass(10_000)
  for (const peer of [1, 2]) see(peer, '203.0.113.9:50000')
  pass(10_000)
  t.strictSame(told.at(-1), ['203.0.113.9:50000'])
  for (let peer = 1; peer < 9; peer++) see(peer, `203.0.113.9:${60_000 + (peer >> 1)}`)
  for (const peer of [2, 3, 4, 5]) see(peer, '203.0.113.9:60001')
  pass(10_000)
  t.equal(told.at(-1)!.length, 2)
  t.equal(told.at(-1)![0], '203.0.113.9:60001')
  for (let peer = 1; peer < 9; peer++) reflexive.forget(peer)
  pass(400_000)
  t.strictSame(told.at(-1), [])
  t.equal(reflexive.nextTimeout(), Infinity)
  for (const peer of [1, 2]) see(peer, NAT)
  pass(10_000)
  pass(400_000)
  t.strictSame(told.at(-1), [], 'by age, too')
})
