// What hosts say about each other and about their sessions: any bytes, and any change to good ones, give a message or nothing.

import fc from 'fast-check'
import { test } from 'tap'
import {
  decodeLivenessMessage,
  decodeReport,
  encodeLivenessMessage,
  encodeReport,
  REPORTS_MAX,
  type LivenessMessage,
} from '../../lib/wire/liveness-message.js'
import { CONTROL_MESSAGE_MAX } from '../../lib/wire/constants.js'
import { hostId } from '../../lib/wire/ids.js'
import { decodeSessionMessage, encodeSessionMessage, type SessionMessage } from '../../lib/wire/session-message.js'

const RUNS = 20_000
const host = hostId(new Uint8Array(32).fill(200))
const fields = { host, sequence: 2 ** 45, state: 'dead' } as const
const signed = (body: Uint8Array) => ({ body, signature: new Uint8Array(64).fill(3) })
const report = {
  reporter: hostId(new Uint8Array(32).fill(255)),
  age: 119_999,
  report: signed(encodeReport(fields)),
  heartbeatAge: 2 ** 40,
  heartbeat: signed(new Uint8Array(128).fill(1)),
}
const messages: LivenessMessage[] = [
  { kind: 'reports', reports: Array.from({ length: REPORTS_MAX }, () => report) },
  { kind: 'ask', host },
  { kind: 'answer', host, verdict: 'silent' },
]
const sessionMessages: SessionMessage[] = ['release', 'agree', 'keep']

test('messages are read as they were written, and fit', (t) => {
  for (const message of messages) {
    const bytes = encodeLivenessMessage(message)
    t.ok(bytes.length <= CONTROL_MESSAGE_MAX, `${message.kind} of ${bytes.length} bytes`)
    t.same(decodeLivenessMessage(bytes), message)
  }
  t.same(decodeReport(encodeReport(fields)), fields)
  for (const message of sessionMessages) t.equal(decodeSessionMessage(encodeSessionMessage(message)), message)
  t.end()
})

test('decoders are total', (t) => {
  const good = [
    ...messages.map(encodeLivenessMessage),
    encodeReport(fields),
    ...sessionMessages.map(encodeSessionMessage),
  ]
  const decode = (bytes: Uint8Array) => {
    const before = bytes.slice()
    decodeReport(bytes)
    decodeLivenessMessage(bytes)
    decodeSessionMessage(bytes)
    return bytes.every((byte, i) => byte === before[i])
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), decode), { numRuns: RUNS })
  const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 })
  const bent = fc.tuple(fc.constantFrom(...good), changes, fc.option(fc.nat(), { nil: undefined }))
  let understood = 0
  fc.assert(
    fc.property(bent, ([bytes, edits, cut]) => {
      const copy = bytes.slice(0, cut === undefined ? bytes.length : cut % (bytes.length + 1))
      for (const [at, value] of edits) if (copy.length > 0) copy[at % copy.length] = value
      const message = decodeLivenessMessage(copy)
      if (message !== undefined) {
        understood++
        encodeLivenessMessage(message)
      }
      return decode(copy)
    }),
    { numRuns: RUNS },
  )
  t.ok(understood > 0, 'some were understood all the same, and can be written again')
  t.end()
})
