import { test } from 'tap'
import { ownFrame, prefersItsWay, probeFrame } from '../../../lib/host/own-frames.js'
import { Kind, PROBE_TOKEN } from '../../../lib/wire/constants.js'
import { innerKind } from '../../../lib/wire/inner.js'

const TOKEN = Uint8Array.from({ length: PROBE_TOKEN }, (_, i) => i + 1)

function prefers(frame: Uint8Array, length = frame.length): boolean {
  const at = 3
  const data = new Uint8Array(at + frame.length)
  data.set(frame, at)
  return prefersItsWay(innerKind(data, at), data, at, length)
}

test('a probe says whether its sender’s frames go the same way', (t) => {
  t.ok(prefers(probeFrame(TOKEN, true)))
  t.notOk(prefers(probeFrame(TOKEN, false)))
  t.notOk(prefers(ownFrame(Kind.probe, TOKEN)), 'one without flags says nothing')
  t.notOk(prefers(probeFrame(TOKEN, true), probeFrame(TOKEN, true).length - 1), 'nor do bytes behind its end')
  t.end()
})

test('all other frames go the way that their sender prefers, but echoes where the question came from', (t) => {
  for (const kind of Object.values(Kind)) {
    if (kind !== Kind.probe) t.equal(prefers(ownFrame(kind, TOKEN)), kind !== Kind.probeEcho)
  }
  t.end()
})
