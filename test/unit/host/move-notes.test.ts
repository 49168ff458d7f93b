import { test } from 'tap'
import { MoveNotes, moveText } from '../../../lib/host/move-notes.js'
import { encodeLocator } from '../../../lib/path/locator.js'
import type { PathReason } from '../../../lib/path/path.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'
import { hostId } from '../../../lib/wire/ids.js'

const at = (address: string) => ({ address, port: 7474 })
const [A, A2, A6] = [at('10.0.0.1'), at('10.0.0.101'), at('fd77::1')]
const [B, B2, B6] = [at('10.0.0.2'), at('10.0.0.102'), at('fd77::2')]

function notes() {
  const peers = new PeerTable(hostId('0'.repeat(64)), 4)
  const moves = new MoveNotes(peers)
  const commit = (from: number, to: number, reason: PathReason, lossy = true) => ({
    ...{ peer: 1, from, to, reason, heardAt: 0, lossy, reachedAt: Infinity, openSince: Infinity },
  })
  const slot = (remote: typeof A, local?: typeof A) => {
    const record = encodeLocator(remote)
    if (local !== undefined) record.set(encodeLocator(local).subarray(8, 24), ADDRESS_LOCAL)
    return peers.addresses.acquire(record)
  }
  const told = (...args: Parameters<typeof commit>) => {
    const move = moves.committed(commit(...args))
    return move && moveText(move)
  }
  const settled = (to: number, reason: PathReason, stallMs: number) => {
    const move = moves.settled(commit(to, to, reason), stallMs)
    return move && moveText(move)
  }
  return { moves, slot, told, settled }
}

test('a move is told with the addresses that have changed, and then with the stall', (t) => {
  const { moves, slot, told, settled } = notes()
  moves.setOwn([A])
  const [first, second] = [slot(B), slot(B2)]
  t.equal(told(-1, first, 'established', false), '10.0.0.2:7474, established')
  t.equal(told(first, second, 'silent'), '10.0.0.2:7474 → 10.0.0.102:7474, silent')
  t.equal(settled(second, 'silent', 61.24), '10.0.0.2:7474 → 10.0.0.102:7474, silent, nothing came for 61.2 ms')
  t.same([moves.heardAgain, moves.stallMs], [1, 61.24])
  t.end()
})

test("a changed own address is a move, although the peer's is the same", (t) => {
  const { moves, slot, told, settled } = notes()
  moves.setOwn([A])
  const path = slot(B)
  told(-1, path, 'established', false)
  moves.setOwn([])
  moves.setOwn([A2])
  const text = 'from 10.0.0.1:7474 → 10.0.0.101:7474, address-gone'
  t.equal(told(path, path, 'address-gone'), text)
  t.equal(told(path, path, 'address-gone'), undefined, 'nothing new')
  t.equal(settled(path, 'address-gone', 3), `${text}, nothing came for 3.0 ms`)
  t.end()
})

test('moves one after the other, of which nothing was heard, are one stall from the first way to the last', (t) => {
  const { moves, slot, told, settled } = notes()
  moves.setOwn([A, A6])
  const [first, second, third] = [slot(B), slot(B2), slot(B6)]
  told(-1, first, 'established', false)
  told(first, second, 'silent')
  t.equal(
    told(second, third, 'address-gone'),
    '10.0.0.102:7474 → [fd77::2]:7474, from 10.0.0.1:7474 → [fd77::1]:7474, address-gone',
    'over to the other family',
  )
  t.match(settled(third, 'address-gone', 10), /^10\.0\.0\.2:7474 → \[fd77::2\]:7474, from /)
  moves.forget(1)
  t.equal(settled(third, 'address-gone', 10), undefined, 'of a session that is over')
  t.end()
})

test('among several own addresses the one that the path names is told', (t) => {
  const { moves, slot, told } = notes()
  moves.setOwn([A, A2])
  const [any, pinned] = [slot(B), slot(B, A2)]
  told(-1, any, 'established', false)
  t.equal(told(any, pinned, 'better', false), 'from any → 10.0.0.101:7474, better')
  t.end()
})
