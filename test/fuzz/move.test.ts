// Where hosts say that they are: any bytes, and any change to good ones, give a message or nothing.

import fc from 'fast-check'
import { test } from 'tap'
import { hostId } from '../../lib/wire/ids.js'
import { decodeMove, encodeMove, MOVE_ADDRESSES_MAX, standings } from '../../lib/wire/move.js'

const RUNS = 20_000

test('the decoder is total, and what it takes can be written again', (t) => {
  const address = fc.record({
    address: fc.oneof(...[4, 16].map((length) => fc.uint8Array({ minLength: length, maxLength: length }))),
    port: fc.integer({ min: 1, max: 65_535 }),
    standing: fc.constantFrom(...standings),
  })
  const host = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => hostId(bytes))
  const sequence = fc.maxSafeNat()
  const addresses = fc.array(address, { maxLength: MOVE_ADDRESSES_MAX })
  const move = fc.record({ kind: fc.constant('move' as const), host, sequence, addresses })
  const receipt = fc.record({ kind: fc.constant('receipt' as const), sequence })
  const message = fc.oneof(move, receipt)
  const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)
  fc.assert(
    fc.property(message, (sent) => same(decodeMove(encodeMove(sent)), sent)),
    { numRuns: RUNS / 10 },
  )
  const holds = (bytes: Uint8Array) => {
    const before = bytes.slice()
    const read = decodeMove(bytes)
    if (read !== undefined && !same(decodeMove(encodeMove(read)), read)) return false
    return bytes.every((byte, i) => byte === before[i])
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), holds), { numRuns: RUNS })
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 })
  let understood = 0
  fc.assert(
    fc.property(message, edits, fc.option(fc.nat(), { nil: undefined }), (sent, changes, cut) => {
      const good = encodeMove(sent)
      const bytes = good.slice(0, cut === undefined ? good.length : cut % (good.length + 1))
      for (const [at, value] of changes) if (bytes.length > 0) bytes[at % bytes.length] = value
      if (decodeMove(bytes) !== undefined) understood++
      return holds(bytes)
    }),
    { numRuns: RUNS },
  )
  t.ok(understood > 0, 'some were understood all the same')
  t.end()
})
