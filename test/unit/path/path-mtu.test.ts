import { test } from 'tap'
import { MAX_PROBES, PathMtu, pathMtuDefaults, type PathMtuOptions } from '../../../lib/path/path-mtu.js'
import { EventQueue } from '../../sim/event-queue.js'
import { seededRandom } from '../../tools/seeded-random.js'

interface LineOptions {
  readonly family?: 4 | 6
  /** Of our own link to there. */
  readonly link?: number
  readonly mtu?: number
  /** Each way. */
  readonly loss?: number
  readonly oneWayMs?: number
  readonly jitterMs?: number
  readonly seed?: number
  readonly machine?: Partial<PathMtuOptions>
}

const START = 1_000

/** A path that carries packets up to `mtu`, and frames that go by it all the time. */
class Line {
  mtu: number
  loss: number
  readonly path: PathMtu
  readonly events = new EventQueue(START)
  readonly random: () => number
  sent: number[] = []
  /** Every value that the path's MTU has had. */
  readonly seen: number[] = []

  constructor({ family = 4, link = 1500, mtu = link, loss = 0, ...rest }: LineOptions = {}) {
    const { oneWayMs = 5, jitterMs = 0, seed = 1, machine = {} } = rest
    this.mtu = mtu
    this.loss = loss
    this.random = seededRandom(seed)
    const send = (size: number, token: Uint8Array) => {
      this.sent.push(size)
      if (size > this.mtu || this.random() < this.loss || this.random() < this.loss) return
      const after = 2 * oneWayMs + this.random() * jitterMs
      this.events.at(this.now + after, () => this.path.probeAcknowledged(token, this.now))
    }
    const randomBytes = (length: number) => Uint8Array.from({ length }, () => this.random() * 256)
    this.path = new PathMtu({ send, randomBytes, rttMs: () => 2 * oneWayMs }, family, link, START, machine)
    this.seen.push(this.path.mtu)
  }

  get now(): number {
    return this.events.now
  }

  run(ms: number, used = true): void {
    for (const end = this.now + ms; this.now < end;) {
      const { path } = this
      if (used) path.used(this.now)
      this.events.run(Math.min(end, this.now + 5))
      if (path.nextTimeout() <= this.now) path.handleTimeout(this.now)
      if (path.mtu !== this.seen.at(-1)) this.seen.push(path.mtu)
    }
  }

  /** ms until it is what it says; Infinity: not within the time. */
  until(mtu: number, ms = 60_000): number {
    const start = this.now
    while (this.now < start + ms) {
      if (this.path.mtu === mtu && this.path.phase === 'complete') return this.now - start
      this.run(5)
    }
    return Infinity
  }
}

test('the largest size is tried first, and on most networks that is the end of it', (t) => {
  for (const link of [1500, 1280, 1000, 576, 9000]) {
    const line = new Line({ link })
    t.equal(line.path.mtu, link, 'used before it is proven')
    t.ok(line.until(link) <= 25, `${link} is proven within two round trips`)
    t.equal(line.sent.filter((size) => size > 0).length, 1)
    t.strictSame(line.seen, [link])
  }
  const line = new Line({ link: 60_000 })
  t.equal(line.path.mtu, 9000, 'never above 9,000')
  t.equal(new Line({ family: 6, link: 1000 }).path.mtu, 1280, 'every IPv6 path carries 1,280')
  t.end()
})

test('a narrower path is found, downwards and upwards', (t) => {
  for (const family of [4, 6] as const) {
    for (const mtu of [9000, 8000, 4352, 1500, 1499, 1492, 1460, 1420, 1400, 1337, 1281, 1280, 1006, 999, 600, 576]) {
      if (family === 6 && mtu < 1280) continue
      const line = new Line({ family, link: 9000, mtu })
      line.run(20_000)
      const { path } = line
      t.equal(path.phase, 'complete', `${mtu}`)
      t.ok(path.mtu <= mtu && path.mtu > mtu - 8, `IPv${family}: ${mtu} is taken for ${path.mtu}`)
      if ([8000, 4352, 1500, 1492, 1460, 1420, 1400, 1280, 1006].includes(mtu)) t.equal(path.mtu, mtu, 'exactly')
    }
  }
  t.end()
})

