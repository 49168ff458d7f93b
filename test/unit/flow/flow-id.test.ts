import { test } from 'tap'
import { formatFlowId, Generations, parseFlowId } from '../../../lib/flow/flow-id.js'

test('text form', (t) => {
  t.equal(formatFlowId(0x12, -1), '00000012ffffffff')
  t.same(parseFlowId('00000012ffffffff'), { slot: 0x12, generation: 0xffffffff })
  for (const bad of ['', '12', '00000012FFFFFFFF', '00000012ffffffffff']) t.equal(parseFlowId(bad), undefined)
  t.end()
})

test('generations are what the randomness gives, but never 0', (t) => {
  let blocks = 0
  const generations = new Generations((length) => {
    blocks++
    const bytes = new Uint8Array(length)
    bytes[length - 1] = 0x80
    bytes[4] = 7
    return bytes
  })
  t.equal(generations.next(), 7)
  t.equal(generations.next() >>> 0, 0x80000000)
  t.equal(blocks, 1)
  t.equal(generations.next(), 7)
  t.equal(blocks, 2)
  t.end()
})
