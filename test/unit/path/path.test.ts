import { test } from 'tap'
import { encodeLocator } from '../../../lib/path/locator.js'
import { Path } from '../../../lib/path/path.js'
import { Remote } from '../../../lib/path/remote.js'

const newPath = () => new Path(1, new Remote(encodeLocator({ address: '10.9.0.1', port: 7474 })), 0)
const token = (n: number) => new Uint8Array(16).fill(n)

test('a round trip is what its own probe took; the ones before it count as lost', async (t) => {
  const path = newPath()
  path.set('proven', 'proven', 0)
  path.probed(token(1), 100)
  path.probed(token(2), 200)
  t.equal(path.echoed(token(9), 205), undefined, 'nobody sent that')
  t.equal(path.echoed(token(2), 210), 200)
  t.equal(path.rttMs, 10)
  t.equal(path.loss, 0.5)
  t.equal(path.echoed(token(1), 211), undefined, 'a token is good once, and never behind a later one')
  t.equal(path.echoed(token(2), 211), undefined)
  t.ok(path.remote.validated)
  t.equal(path.provenAt, 210)
  t.strictSame(path.pending, [])
})

test('an echo that overtakes another does not make that one lost', async (t) => {
  const path = newPath()
  path.set('proven', 'proven', 0)
  path.probed(token(1), 100)
  path.probed(token(2), 105)
  t.equal(path.echoed(token(2), 115), 105)
  t.equal(path.echoed(token(1), 118), 100)
  t.equal(path.reachedAt, 105)
  t.equal(path.samples, 2)
  t.equal(path.loss, 0)
  t.strictSame(path.pending, [])
})

test('the round trip is smoothed, and so is its deviation', async (t) => {
  const path = newPath()
  const rtts = [80, 80, 160, 80, 80]
  for (const [i, rtt] of rtts.entries()) {
    path.probed(token(i), 1_000 * i)
    path.echoed(token(i), 1_000 * i + rtt)
  }
  t.ok(path.rttMs > 80 && path.rttMs < 95, `${path.rttMs}`)
  t.ok(path.rttVarMs > 5 && path.rttVarMs < 40, `${path.rttVarMs}`)
  t.equal(path.samples, rtts.length)
})

test('how far it is does not depend on how busy either end was', async (t) => {
  const path = newPath()
  t.equal(path.leastRttMs, 0, 'not measured')
  const measure = (i: number, rtt: number): number => {
    path.probed(token(i), 1_000 * i)
    path.echoed(token(i), 1_000 * i + rtt)
    return path.leastRttMs
  }
  t.equal(measure(0, 60), 0)
  t.equal(measure(1, 3), 0)
  t.equal(measure(2, 60), 0, 'too few')
  for (let i = 3; i < 10; i++) t.equal(measure(i, 60), 3, `${i}`)
  // Farther away now: 16 samples later at the latest that is known.
  for (let i = 10; i < 18; i++) measure(i, 80)
  t.equal(path.leastRttMs, 60)
})

test('an echo is overdue when it takes longer than it usually deviates by, and a little', async (t) => {
  const path = newPath()
  path.probed(token(1), 0)
  path.echoed(token(1), 100)
  path.probed(token(2), 1_000)
  path.probed(token(3), 1_050)
  t.equal(path.misses(1_000 + path.patience - 1), 0)
  t.equal(path.misses(1_000 + path.patience), 1)
  t.equal(path.misses(1_050 + path.patience), 2)
  t.ok(path.patience >= 145 && path.patience < 200, `${path.patience}`)
  path.forgetProbes()
  t.equal(path.misses(10_000), 0)
})

test('what is lost while a path is dead does not make it one that loses much', async (t) => {
  const path = newPath()
  path.set('proven', 'proven', 0)
  const probe = (i: number, comes: boolean) => {
    path.probed(token(i), i * 100)
    if (comes) path.echoed(token(i), i * 100 + 1)
  }
  for (let i = 0; i < 20; i++) probe(i, true)
  for (let i = 20; i < 23; i++) probe(i, false)
  path.set('suspect', 'silent', 2_300)
  for (let i = 23; i < 60; i++) probe(i, false)
  probe(60, true)
  path.set('proven', 'proven', 6_001)
  t.equal(path.loss, 0)
  probe(61, false)
  probe(62, true)
  t.ok(path.loss > 0.02 && path.loss < 0.1, `${path.loss}: a single one that is lost among others counts`)
})

test('what is remembered is bounded, and the loss is of the last 32 probes', async (t) => {
  const path = newPath()
  path.set('proven', 'proven', 0)
  for (let i = 0; i < 100; i++) path.probed(token(i), i)
  t.equal(path.pending.length, 16)
  t.equal(path.loss, 1)
  for (let i = 0; i < 40; i++) {
    path.probed(token(200), 1_000 + i)
    path.echoed(token(200), 1_001 + i)
  }
  t.equal(path.loss, 0)
})

test('what either end gives up is of no use, what it is about to give up does not last', async (t) => {
  const path = newPath()
  path.set('proven', 'proven', 5)
  t.match(path, { proven: true, lasting: true, reason: 'proven', changedAt: 5, changes: 1 })
  path.set('proven', 'silent', 6)
  t.match(path, { reason: 'proven', changes: 1 }, 'no change')
  path.remote.standing = 'deprecated'
  t.match(path, { proven: true, usable: true, lasting: false })
  path.local = 'gone'
  t.match(path, { proven: false, usable: false })
})
