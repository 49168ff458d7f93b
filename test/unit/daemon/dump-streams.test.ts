import t from 'tap'
import type { Requests } from '../../../daemon/control/requests.js'
import { CaracalError } from '../../../daemon/errors.js'
import { DumpStreams } from '../../../daemon/thread/dump-streams.js'
import type { TapEvent } from '../../../lib/host/tap.js'

const event = (length: number): TapEvent => ({
  point: 'tun',
  direction: 'in',
  time: 0,
  bytes: new Uint8Array(4),
  length,
  verdict: 'pass',
})

/** Requests whose dump is driven by the test. */
function driven() {
  let emit: (event: TapEvent) => void = () => undefined
  const requests: Requests = {
    call: () => Promise.reject(new Error('not asked for')),
    watch: () => Promise.reject(new Error('not asked for')),
    watched: () => Promise.reject(new Error('not asked for')),
    flowPage: () => Promise.reject(new Error('not asked for')),
    servicePage: () => Promise.reject(new Error('not asked for')),
    dump: (_args, given, signal) => {
      emit = given
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
    },
  }
  return { requests, emit: (one: TapEvent) => emit(one) }
}

function collector() {
  const sent: { stream: number; lengths: number[]; lost: number }[] = []
  const streams = new DumpStreams((stream, events, lost) =>
    sent.push({ stream, lengths: events.map(({ length }) => length), lost }),
  )
  return { sent, streams }
}

t.test('events of one turn of the loop go in one message, in their order', async (t) => {
  const { sent, streams } = collector()
  const { requests, emit } = driven()
  const ended = streams.run(7, {}, requests)
  emit(event(1))
  emit(event(2))
  t.same(sent, [], 'not one by one')
  await new Promise((resolve) => setImmediate(resolve))
  t.same(sent, [{ stream: 7, lengths: [1, 2], lost: 0 }])
  emit(event(3))
  streams.end(7)
  await ended
  t.same(sent[1], { stream: 7, lengths: [3], lost: 0 }, 'what was left goes before the end')
})

t.test('a reader that does not keep up loses events, which are counted', async (t) => {
  const { sent, streams } = collector()
  const { requests, emit } = driven()
  const ended = streams.run(1, {}, requests)
  for (let i = 0; i < 5_000; i++) emit(event(i))
  streams.taken(1, 10)
  for (let i = 0; i < 20; i++) emit(event(5_000 + i))
  streams.end(1)
  await ended
  const events = sent.reduce((sum, { lengths }) => sum + lengths.length, 0)
  const lost = sent.reduce((sum, one) => sum + one.lost, 0)
  t.equal(events, 4_096 + 10)
  t.equal(lost, 5_020 - events, 'every event is either there or counted')
})

t.test('a dump that is refused leaves nothing behind', async (t) => {
  const { sent, streams } = collector()
  const { requests } = driven()
  const refusal = new CaracalError('CARACAL_E_FILTER', 'bad filter', 'see the help')
  const refusing: Requests = { ...requests, dump: () => Promise.reject(refusal) }
  await t.rejects(streams.run(2, {}, refusing), refusal)
  streams.end(2)
  streams.taken(2, 1)
  t.same(sent, [])
})
