import { test } from 'tap'
import { Learned } from '../../../lib/service/learned.js'
import { host, idOf } from './fixtures.js'

const [h1, h2, h3] = [host('h1'), host('h2'), host('h3')]
const WEB = idOf('web')
const instance = (id: typeof h1) => ({ host: id, kind: 'instance' as const })

test('what was named last is tried first, and forgotten after its time', async (t) => {
  const learned = new Learned({ lifetime: 1_000 })
  learned.learn(WEB, [instance(h1)], 0)
  learned.learn(WEB, [{ host: h2, kind: 'resolver' }], 500)
  t.strictSame(learned.found(WEB, 600), [{ host: h2, kind: 'resolver' }, instance(h1)])
  t.strictSame(learned.found(WEB, 1_000), [{ host: h2, kind: 'resolver' }])
  t.strictSame(learned.found(WEB, 1_500), [])
  t.strictSame(learned.found(idOf('other'), 600), [])
})

test('who refuses is forgotten; who says it has left stays so until it says something new', async (t) => {
  const learned = new Learned({ lifetime: 1_000 })
  learned.learn(WEB, [instance(h1), instance(h2)], 0)
  learned.refused(WEB, h1)
  t.strictSame(learned.found(WEB, 1), [instance(h2)])
  learned.leave(WEB, h2, 1)
  t.strictSame(learned.found(WEB, 2), [])
  learned.refused(WEB, h2)
  t.ok(learned.hasLeft(WEB, h2, 2))
  t.notOk(learned.hasLeft(WEB, h2, 1_001))
  t.notOk(learned.hasLeft(WEB, h1, 2))
  learned.forget(WEB, h2)
  t.notOk(learned.hasLeft(WEB, h2, 2))
  t.equal(learned.size, 0, 'nothing is kept of the service')
  learned.leave(WEB, h3, 3)
  learned.learn(WEB, [instance(h3)], 4)
  t.notOk(learned.hasLeft(WEB, h3, 5), 'somebody has seen it there since')
})

test('it is bounded in services and in hosts of each; the oldest go', async (t) => {
  const learned = new Learned({ servicesMax: 2, hostsMax: 2 })
  const names = ['a', 'b', 'c']
  for (const name of names) learned.learn(idOf(name), [instance(h1), instance(h2), instance(h3)], 0)
  t.equal(learned.size, 2)
  t.strictSame(
    names.map((name) => learned.found(idOf(name), 1).map((one) => one.host)),
    [[], [h3, h2], [h3, h2]],
  )
})