test('the search takes a few round trips and tenths of a second', (t) => {
  for (const [oneWayMs, limit] of [
    [0.1, 2_000],
    [40, 3_500],
  ] as const) {
    const line = new Line({ link: 1500, mtu: 1400, oneWayMs })
    line.run(10 * oneWayMs + 400)
    t.ok(line.path.mtu < 1500, 'what is too large is not used for long')
    t.ok(line.until(1400) < limit, `${oneWayMs} ms`)
  }
  t.end()
})

test('loss of any kind is not taken for a size', (t) => {
  for (const loss of [0.01, 0.05, 0.13, 0.3]) {
    for (let seed = 0; seed < 150; seed++) {
      const line = new Line({ loss, seed, oneWayMs: [0.1, 5, 40, 150][seed % 4]!, jitterMs: seed % 3 === 0 ? 8 : 0 })
      for (let i = 0; i < 120; i++) {
        line.run(500)
        line.path.hint(line.now)
      }
      t.strictSame(line.seen, [1500], `${loss}, seed ${seed}`)
    }
  }
  t.end()
})

test('a narrow path is found through loss', (t) => {
  for (let seed = 0; seed < 60; seed++) {
    const line = new Line({ loss: 0.13, seed, mtu: 1400 })
    line.run(300_000)
    const { path } = line
    t.ok(path.mtu <= 1400 && path.mtu >= 1380, `seed ${seed}: ${path.mtu}`)
  }
  t.end()
})

test('a path that becomes narrower is found by a hint at once, else within seconds', (t) => {
  for (const hinted of [true, false]) {
    const line = new Line()
    line.until(1500)
    line.run(1_000)
    line.mtu = 1400
    if (hinted) line.path.hint(line.now)
    line.run(hinted ? 450 : 450 + pathMtuDefaults.confirmMs)
    t.ok(line.path.mtu < 1500)
    t.ok(line.until(1400) < 2_000)
    t.equal(line.path.shrunk, 1)
  }
  // Below BASE, and below what there is.
  const line = new Line()
  line.until(1500)
  line.mtu = 700
  line.run(20_000)
  t.ok(line.path.mtu <= 700 && line.path.mtu > 692)
  line.mtu = 500
  line.run(20_000)
  t.equal(line.path.mtu, 576)
  t.equal(line.path.phase, 'error')
  line.mtu = 1500
  t.ok(line.until(1500) < 20_000, 'and it comes back')
  t.end()
})

test('a hint is heeded also when the size has just been confirmed, or is being confirmed', (t) => {
  for (const oneWayMs of [5, 150]) {
    const line = new Line({ oneWayMs })
    line.until(1500)
    const probes = line.sent.length
    while (line.sent.length === probes) line.run(5)
    line.run(oneWayMs)
    // The probe has passed, and its echo is on the way.
    line.mtu = 1400
    line.path.hint(line.now)
    line.run(450 + 8 * oneWayMs)
    t.ok(line.path.mtu < 1500, `${oneWayMs} ms`)
  }
  t.end()
})

test('a hint soon after another one is heeded as soon as it may be, and no more of them than that', (t) => {
  const { hintMs } = pathMtuDefaults
  const line = new Line()
  line.until(1500)
  line.path.hint(line.now)
  line.run(100)
  line.mtu = 1400
  t.ok(line.path.isHintDue(line.now))
  line.path.hint(line.now)
  t.notOk(line.path.isHintDue(line.now), 'it lies ahead')
  line.run(hintMs - 150)
  t.equal(line.path.mtu, 1500)
  line.run(300)
  t.ok(line.path.mtu < 1500)

  const renewed = new Line()
  renewed.until(1500)
  renewed.path.hint(renewed.now)
  renewed.run(100)
  renewed.mtu = 1400
  renewed.path.renewed(renewed.now)
  renewed.run(300)
  t.ok(renewed.path.mtu < 1500, 'at once where the peer has been away')

  const asked = new Line()
  asked.until(1500)
  asked.sent = []
  for (let i = 0; i < 1_000; i++) {
    asked.path.hint(asked.now)
    asked.run(5)
  }
  t.ok(asked.sent.length >= 18 && asked.sent.length <= 24, `${asked.sent.length} probes and controls in 5 s`)
  t.end()
})

