import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { test } from 'tap'
import { decodeJoinAnswer, decodeJoinRequest } from '../../lib/session/join-payload.js'
import { decodeInit, decodeResponse, encodeInit, encodeResponse } from '../../lib/session/payload.js'
import { FrameType, PROTOCOL_VERSION } from '../../lib/wire/constants.js'
import { dropReasons } from '../../lib/wire/drop.js'
import {
  CookieView,
  HANDSHAKE_MAX,
  HandshakeView,
  HANDSHAKE_OVERHEAD,
  type HandshakeType,
} from '../../lib/wire/handshake.js'
import { record, VirtualNetwork } from '../sim/session-host.js'
import { sodium } from '../tools/sodium.js'

const handshakeType = fc.constantFrom<HandshakeType>(
  FrameType.init,
  FrameType.response,
  FrameType.join,
  FrameType.joined,
)
const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const isReason = (value: unknown) => dropReasons.some((reason) => reason === value)

/** Bytes that get past the first checks often. */
const datagram = fc.oneof(
  fc.uint8Array({ maxLength: 1500 }),
  fc.tuple(fc.integer({ min: 0, max: 8 }), fc.uint8Array({ minLength: 2, maxLength: 1400 })).map(([type, bytes]) => {
    bytes[0] = type
    bytes[1] = PROTOCOL_VERSION
    return bytes
  }),
)

test('any bytes give a view or a reason, and no accessor throws', async () => {
  fc.assert(
    fc.property(datagram, fc.nat(1600), fc.nat(1600), (bytes, offset, length) => {
      for (const [from, size] of [
        [0, bytes.length],
        [offset, length],
      ] as const) {
        const view = HandshakeView.check(bytes, from, size)
        if (typeof view === 'string') {
          if (!isReason(view)) return false
        } else {
          const { noise, sender, receiver } = view.value()
          if (noise.length !== size - HANDSHAKE_OVERHEAD || size > HANDSHAKE_MAX) return false
          if (sender > 0xffff_ffff || receiver > 0xffff_ffff) return false
          if (view.mac1.length !== 16 || view.mac2.length !== 16) return false
        }
        const cookie = CookieView.check(bytes, from, size)
        if (typeof cookie === 'string' ? !isReason(cookie) : cookie.value().sealed.length !== 32) return false
      }
      return true
    }),
    { numRuns: 5000 },
  )
})

test('what is encoded is decoded', async () => {
  fc.assert(
    fc.property(
      handshakeType,
      u32,
      u32,
      fc.uint8Array({ minLength: 380, maxLength: HANDSHAKE_MAX - HANDSHAKE_OVERHEAD }),
      (type, sender, receiver, noise) => {
        const { bytes } = HandshakeView.encode({ type, sender, receiver, noise })
        const view = HandshakeView.check(bytes, 0, bytes.length)
        if (typeof view === 'string') return false
        const value = view.value()
        const same = value.noise.every((byte, i) => byte === noise[i]) && value.noise.length === noise.length
        return same && value.type === type && value.sender === sender && value.receiver === receiver
      },
    ),
    { numRuns: 1000 },
  )
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 900 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.array(u32, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 2 ** 48 }),
      fc.array(fc.integer({ min: 1, max: 0xffff }), { maxLength: 15 }),
      (membership, stamp, lanes, generation, ports) => {
        const aeads = ['chacha20-poly1305'] as const
        const init = decodeInit(encodeInit({ membership, stamp, lanes, generation, aeads, ports }))
        const aead = 'chacha20-poly1305'
        const response = decodeResponse(encodeResponse({ membership, lanes, generation, aeads, aead, ports }))
        return (
          init?.stamp === stamp &&
          isDeepStrictEqual([init.ports, response?.ports], [ports, ports]) &&
          init.generation === generation &&
          init.membership.every((byte, i) => byte === membership[i]) &&
          response?.lanes.every((lane, i) => lane === lanes[i]) === true &&
          response.aead === aead
        )
      },
    ),
    { numRuns: 1000 },
  )
})

test('payload decoders are total', async () => {
  const counted = fc.uint8Array({ maxLength: 1100 }).map((bytes) => {
    const whole = new Uint8Array(2 + bytes.length)
    whole.set([bytes.length & 255, bytes.length >> 8])
    whole.set(bytes, 2)
    return whole
  })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 1200 }), counted), (bytes) => {
      decodeInit(bytes)
      decodeResponse(bytes)
      decodeJoinRequest(sodium, bytes)
      decodeJoinAnswer(bytes)
    }),
    { numRuns: 5000 },
  )
})

test('whatever is received, and a handshake under way comes to its end', async (t) => {
  const net = new VirtualNetwork(sodium, 1)
  const options = { options: { rate: 1e9, burst: 1e9, loadThreshold: Infinity } }
  const a = net.host('A', options)
  const b = net.host('B', options)
  const real: Uint8Array[] = []
  net.filter = ({ bytes }) => {
    real.push(bytes.slice())
    return true
  }
  a.connect(b)
  net.runFor(100)
  t.ok(a.info(b).confirmed)
  const mutation = fc
    .tuple(fc.nat(real.length - 1), fc.array(fc.tuple(fc.nat(1300), fc.nat(255)), { maxLength: 3 }), fc.nat(1300))
    .map(([which, changes, cut]) => {
      const bytes = real[which]!.slice(0, cut > 900 ? undefined : cut + 300)
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
      return bytes
    })
  const from = record('10.0.0.77:7')
  const events = b.events.length
  fc.assert(
    fc.property(fc.oneof(datagram, mutation), fc.boolean(), (bytes, resign) => {
      // With the MAC right, so that what is behind it is reached as well.
      const view = HandshakeView.check(bytes, 0, bytes.length)
      if (resign && typeof view !== 'string') b.table.guard.macs.sign(view)
      const reason = b.table.receive(bytes, 0, bytes.length, from, net.now, net.wallNow)
      return reason === undefined || isReason(reason)
    }),
    { numRuns: 3000 },
  )
  t.equal(b.events.length, events)
  t.ok(a.send(b, 'still there') && b.send(a, 'yes'))
  net.runFor(100)
  t.same([a.received, b.received], [['yes'], ['still there']])
  const c = net.host('C', options)
  c.connect(b)
  net.runFor(100)
  t.ok(c.info(b).confirmed)
})
