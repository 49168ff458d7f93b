import { test } from 'tap'
import type { Instance } from '../../../lib/service/catalogue.js'
import { choiceDefaults, InstanceChoice, type HostCondition } from '../../../lib/service/choice.js'
import type { HostId } from '../../../lib/wire/ids.js'
import { seeded } from '../../sim/directory-world.js'
import { host, idOf, registration } from './fixtures.js'

function instance(name: string, weight: number, changes: Partial<Instance> = {}): Instance {
  return { ...registration('web'), host: host(name), weight, ...changes }
}
const alive: HostCondition = { liveness: 'alive', age: 0, rtt: 1 }

function choice(
  seed: number,
  condition: (id: HostId) => HostCondition = () => alive,
  openFlows: (id: HostId) => number = () => 0,
): InstanceChoice {
  return new InstanceChoice(choiceDefaults, { random: seeded(seed), condition, openFlows: (_, id) => openFlows(id) })
}

/** Flows of `total` that are bound to the first of two instances. */
function share(chooser: InstanceChoice, pair: readonly Instance[], total: number): number {
  let first = 0
  for (let i = 0; i < total; i++) if (chooser.order(pair, 0)[0]!.instance === pair[0]) first++
  return first
}

test('idle instances share exactly by weight', async (t) => {
  const pair = [instance('h1', 3), instance('h2', 1)]
  for (let seed = 1; seed <= 50; seed++) {
    for (const total of [4, 40, 400, 4_000]) {
      const expected = (total * 3) / 4
      t.ok(Math.abs(share(choice(seed), pair, total) - expected) <= 2, `seed ${seed}, ${total} flows`)
    }
  }
})

test('two services in turns share by weight too', async (t) => {
  const chooser = choice(1)
  const other = idOf('db')
  const both = [
    [instance('h1', 1), instance('h2', 1)],
    [instance('h1', 1, { service: other }), instance('h2', 1, { service: other })],
  ] as const
  const counts = [0, 0]
  for (let i = 0; i < 200; i++) both.forEach((pair, which) => (counts[which]! += share(chooser, pair, 1)))
  for (const count of counts) t.ok(Math.abs(count - 100) <= 2, `${count} of 200`)
})

test('a few open flows do not disturb the split', async (t) => {
  const few = (id: HostId): number => (id === host('h1') ? 0 : 3)
  t.ok(
    Math.abs(
      share(
        choice(2, () => alive, few),
        [instance('h1', 3), instance('h2', 1)],
        40_000,
      ) - 30_000,
    ) <
      5 * 87,
  )
})

test('open flows pull the split towards the weights, never away', async (t) => {
  const open = new Map<HostId, number>()
  const chooser = choice(
    3,
    () => alive,
    (id) => open.get(id) ?? 0,
  )
  const pair = [instance('h1', 3), instance('h2', 1)]
  for (let i = 0; i < 400; i++) {
    const { host: id } = chooser.order(pair, 0)[0]!.instance
    open.set(id, (open.get(id) ?? 0) + 1)
  }
  t.ok(Math.abs(open.get(host('h1'))! - 300) <= 26)
})

test('a loaded instance yields to a less loaded one', async (t) => {
  const busy = [instance('h1', 100, { load: 500 }), instance('h2', 100)]
  t.ok(share(choice(4), busy, 1_000) < 350, 'only when both draws hit it')
  const fair = [instance('h1', 300, { load: 300 }), instance('h2', 100, { load: 100 })]
  t.ok(Math.abs(share(choice(4), fair, 4_000) - 3_000) < 150, 'load counts by weight')
})

test('among equally loaded ones the clearly nearer is preferred', async (t) => {
  const far = (id: HostId): HostCondition => ({ ...alive, rtt: id === host('h1') ? 150 : 2 })
  t.ok(share(choice(5, far), [instance('h1', 1), instance('h2', 1)], 1_000) < 350)
})

test('priority first, then the others as alternatives', async (t) => {
  const all = [
    instance('h1', 1, { priority: 20 }),
    instance('h2', 0, { priority: 10 }),
    instance('h3', 1, { priority: 10 }),
  ]
  const names = choice(6)
    .order(all, 0)
    .map((one) => one.instance)
  t.strictSame(names, [all[2], all[1], all[0]], 'weight 0 only after the others of its priority')
})

test('who refused or was silent comes last for a while, dead hosts after them', async (t) => {
  const condition = (id: HostId): HostCondition => (id === host('h3') ? { ...alive, liveness: 'dead' } : alive)
  const chooser = choice(7, condition)
  const all = [instance('h1', 1_000), instance('h2', 1), instance('h3', 1_000)]
  const hosts = (now: number): HostId[] => chooser.order(all, now).map((one) => one.instance.host)
  chooser.outcome(idOf('web'), host('h1'), 'refused', 0, 0)
  for (let i = 0; i < 20; i++) t.strictSame(hosts(i), [host('h2'), host('h1'), host('h3')])
  t.ok(chooser.order(all, 1)[1]!.doubtful)
  t.equal(hosts(choiceDefaults.penalty + 1)[2], host('h3'), 'the penalty ends, death does not')
  chooser.outcome(idOf('web'), host('h2'), 'silent', 0, 0)
  chooser.outcome(idOf('web'), host('h2'), 'answered', 1, 1)
  t.notOk(chooser.order(all, 2).find((one) => one.instance.host === host('h2'))!.doubtful)
})

test('a host that stood still is itself again when it is heard', async (t) => {
  let heardAt = 0
  let now = 100
  const chooser = choice(9, (id) => (id === host('h1') ? { ...alive, age: now - heardAt } : alive))
  const all = [instance('h1', 1_000), instance('h2', 1)]
  const first = (): HostId => chooser.order(all, now)[0]!.instance.host
  chooser.outcome(idOf('web'), host('h1'), 'silent', 40, now)
  for (let i = 0; i < 20; i++) t.equal(first(), host('h2'), 'nothing has come of it since')
  now = 130
  heardAt = 120
  const bound = Array.from({ length: 20 }, first).filter((id) => id === host('h1'))
  t.equal(bound.length, 20, 'it is heard')

  chooser.outcome(idOf('web'), host('h1'), 'silent', 110, now)
  heardAt = now = 140
  t.equal(first(), host('h2'), 'its instance alone is silent')
})

test('hosts not heard of lately are doubtful', async (t) => {
  const old = choice(8, () => ({ ...alive, age: choiceDefaults.doubtAfter + 1 }))
  t.ok(old.order([instance('h1', 1)], 0)[0]!.doubtful)
  t.notOk(choice(8).order([instance('h1', 1)], 0)[0]!.doubtful)
  t.strictSame(choice(8).order([], 0), [])
})
