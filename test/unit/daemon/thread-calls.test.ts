import { MessageChannel } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { CaracalError } from '../../../daemon/errors.js'
import { ThreadCalls } from '../../../daemon/thread/calls.js'

type Left = { readonly name: { readonly argument: undefined; readonly result: string } }
type Right = {
  readonly add: { readonly argument: readonly number[]; readonly result: number }
  readonly refuse: { readonly argument: 'plainly' | 'badly'; readonly result: void }
  readonly note: { readonly argument: string; readonly result: void }
  readonly never: { readonly argument: undefined; readonly result: void }
}

function pair(t: Test) {
  const { port1, port2 } = new MessageChannel()
  const notes: string[] = []
  const faults: unknown[] = []
  const left = new ThreadCalls<Left, Right>(port1, { name: () => 'left' }, (error) => faults.push(error))
  const right = new ThreadCalls<Right, Left>(
    port2,
    {
      add: async (numbers) => numbers.reduce((sum, one) => sum + one, 0),
      refuse: (how) => {
        if (how === 'badly') throw new TypeError('broken')
        throw new CaracalError('CARACAL_E_BUSY', 'too much at once', 'wait')
      },
      note: (text) => {
        if (text === '') throw new Error('nothing to note')
        notes.push(text)
      },
      never: () => new Promise<void>(() => undefined),
    },
    (error) => faults.push(error),
  )
  t.teardown(() => {
    port1.close()
    port2.close()
  })
  return { left, right, notes, faults }
}

t.test('both ends call each other', async (t) => {
  const { left, right } = pair(t)
  t.equal(await left.call('add', [1, 2, 3]), 6)
  t.equal(await right.call('name', undefined), 'left')
  const many = await Promise.all(Array.from({ length: 100 }, (_, i) => left.call('add', [i, 1])))
  t.same(
    many,
    Array.from({ length: 100 }, (_, i) => i + 1),
    'each gets its own answer',
  )
})

t.test('an error comes back as what it was', async (t) => {
  const { left } = pair(t)
  const refused = await left.call('refuse', 'plainly').catch((error: unknown) => error)
  t.ok(refused instanceof CaracalError, 'our own kind')
  t.match(refused, { code: 'CARACAL_E_BUSY', what: 'too much at once', next: 'wait' })
  await t.rejects(left.call('refuse', 'badly'), { message: 'broken' })
})

t.test('what is told has no answer, and its failure is heard of here', async (t) => {
  const { left, notes, faults } = pair(t)
  left.tell('note', 'one')
  left.tell('note', '')
  left.tell('note', 'two')
  // Messages keep their order.
  await left.call('add', [])
  t.same(notes, ['one', 'two'])
  t.match(faults, [{ message: 'nothing to note' }])
})

t.test('nobody waits for a thread that has ended', async (t) => {
  const { left } = pair(t)
  const waiting = left.call('never', undefined)
  left.end(new Error('gone'))
  await t.rejects(waiting, { message: 'gone' })
  await t.rejects(left.call('add', [1]), { message: 'gone' })
})
