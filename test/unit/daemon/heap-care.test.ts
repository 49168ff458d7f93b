import { test } from 'tap'
import { HeapCare, ownHeap } from '../../../daemon/heap-care.js'

const MB = 1 << 20

class Thread {
  mb = 12
  packets = 0
  collected = 0
  /** What is in use. */
  lives = 10
  readonly care: HeapCare

  constructor(idle = true) {
    this.care = new HeapCare(
      {
        packets: () => this.packets,
        used: () => this.mb * MB,
        collect: () => {
          this.collected++
          this.mb = this.lives
        },
      },
      idle,
    )
    this.collected = 0
  }
}

test('garbage is collected when there is enough of it', (t) => {
  const thread = new Thread()
  thread.care.look()
  t.equal(thread.collected, 0)
  thread.mb = 12.9
  thread.care.look()
  t.equal(thread.collected, 0, 'not worth it')
  thread.mb = 13
  thread.care.look()
  t.equal(thread.collected, 1)
  t.equal(thread.mb, 10)
  thread.care.look()
  t.equal(thread.collected, 1)
  thread.care.stop()
  t.end()
})

test('not while packets come', (t) => {
  const thread = new Thread()
  thread.mb = 30
  for (let i = 0; i < 5; i++) {
    thread.packets += 1_001
    thread.care.look()
  }
  t.equal(thread.collected, 0)
  thread.packets += 1_000
  thread.care.look()
  t.equal(thread.collected, 1, 'as soon as they have ceased')
  thread.care.stop()
  t.end()
})

test('what is in use is not taken for garbage again and again', (t) => {
  const thread = new Thread()
  thread.mb = thread.lives = 20
  for (let i = 0; i < 5; i++) thread.care.look()
  t.equal(thread.collected, 1)
  thread.mb = thread.lives = 5
  thread.care.look()
  thread.mb = 22
  thread.care.look()
  t.equal(thread.collected, 1, 'less than what was left then')
  thread.mb = 23
  thread.care.look()
  t.equal(thread.collected, 2)
  thread.care.stop()
  t.end()
})

test('what a start has left behind is garbage, too', (t) => {
  const thread = new Thread(false)
  t.equal(thread.mb, 12, 'which waits, as others do')
  thread.care.look()
  t.equal(thread.collected, 1)
  t.equal(new Thread().mb, 10)
  thread.care.stop()
  t.end()
})

test('of the own thread: objects and buffers, and they go', (t) => {
  let held: unknown[] = []
  const before = ownHeap.used()
  held = [Buffer.alloc(8 * MB), Array.from({ length: 500_000 }, (_, i) => ({ i }))]
  t.ok(ownHeap.used() > before + 16 * MB, String(held.length))
  held = []
  const care = new HeapCare({ ...ownHeap, packets: () => 0 }, false)
  care.look()
  care.stop()
  t.ok(ownHeap.used() < before + 4 * MB, `${ownHeap.used() - before} bytes`)
  t.end()
})