test('a path that is silent in the middle of a trial does not slow down what follows', (t) => {
  const line = new Line({ oneWayMs: 150 })
  line.until(1500)
  line.mtu = 1400
  line.path.hint(line.now)
  // The first probe counts as lost, and what follows it is.
  line.run(370)
  line.loss = 1
  line.run(400)
  line.loss = 0
  const since = line.now
  while (line.path.mtu === 1500 && line.now < since + 60_000) line.run(5)
  t.ok(line.now - since < 1_500, `${line.now - since} ms`)
  t.end()
})

test('a path that becomes wider is found by the raise timer, sooner when links change', (t) => {
  const line = new Line({ mtu: 1400 })
  line.until(1400)
  line.mtu = 1500
  t.ok(line.until(1500) <= pathMtuDefaults.raiseMinMs + 500)
  t.strictSame(
    line.seen,
    [1500, 1280, 1360, 1400, 1500].filter((size) => line.seen.includes(size)),
  )

  const slow = new Line({ mtu: 1400 })
  slow.run(3_600_000)
  slow.sent = []
  slow.run(1_200_000)
  const larger = slow.sent.filter((size) => size > 1400).length
  t.ok(larger >= MAX_PROBES && larger <= 40, `later every ten minutes: ${larger} probes`)
  slow.mtu = 1450
  slow.path.linksChanged(1500, slow.now)
  t.ok(slow.until(1450) < 3_000, 'part of the way, too')

  slow.path.linksChanged(1300, slow.now)
  t.equal(slow.path.mtu, 1300, 'our own link needs no probe')
  slow.path.linksChanged(1500, slow.now)
  t.ok(slow.until(1450) < 3_000)
  t.end()
})

test('what is not used is not probed, and what carries nothing is soon left alone', (t) => {
  const idle = new Line()
  idle.run(600_000, false)
  t.equal(idle.sent.length, 0)
  t.equal(idle.path.nextTimeout(), Infinity)

  const dead = new Line({ loss: 1 })
  dead.run(60_000)
  t.equal(dead.path.mtu, 1500, 'nothing is concluded')
  t.ok(dead.sent.length < 400, `${dead.sent.length} probes a minute`)
  dead.loss = 0
  dead.mtu = 1400
  t.ok(dead.until(1400) < 10_000, 'until something comes back')

  const steady = new Line()
  steady.run(60_000)
  t.ok(steady.sent.length <= 2 * 21, 'a path in use: a probe each three seconds')
  t.end()
})

test('the first frames after a pause do not wait for the size to be confirmed', (t) => {
  const line = new Line()
  line.run(1_000)
  line.run(60_000, false)
  const before = line.sent.length
  t.equal(line.path.used(line.now), line.now + 500, 'it is not to be told with every batch')
  t.equal(line.sent.length, before)
  t.equal(line.path.nextTimeout(), line.now + 20)
  line.run(20, false)
  t.strictSame(line.sent.slice(before), [1500, 0], 'the size in use, and its control')
  line.path.rest()
  line.path.used(line.now)
  line.run(60_000, false)
  t.equal(line.sent.length, before + 2, 'a path that is not in use is not asked')
  t.end()
})

test('small frames do not have a size confirmed that is known', (t) => {
  const line = new Line()
  line.path.used(line.now, true)
  t.strictSame(line.sent, [1500, 0], 'a new path is measured')
  line.run(1_000)
  line.run(60_000, false)
  t.equal(line.path.used(line.now, true), Infinity)
  t.equal(line.path.nextTimeout(), Infinity)
  line.path.used(line.now)
  t.equal(line.path.nextTimeout(), line.now + 20)
  t.end()
})

