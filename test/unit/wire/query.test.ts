import { test } from 'tap'
import { fromHex, serviceId } from '../../../lib/wire/ids.js'
import { HINT_MAX } from '../../../lib/wire/open.js'
import { pack } from '../../../lib/wire/pack.js'
import { decodeQuery, encodeQuery, QUERY_HOPS_MAX, type Question } from '../../../lib/wire/query.js'

const service = serviceId('5'.repeat(64))
const id = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
const question: Question = { kind: 'question', id, service, protocol: 6, port: 80, hops: QUERY_HOPS_MAX }

test('questions and answers are read as they were written', async (t) => {
  t.strictSame(decodeQuery(encodeQuery(question)), question)
  const answer = { kind: 'answer' as const, id, hint: new Uint8Array(HINT_MAX).fill(7) }
  t.strictSame(decodeQuery(encodeQuery(answer)), answer)
})

test('what is out of bounds is no message', async (t) => {
  const fields = [1, 0, id, fromHex(service), 6, 80, 4]
  const changed = (at: number, value: number | Uint8Array) => pack(fields.with(at, value))
  t.ok(decodeQuery(pack(fields)))
  t.ok(decodeQuery(pack([...fields, 'more'])), 'a later version’s field')
  for (const bad of [
    changed(0, 2),
    changed(1, 2),
    changed(2, id.subarray(1)),
    changed(3, id),
    changed(4, 256),
    changed(5, 65_536),
    changed(6, 0),
    changed(6, QUERY_HOPS_MAX + 1),
    pack([1, 1, id, new Uint8Array(HINT_MAX + 1)]),
    new Uint8Array(0),
  ]) {
    t.equal(decodeQuery(bad), undefined)
  }
})
