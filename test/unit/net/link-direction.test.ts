import fc from 'fast-check'
import { test, type Test } from 'tap'
import { PACKET_WORDS, packetBatch } from '../../../lib/wire/batch.js'
import { LinkDirection } from '../../net/emulator/link-direction.js'
import { changed, WIRE, type LinkChanges } from '../../net/emulator/settings.js'

const HEADER = 10
const PACKETS_MAX = 64

/** A direction in virtual time; packets are numbers, in their first four bytes. */
class World {
  now = 0
  /** Number and time of each packet at the far end. */
  readonly arrived: { readonly n: number; readonly at: number; readonly bytes: number }[] = []
  /** Packets of each batch that the far end refuses. */
  refuse = 0
  readonly direction: LinkDirection
  #sent = 0
  readonly #batch = packetBatch(1 << 17, PACKETS_MAX)

  constructor(changes: LinkChanges, seed = 1) {
    this.direction = new LinkDirection(changed(WIRE, changes), seed, 1_500, (batch) => {
      for (let i = 0; i < batch.count; i++) {
        const offset = batch.desc[i * PACKET_WORDS]!
        const bytes = batch.desc[i * PACKET_WORDS + 1]! - HEADER
        this.arrived.push({ n: batch.view.getUint32(offset + HEADER), at: this.now, bytes })
      }
      return batch.count - Math.min(this.refuse, batch.count)
    })
  }
  get numbers(): number[] {
    return this.arrived.map(({ n }) => n)
  }

