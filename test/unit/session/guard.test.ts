import { test } from 'tap'
import { HandshakeGuard } from '../../../lib/session/guard.js'
import { CookieJar, HandshakeMacs } from '../../../lib/session/macs.js'
import { FrameType } from '../../../lib/wire/constants.js'
import { CookieView, HandshakeView } from '../../../lib/wire/handshake.js'
import { record } from '../../sim/session-host.js'
import { sodium } from '../../tools/sodium.js'

const key = new Uint8Array(32).fill(7)
const macs = new HandshakeMacs(sodium, key)

function init(fill: number) {
  const noise = new Uint8Array(400).fill(fill)
  const view = HandshakeView.encode({ type: FrameType.init, sender: 5, receiver: 0, noise })
  macs.sign(view)
  return view
}

test('MAC1 covers everything before it and is for one receiver only', async (t) => {
  const view = init(1)
  t.ok(macs.verify(view))
  t.notOk(new HandshakeMacs(sodium, new Uint8Array(32)).verify(view))
  for (const at of [0, 4, 11, 12, 300, view.bytes.length - 17]) {
    view.bytes[at]! ^= 1
    t.notOk(macs.verify(view), `byte ${at}`)
    view.bytes[at]! ^= 1
  }
  t.ok(macs.verify(view))
})

test('a cookie is for one address, bound to the message it answers, and lasts two to four minutes', async (t) => {
  const jar = new CookieJar(sodium)
  const here = record('10.0.0.1:5')
  const view = init(2)
  const reply = macs.sealCookie(jar.make(here, 0), view)
  t.equal(reply.receiver, 5)
  t.equal(macs.openCookie(reply, init(3).mac1), undefined, 'not an answer to another message')
  const cookie = macs.openCookie(reply, view.mac1)
  t.ok(cookie)
  macs.sign(view, cookie)
  t.ok(jar.verify(view, here, 1000))
  t.notOk(jar.verify(view, record('10.0.0.1:6'), 1000))
  t.notOk(jar.verify(view, record('10.0.0.2:5'), 1000))
  t.ok(jar.verify(view, here, 130_000))
  t.notOk(jar.verify(view, here, 260_000))
  t.notOk(jar.verify(init(2), here, 1000), 'no MAC2')
})

test('the guard: MAC first, then rate, and cookies only under load', async (t) => {
  const guard = new HandshakeGuard(sodium, key, { loadThreshold: 10 })
  const address = (i: number) => record(`10.0.${i >> 8}.${i & 255}:1`)
  const bad = init(1)
  bad.mac1[0]! ^= 1
  for (let i = 0; i < 100; i++) t.equal(guard.admit(bad, address(i), 0), 'bad-mac')
  t.notOk(guard.underLoad(0), 'what has no MAC is no load')
  for (let i = 0; i < 10; i++) t.equal(guard.admit(init(i), address(i), 1), 'pass')
  t.ok(guard.underLoad(1))
  const reply = guard.admit(init(1), address(200), 2)
  if (!(reply instanceof CookieView)) return t.fail('no cookie reply')
  const view = init(1)
  const cookie = macs.openCookie(reply, view.mac1)
  t.ok(cookie)
  macs.sign(view, cookie)
  const verdicts = Array.from({ length: 7 }, () => guard.admit(view, address(200), 3))
  t.same(verdicts, ['pass', 'pass', 'pass', 'pass', 'pass', 'rate-limited', 'rate-limited'])
  t.notOk(guard.underLoad(5000))
  t.equal(guard.admit(init(1), address(201), 5000), 'pass')
  return undefined
})
