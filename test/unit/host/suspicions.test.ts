import { test } from 'tap'
import { Suspicions, type Word } from '../../../lib/host/suspicions.js'
import { hostId, type HostId } from '../../../lib/wire/ids.js'

const id = (n: number): HostId => hostId(Uint8Array.from({ length: 32 }, (_, i) => (i < 2 ? n >> (8 - 8 * i) : 7)))
const HOST = id(1)

function word(reporter: number, state: Word['state'] = 'dead', at = 0): Word {
  return { reporter: id(reporter), state, at, signedAt: at, report: undefined }
}

test('one reporter makes a host suspect, two make it dead', (t) => {
  const s = new Suspicions()
  t.equal(s.state(HOST, 0), undefined)
  t.ok(s.add(HOST, word(10)))
  t.equal(s.state(HOST, 0), 'suspect')
  t.ok(s.add(HOST, word(10, 'dead', 5)), 'the same once more')
  t.equal(s.state(HOST, 5), 'suspect', 'counts once')
  t.equal(s.at(HOST), 5)
  s.add(HOST, word(11, 'suspect'))
  t.equal(s.state(HOST, 5), 'suspect', 'who only suspects does not make it dead')
  s.add(HOST, word(11))
  t.equal(s.state(HOST, 5), 'dead')
  t.notOk(s.add(HOST, word(11, 'suspect')), 'a former word of the same reporter changes nothing')
  t.equal(s.state(HOST, 5), 'dead')
  t.equal(s.state(id(2), 5), undefined)
  t.end()
})

test('a reporter that was refuted again and again does not count, until that is long past', (t) => {
  const s = new Suspicions({ strikesMax: 3, strikesForMs: 1_000 })
  for (let i = 0; i < 3; i++) {
    t.notOk(s.discredited(id(10), i))
    s.add(HOST, word(10))
    s.refute(HOST, i)
    t.equal(s.state(HOST, i), undefined)
  }
  t.ok(s.discredited(id(10), 3))
  s.add(HOST, word(10))
  t.equal(s.state(HOST, 3), undefined, 'alone it is not heard')
  s.add(HOST, word(11))
  t.equal(s.state(HOST, 3), 'suspect', 'and with another it does not make two')
  t.equal(s.deadWords(HOST, 3), 1)
  t.notOk(s.discredited(id(10), 1_001))
  t.equal(s.state(HOST, 1_001), 'dead')
  t.end()
})

test('words are bounded: about one host, of one reporter, and in all', (t) => {
  const s = new Suspicions({ perReporter: 3, hostsMax: 10 })
  for (let n = 10; n < 30; n++) s.add(HOST, word(n))
  t.ok(s.words(HOST).length <= 4)
  for (let n = 0; n < 20; n++) s.add(id(100 + n), word(50))
  t.equal(s.size, 4, 'three of the talkative one')
  for (let n = 0; n < 50; n++) s.add(id(200 + n), word(300 + n))
  t.equal(s.size, 10)
  s.forget(id(100))
  t.ok(s.add(id(400), word(50)), 'what is forgotten makes room')
  t.end()
})

test('a report that has been here is known again, among thousands', (t) => {
  const s = new Suspicions()
  t.notOk(s.seen(id(1), id(2), 3, 'dead'))
  s.see(id(1), id(2), 3, 'dead')
  t.ok(s.seen(id(1), id(2), 3, 'dead'))
  t.notOk(s.seen(id(1), id(2), 4, 'dead'))
  t.notOk(s.seen(id(1), id(2), 3, 'suspect'))
  for (let n = 0; n < 10_000; n++) s.see(id(1), id(3), n, 'dead')
  t.ok(s.seen(id(1), id(3), 9_999, 'dead'))
  t.notOk(s.seen(id(1), id(2), 3, 'dead'), 'the oldest make room')
  t.end()
})
