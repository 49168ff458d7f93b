import { test } from 'tap'
import { Hold, PeerTable, SELF } from '../../../lib/path/peers.js'
import { hostId } from '../../../lib/wire/ids.js'

const id = (n: number) => hostId(new Uint8Array(32).fill(n))

test('this host is peer 0', (t) => {
  const peers = new PeerTable(id(9), 4)
  t.equal(peers.indexOf(id(9)), SELF)
  t.equal(peers.hostId(SELF), id(9))
  t.equal(peers.size, 1)
  t.end()
})

test('a host keeps its index for good', (t) => {
  const peers = new PeerTable(id(9), 4)
  const one = peers.add(id(1))
  const two = peers.add(id(2))
  t.not(one, two)
  t.equal(peers.add(id(1)), one)
  t.equal(peers.indexOf(id(2)), two)
  t.equal(peers.hostId(one), id(1))
  t.equal(peers.indexOf(id(3)), -1)
  t.equal(peers.size, 3)
  t.end()
})

test('a full table takes nobody else', (t) => {
  const peers = new PeerTable(id(9), 3)
  peers.add(id(1))
  peers.add(id(2))
  t.equal(peers.add(id(3)), -1)
  t.equal(peers.indexOf(id(3)), -1)
  t.equal(peers.add(id(1)), 1, 'known ones are still found')
  t.throws(() => peers.hostId(3), RangeError)
  t.throws(() => peers.hostId(-1), RangeError)
  t.end()
})

test('a new peer has neither session nor path', (t) => {
  const peers = new PeerTable(id(9), 3)
  const peer = peers.add(id(1))
  t.equal(peers.sealSlot[peer], -1)
  t.equal(peers.addressSlot[peer], -1)
  t.equal(peers.rttMs[peer], 0)
  t.equal(peers.pathMtu[peer], 0)
  t.end()
})

test('hosts of a former process have their indexes again; those in between are for others', (t) => {
  const peers = new PeerTable(id(9), 6)
  t.ok(peers.restore(SELF, id(9)))
  t.notOk(peers.restore(SELF, id(1)), 'this host is another one')
  t.notOk(peers.restore(1, id(9)), 'this host has another index')
  t.ok(peers.restore(2, id(2)))
  t.ok(peers.restore(4, id(4)))
  t.notOk(peers.restore(5, id(4)), 'twice')
  t.notOk(peers.restore(3, id(3)), 'not in their order')
  t.notOk(peers.restore(6, id(6)), 'beyond the table')
  t.same([peers.indexOf(id(2)), peers.indexOf(id(4)), peers.size], [2, 4, 5])
  t.same(
    [0, 1, 2, 3, 4].map((index) => peers.has(index)),
    [true, false, true, false, true],
  )
  t.throws(() => peers.hostId(1), RangeError)
  t.same([peers.add(id(5)), peers.add(id(6)), peers.add(id(7)), peers.add(id(8))].sort(), [-1, 1, 3, 5])
  t.end()
})

test('frames wait for as long as there is a reason, whatever becomes of the path', (t) => {
  const peers = new PeerTable(id(9), 3)
  const peer = peers.add(id(1))
  peers.setPath(peer, 5)
  t.equal(peers.addressSlot[peer], 5)
  t.notOk(peers.hold(peer, Hold.noWay, true))
  t.notOk(peers.hold(peer, Hold.paused, true))
  peers.setPath(peer, 6)
  t.equal(peers.addressSlot[peer], -1)
  t.equal(peers.pathSlot[peer], 6, 'the host’s own frames go')
  t.notOk(peers.hold(peer, Hold.noWay, false))
  t.equal(peers.addressSlot[peer], -1)
  t.ok(peers.isHeld(peer, Hold.paused))
  t.ok(peers.hold(peer, Hold.paused, false), 'the last one')
  t.equal(peers.addressSlot[peer], 6)
  t.notOk(peers.hold(peer, Hold.paused, false), 'only once')
  t.end()
})
