import fc from 'fast-check'
import { test } from 'tap'
import { PAUSE_MAX_MS } from '../../../lib/wire/constants.js'
import { pack } from '../../../lib/wire/pack.js'
import { decodePause, encodePause } from '../../../lib/wire/pause-message.js'

test('a pause is read as it was written, and none is longer than it may be', async (t) => {
  t.strictSame(decodePause(encodePause({ sequence: 2 ** 45, ms: 700 })), { sequence: 2 ** 45, ms: 700 })
  t.strictSame(decodePause(encodePause({ sequence: 1, ms: 0 })), { sequence: 1, ms: 0 })
  t.strictSame(
    decodePause(encodePause({ sequence: 1, ms: 0.2 })),
    { sequence: 1, ms: 1 },
    'a short one is none that is over',
  )
  t.strictSame(decodePause(encodePause({ sequence: 1, ms: -3 })), { sequence: 1, ms: 0 })
  t.strictSame(decodePause(pack([1, 1, 3_600_000])), { sequence: 1, ms: PAUSE_MAX_MS })
})

test('what is no pause of this version is none, and a later one’s fields are ignored', async (t) => {
  t.strictSame(decodePause(pack([1, 5, 100, 'more'])), { sequence: 5, ms: 100 })
  for (const bad of [[2, 5, 100], [1, -1, 100], [1, 5], [1, 5, -1], [1, 5, 0.5], ['1', 5, 100], 7])
    t.equal(decodePause(pack(bad)), undefined, JSON.stringify(bad))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const read = decodePause(bytes)
      return read === undefined || (read.sequence >= 0 && read.ms >= 0 && read.ms <= PAUSE_MAX_MS)
    }),
    { numRuns: 5_000 },
  )
})