test('echoes of others change nothing', (t) => {
  const line = new Line()
  line.path.used(line.now)
  for (const token of [new Uint8Array(0), new Uint8Array(15), new Uint8Array(16), new Uint8Array(40)])
    t.notOk(line.path.probeAcknowledged(token, line.now))
  t.equal(line.path.phase, 'base')
  t.end()
})

/** What becomes of a path beside the one in use that is probed so often, ms. */
function beside(line: Line, ms: number, everyMs = 1_500): void {
  for (const end = line.now + ms; line.now < end;) {
    line.path.beside(line.now)
    line.run(everyMs, false)
  }
}

test('a path beside the one in use is measured at the pace of its own probes', (t) => {
  const line = new Line({ mtu: 1400 })
  t.notOk(line.path.measured)
  line.path.beside(line.now)
  t.strictSame(line.sent, [1500, 0], 'one pair')
  for (const end = line.now + 60_000; line.now < end;) {
    const before = line.sent.length
    line.run(1_500, false)
    t.equal(line.sent.length, before, 'nothing is sent by itself')
    line.path.beside(line.now)
    t.ok(line.sent.length <= before + 2)
  }
  t.ok(line.path.measured)
  t.equal(line.path.mtu, 1400)
  beside(line, 3_600_000)
  line.sent = []
  beside(line, 600_000)
  t.ok(line.sent.length <= 2 * (400 / 10 + 40), `${line.sent.length} probes and controls, with 400 probes of the path`)
  line.path.enter(line.now)
  t.equal(line.path.safe, 1400, 'and so much goes by it as soon as it is in use')

  const wide = new Line()
  beside(wide, 150_000)
  t.equal(wide.path.mtu, 1500)
  t.equal(wide.sent.length, 2 * 10, 'what it carries is confirmed with one of ten probes')
  wide.mtu = 1400
  beside(wide, 60_000)
  t.ok(wide.path.mtu <= 1400, 'and found to be less')
  t.end()
})

test('loss on a path beside the one in use is not taken for a size', (t) => {
  for (const loss of [0.05, 0.13, 0.3]) {
    for (let seed = 0; seed < 100; seed++) {
      const line = new Line({ loss, seed })
      beside(line, 600_000)
      t.strictSame(line.seen, [1500], `${loss}, seed ${seed}`)
      t.ok(line.path.measured)
    }
  }
  t.end()
})

test('by a path of which nothing is known go no large packets until a probe has come back, and several are sent', (t) => {
  for (const [oneWayMs, within] of [
    [5, 25],
    [40, 100],
    [150, 340],
  ] as const) {
    for (let seed = 0; seed < 50; seed++) {
      const line = new Line({ oneWayMs, seed })
      line.path.enter(line.now)
      t.equal(line.path.safe, 1280)
      line.run(2 * oneWayMs + 5, false)
      t.equal(line.path.safe, 1500, `after a round trip of ${2 * oneWayMs} ms`)
    }
    const unlucky = new Line({ oneWayMs, loss: 1 })
    unlucky.path.enter(unlucky.now)
    unlucky.loss = 0
    unlucky.run(2 * oneWayMs + within, false)
    t.equal(unlucky.path.safe, 1500, 'also when the first probe is lost')
  }
  const narrow = new Line({ mtu: 1400, oneWayMs: 40 })
  narrow.path.enter(narrow.now)
  const safe = new Set<number>()
  for (let i = 0; i < 2_000; i++) {
    safe.add(narrow.path.safe)
    narrow.run(1)
  }
  t.equal(narrow.path.mtu, 1400)
  t.ok(Math.max(...safe) <= 1400, 'nothing larger has ever gone by a narrow one')
  t.end()
})

test('what has gone ahead by a path tells when frames go by it', (t) => {
  const line = new Line({ oneWayMs: 40 })
  line.path.beside(line.now)
  line.run(40, false)
  line.path.enter(line.now)
  line.run(45, false)
  t.equal(line.path.safe, 1500, 'a round trip after the first probe')
  line.path.renewed(line.now)
  t.equal(line.path.safe, 1280, 'another way may lie behind the same addresses')
  line.run(85, false)
  t.equal(line.path.safe, 1500)
  t.end()
})