  /** So many packets in one batch. */
  send(count: number, bytes = 1_000): void {
    this.#batch.count = count
    for (let i = 0; i < count; i++) {
      const offset = i * 1_600
      this.#batch.view.setUint32(offset + HEADER, this.#sent++)
      this.#batch.desc.set([offset, bytes + HEADER], i * PACKET_WORDS)
    }
    this.direction.receive(this.now, this.#batch)
  }

  /** Lets time pass; what is due arrives at its time. */
  to(time: number): void {
    for (let next; (next = this.direction.nextTimeout()) <= time;) {
      this.now = Math.max(this.now, next)
      this.direction.release(this.now)
    }
    this.now = time
  }
  end(): void {
    while (this.direction.nextTimeout() < Infinity) this.to(this.direction.nextTimeout())
  }
}

function balances(t: Test, { direction, arrived, refuse }: World): void {
  const { received, duplicated, forwarded, lost, overflowed, tooBig, cut, refused, waiting } = direction.counts
  t.equal(forwarded + lost + overflowed + tooBig + cut + refused + waiting, received + duplicated)
  if (refuse === 0) t.equal(arrived.length, forwarded)
}

test('a wire passes everything on at once, as it came', async (t) => {
  const world = new World({})
  world.send(64)
  world.send(3, 1_500)
  t.strictSame(
    world.numbers,
    Array.from({ length: 67 }, (_, i) => i),
  )
  t.ok(world.arrived.every(({ at }) => at === 0))
  t.strictSame([world.arrived[0]!.bytes, world.arrived[66]!.bytes], [1_000, 1_500])
  t.equal(world.direction.nextTimeout(), Infinity)
  balances(t, world)
})

test('delay and jitter: a packet takes between the one and both, and none overtakes another', async (t) => {
  const world = new World({ delayMs: 10, jitterMs: 5 })
  const sent: number[] = []
  for (let i = 0; i < 1_000; i++) {
    world.to(i / 4)
    sent.push(world.now)
    world.send(1)
  }
  world.end()
  t.strictSame(world.numbers, [...sent.keys()])
  const took = world.arrived.map(({ n, at }) => at - sent[n]!)
  t.ok(took.every((ms) => ms >= 10 && ms <= 15))
  t.ok(Math.max(...took) - Math.min(...took) > 3, 'they differ')
  balances(t, world)
})

test('a delay that becomes less brings nothing out of order', async (t) => {
  const world = new World({ delayMs: 100 })
  world.send(1)
  world.direction.set({ delayMs: 1 })
  world.send(1)
  world.to(99)
  t.strictSame(world.numbers, [])
  world.to(100)
  t.strictSame(world.numbers, [0, 1])
  world.to(200)
  world.send(1)
  t.equal(world.direction.nextTimeout(), 201)
})

test('loss: each packet is lost or arrives, as often as was asked for', async (t) => {
  const world = new World({ loss: 0.1 }, 7)
  for (let i = 0; i < 1_000; i++) world.send(20)
  const { lost } = world.direction.counts
  // 20,000 of 0.1: 2,000 with a standard deviation of 42.
  t.ok(Math.abs(lost - 2_000) < 5 * 42, `${lost} lost`)
  t.equal(world.arrived.length, 20_000 - lost)
  balances(t, world)
})

test('losses in bursts: as many, but together', async (t) => {
  const world = new World({ loss: 0.1, lossBurst: 8 }, 7)
  for (let i = 0; i < 2_000; i++) world.send(20)
  const { lost } = world.direction.counts
  t.ok(Math.abs(lost - 4_000) < 1_000, `${lost} lost`)
  const arrived = new Set(world.numbers)
  let bursts = 0
  for (let n = 0; n < 40_000; n++) if (!arrived.has(n) && arrived.has(n - 1)) bursts++
  const mean = lost / bursts
  t.ok(mean > 6.5 && mean < 9.5, `${mean} a burst`)
})

test('all or nothing', async (t) => {
  for (const lossBurst of [1, 5]) {
    const world = new World({ loss: 1, lossBurst })
    world.send(50)
    world.direction.set({ loss: 0 })
    world.send(50)
    t.strictSame(world.direction.counts.lost, 50)
    t.equal(world.numbers[0], 50)
  }
})

test('the same seed does the same to the same packets, another does not', async (t) => {
  const run = (seed: number, changes: LinkChanges = {}) => {
    const world = new World({ loss: 0.2, reorder: 0.2, duplicate: 0.2, jitterMs: 3, ...changes }, seed)
    for (let i = 0; i < 100; i++) {
      world.to(i)
      world.send(5)
    }
    world.end()
    return world
  }
  t.strictSame(run(3).arrived, run(3).arrived)
  t.notSame(run(3).numbers, run(4).numbers)
  const gone = (world: World) => {
    const arrived = new Set(world.numbers)
    return Array.from({ length: 500 }, (_, n) => n).filter((n) => !arrived.has(n))
  }
  t.strictSame(
    gone(run(3)),
    gone(run(3, { reorder: 0, duplicate: 0.9, delayMs: 9 })),
    'losses depend on the loss alone',
  )
})

test('duplicates come right behind their originals', async (t) => {
  for (const delayMs of [0, 5]) {
    const world = new World({ duplicate: 1, delayMs })
    world.send(3)
    if (delayMs > 0) t.equal(world.direction.counts.waiting, 6)
    balances(t, world)
    world.end()
    t.strictSame(world.numbers, [0, 0, 1, 1, 2, 2])
    t.match(world.direction.counts, { received: 3, duplicated: 3, forwarded: 6, reordered: 0, waiting: 0 })
  }
})

test('a packet that is held back is overtaken, and counts as reordered only then', async (t) => {
  const world = new World({ reorder: 1, reorderMs: 2 })
  world.send(1)
  world.direction.set({ reorder: 0 })
  world.to(1)
  world.send(2)
  world.to(2)
  t.strictSame(world.numbers, [1, 2, 0])
  world.direction.set({ reorder: 1 })
  world.send(2)
  world.end()
  t.strictSame(world.numbers, [1, 2, 0, 3, 4])
  t.match(world.direction.counts, { heldBack: 3, reordered: 1 })
  balances(t, world)
})

test('a rate: packets go out one after another, and what the queue has no room for is dropped', async (t) => {
  // 1,000 bytes take 1 ms.
  const world = new World({ rate: 8e6, queueBytes: 10_000, delayMs: 5 })
  world.send(15)
  t.match(world.direction.counts, { received: 15, overflowed: 5, waiting: 10 })
  world.to(4)
  // Four are out: there is room again.
  world.send(5)
  t.match(world.direction.counts, { overflowed: 6 })
  world.end()
  t.strictSame(
    world.arrived.map(({ at }) => at),
    Array.from({ length: 14 }, (_, i) => 6 + i),
  )
  balances(t, world)
})

test('packets larger than the MTU vanish, small ones can be spared', async (t) => {
  const world = new World({ mtu: 1_400, loss: 1, sizeMin: 200 })
  world.send(1, 1_401)
  world.send(1, 1_400)
  world.send(1, 200)
  world.send(1, 199)
  t.strictSame(world.numbers, [3])
  t.match(world.direction.counts, { tooBig: 1, lost: 2, forwarded: 1 })
  balances(t, world)
})

test('a cut link lets nothing in, and what was under way arrives', async (t) => {
  const world = new World({ delayMs: 5 })
  world.send(2)
  world.direction.set({ cut: true })
  world.send(3)
  world.to(10)
  t.strictSame(world.numbers, [0, 1])
  world.direction.set({ cut: false })
  world.send(1)
  world.to(20)
  t.strictSame(world.numbers, [0, 1, 5])
  t.equal(world.direction.counts.cut, 3)
  balances(t, world)
})

test('what the far end does not take is counted', async (t) => {
  const world = new World({})
  world.refuse = 2
  world.send(10)
  t.match(world.direction.counts, { forwarded: 8, refused: 2 })
  balances(t, world)
})

test('memory is bounded: what does not fit is dropped', async (t) => {
  const world = new World({ delayMs: 60_000 })
  for (let i = 0; i < 1_100; i++) world.send(64, 20)
  t.match(world.direction.counts, { waiting: 65_536, overflowed: 1_100 * 64 - 65_536 })
  world.end()
  t.equal(world.arrived.length, 65_536)
  balances(t, world)
})

test('settings that are none are refused', async (t) => {
  for (const changes of [
    { loss: 1.1 },
    { loss: -1 },
    { loss: NaN },
    { delayMs: Infinity },
    { lossBurst: 0 },
    { mtu: 0 },
  ])
    t.throws(() => changed(WIRE, changes), JSON.stringify(changes))
})

test('whatever the settings and whenever they change: each packet is in one count, arrives no sooner than it should, and in order but for those held back', async () => {
  const share = fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true }))
  const time = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 50 }))
  const changes = fc.record(
    {
      delayMs: time,
      jitterMs: time,
      loss: share,
      lossBurst: fc.double({ min: 1, max: 20, noNaN: true }),
      duplicate: share,
      reorder: share,
      reorderMs: time,
      rate: fc.constantFrom(0, 1e6, 1e8),
      queueBytes: fc.integer({ min: 1, max: 50_000 }),
      mtu: fc.integer({ min: 500, max: 1_500 }),
      sizeMin: fc.integer({ min: 0, max: 1_000 }),
      cut: fc.boolean(),
    },
    { requiredKeys: [] },
  )
  const step = fc.record({
    changes: fc.option(changes),
    count: fc.integer({ min: 0, max: 64 }),
    after: time,
    bytes: fc.integer({ min: 20, max: 1_500 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, seed) => {
      const world = new World({}, seed)
      const soonest: number[] = []
      for (const { changes, count, after, bytes } of steps) {
        world.to(world.now + after)
        if (changes !== null) world.direction.set(changes)
        for (let i = 0; i < count; i++) soonest.push(world.now + world.direction.settings.delayMs)
        world.send(count, bytes)
        const { waiting, ...rest } = world.direction.counts
        const { received, duplicated, forwarded, lost, overflowed, tooBig, cut, refused } = rest
        if (forwarded + lost + overflowed + tooBig + cut + refused + waiting !== received + duplicated) return false
      }
      world.end()
      const { forwarded, waiting, heldBack, reordered, duplicated } = world.direction.counts
      if (waiting !== 0 || forwarded !== world.arrived.length || reordered > heldBack) return false
      const times = new Map<number, number>()
      for (const { n, at } of world.arrived) {
        if (at < soonest[n]!) return false
        times.set(n, (times.get(n) ?? 0) + 1)
      }
      const twice = [...times.values()].filter((n) => n === 2).length
      if (twice !== duplicated || [...times.values()].some((n) => n > 2)) return false
      let [highest, late] = [-1, 0]
      for (const n of new Set(world.numbers)) {
        if (n < highest) late++
        highest = Math.max(highest, n)
      }
      return late === reordered
    }),
    { numRuns: 300 },
  )
})
