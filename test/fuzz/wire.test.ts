// Whatever the bytes, the decoders of packets and frames give a value or a drop reason, stay inside the buffer and keep little.
// Starting points are the packets and frame bodies of corpus/wire, mutated; and bytes that are nothing at all.
import fc from 'fast-check'
import { test } from 'tap'
import {
  answerIcmpError,
  carriedIcmpError,
  errorToFrame,
  IcmpErrorPacket,
  parseIcmpError,
} from '../../lib/flow/icmp-error.js'
import { PieceAssembler } from '../../lib/flow/pieces.js'
import { packetToFrame } from '../../lib/flow/translate.js'
import { HEADROOM, INNER_HEADER } from '../../lib/wire/constants.js'
import { decodeControl } from '../../lib/wire/control.js'
import { PacketHead, writeHeaders } from '../../lib/wire/headers.js'
import { IcmpKind, isIcmpKind } from '../../lib/wire/icmp.js'
import {
  CloseFrame,
  IcmpErrorFrame,
  NotHereFrame,
  OpenFrame,
  readClose,
  readIcmpErrorFrame,
  readNotHere,
  readOpen,
} from '../../lib/wire/open.js'
import { ParsedPacket, parsePacket } from '../../lib/wire/packet.js'
import { Reassembler } from '../../lib/wire/reassembly.js'
import { resetFor } from '../../lib/wire/reset.js'
import { clampMss } from '../../lib/wire/tcp.js'
import { readCorpus } from '../tools/corpus.js'
import { client, server, viewOf } from '../unit/wire/sample-packets.js'

const RUNS = { numRuns: 4_000 }

const inputs = readCorpus('wire')
function corpus(wanted: (name: string) => boolean): Uint8Array[] {
  return [...inputs].filter(([name]) => wanted(name)).map(([, bytes]) => bytes)
}

/** Bytes of a seed with some changed, and cut or padded; or any bytes. */
function mutated(seeds: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const changes = fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 6 })
  const near = fc
    .tuple(fc.constantFrom(...seeds), changes, fc.integer({ min: -60, max: 30 }))
    .map(([seed, edits, delta]) => {
      const bytes = new Uint8Array(Math.max(0, seed.length + delta))
      bytes.set(seed.subarray(0, bytes.length))
      if (bytes.length > 0) for (const [at, value] of edits) bytes[at % bytes.length] = value
      return bytes
    })
  return fc.oneof({ weight: 5, arbitrary: near }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }) })
}

const packets = mutated(corpus((name) => !name.startsWith('frame-')))
const frames = mutated(corpus((name) => name.startsWith('frame-')))

/** The bytes in the middle of a larger buffer whose other bytes must stay as they are. */
function embedded(bytes: Uint8Array) {
  const data = new Uint8Array(bytes.length + 200).fill(0xa5)
  data.set(bytes, 100)
  const untouched = () =>
    data.subarray(0, 100).every((byte) => byte === 0xa5) &&
    data.subarray(100 + bytes.length).every((byte) => byte === 0xa5)
  return { data, view: viewOf(data), untouched }
}

test('the corpus is what it says', (t) => {
  const packet = new ParsedPacket()
  for (const bytes of corpus((name) => !name.startsWith('frame-'))) {
    t.match(parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet), /^(ok|fragment|icmp-error)$/)
  }
  t.end()
})

test('packets from the TUN', (t) => {
  const packet = new ParsedPacket()
  let carried = 0
  fc.assert(
    fc.property(packets, fc.constantFrom(4 as const, 6 as const), (bytes, family) => {
      const { data, view, untouched } = embedded(bytes)
      const result = parsePacket(data, view, 100, bytes.length, packet)
      if (result === 'malformed-packet' || result === 'unsupported-protocol') return untouched()
      const limit = 100 + bytes.length
      if (!(100 < packet.ipOffset && packet.ipOffset < packet.transportOffset && packet.end <= limit)) return false
      answerIcmpError(data, packet, IcmpKind.hostUnreachable, 0, server(packet.family), 0)
      if (result !== 'ok') return packet.transportOffset <= packet.end && untouched()
      if (!(packet.transportOffset <= packet.wireOffset && packet.wireOffset < packet.payloadOffset)) return false
      if (packet.payloadOffset > packet.end) return false
      resetFor(data, view, packet)
      if (packet.protocol === 6) clampMss(data, view, packet.transportOffset, packet.end, 1300, packet.needsChecksum)
      const flags = packetToFrame(data, view, packet)
      if (!untouched()) return false
      carried++
      // What travelled makes a packet again at the other end.
      const buffer = new Uint8Array(HEADROOM + INNER_HEADER + packet.end - packet.wireOffset)
      buffer.set(data.subarray(packet.wireOffset, packet.end), HEADROOM + INNER_HEADER)
      const head = new PacketHead()
      head.family = family
      head.protocol = packet.protocol
      head.source = client(family)
      head.destination = server(family)
      head.checksum = flags
      const vnet = writeHeaders(buffer, viewOf(buffer), HEADROOM + INNER_HEADER, buffer.length, head)
      return vnet >= 0 && parsePacket(buffer, viewOf(buffer), vnet, buffer.length - vnet, new ParsedPacket()) === 'ok'
    }),
    RUNS,
  )
  t.ok(carried > 300)
  t.end()
})

test('ICMP errors from the TUN', (t) => {
  const packet = new ParsedPacket()
  const error = new IcmpErrorPacket()
  const frame = new IcmpErrorFrame()
  const quoted = new PacketHead()
  const errors = mutated(corpus((name) => name.startsWith('unreachable') || name.startsWith('too-big')))
  let seen = 0
  fc.assert(
    fc.property(errors, fc.constantFrom(4 as const, 6 as const), (bytes, family) => {
      const { data, view, untouched } = embedded(bytes)
      if (parsePacket(data, view, 100, bytes.length, packet) !== 'icmp-error') return true
      if (parseIcmpError(data, view, packet, error) !== 'ok') return untouched()
      seen++
      if (!isIcmpKind(error.kind) || error.end > packet.end || error.wireOffset >= error.end) return false
      errorToFrame(data, error, frame)
      quoted.family = family
      quoted.protocol = error.protocol
      quoted.source = client(family)
      quoted.destination = server(family)
      return carriedIcmpError(frame, quoted, server(family), 0) !== undefined && untouched()
    }),
    RUNS,
  )
  t.ok(seen > 100)
  t.end()
})

test('opened plaintexts become a packet or are refused', (t) => {
  const head = new PacketHead()
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.constantFrom(4 as const, 6 as const),
      fc.constantFrom(1, 6, 17, 50),
      fc.constantFrom(0, 0x10, 0x20, 0x30),
      fc.nat(2),
      fc.nat(100),
      (bytes, family, protocol, checksum, gsoKind, gsoSize) => {
        const buffer = new Uint8Array(HEADROOM + INNER_HEADER + bytes.length)
        buffer.set(bytes, HEADROOM + INNER_HEADER)
        Object.assign(head, {
          family,
          protocol,
          checksum,
          gsoKind,
          gsoSize,
          source: client(family),
          destination: server(family),
        })
        const vnet = writeHeaders(buffer, viewOf(buffer), HEADROOM + INNER_HEADER, buffer.length, head)
        if (vnet < 0) return true
        const result = parsePacket(buffer, viewOf(buffer), vnet, buffer.length - vnet, new ParsedPacket())
        return vnet >= HEADROOM + INNER_HEADER - 54 && result === 'ok'
      },
    ),
    RUNS,
  )
  t.pass()
  t.end()
})

test('reassembly stays within its bounds and accounts for every fragment', (t) => {
  const seeds = corpus((name) => name.startsWith('fragment'))
  const limits = { bytes: 4_000, entries: 6, timeout: 40 }
  fc.assert(
    fc.property(fc.array(fc.tuple(mutated(seeds), fc.nat(5)), { maxLength: 40 }), (steps) => {
      let given = 0
      let told = 0
      let now = 0
      const subject = new Reassembler((_reason, count) => (told += count), limits)
      const packet = new ParsedPacket()
      let whole = false
      for (const [bytes, wait] of steps) {
        now += wait
        if (parsePacket(bytes, viewOf(bytes), 0, bytes.length, packet) !== 'fragment') continue
        const result = subject.add(bytes, packet, now)
        if (result instanceof Uint8Array) whole = true
        else if (result === 'held') given++
        if (subject.bytes > limits.bytes || subject.bytes < 0) return false
        if (subject.nextTimeout() <= now) return false
      }
      subject.expire(Infinity)
      return subject.bytes === 0 && (whole ? told <= given : told === given)
    }),
    { numRuns: 1_500 },
  )
  t.pass()
  t.end()
})

test('pieces stay within their bounds', (t) => {
  const limits = { peerBytes: 6_000, bytes: 9_000, entries: 6, timeout: 40 }
  const piece = mutated(corpus((name) => name.startsWith('frame-piece')))
  fc.assert(
    fc.property(fc.array(fc.tuple(piece, fc.nat(2), fc.nat(5)), { maxLength: 40 }), (steps) => {
      let now = 0
      const subject = new PieceAssembler(() => undefined, limits)
      for (const [bytes, peer, wait] of steps) {
        now += wait
        const { data, view, untouched } = embedded(bytes)
        const result = subject.add(peer, data, view, 100, bytes.length, now)
        if (result instanceof Uint8Array && result.length <= HEADROOM + INNER_HEADER) return false
        if (subject.bytes > limits.bytes || subject.bytes < 0 || !untouched()) return false
      }
      subject.expire(Infinity)
      return subject.bytes === 0
    }),
    { numRuns: 1_500 },
  )
  t.pass()
  t.end()
})

test('frames that open, refuse and end flows, and control messages', (t) => {
  const open = new OpenFrame()
  const notHere = new NotHereFrame()
  const close = new CloseFrame()
  const error = new IcmpErrorFrame()
  fc.assert(
    fc.property(frames, (bytes) => {
      const { data, view, untouched } = embedded(bytes)
      const limit = 100 + bytes.length
      if (readOpen(data, view, 100, bytes.length, open) === 'ok' && !(open.segmentOffset <= limit)) return false
      if (
        readNotHere(data, view, 100, bytes.length, notHere) === 'ok' &&
        notHere.hintOffset + notHere.hintLength > limit
      ) {
        return false
      }
      readClose(data, view, 100, bytes.length, close)
      if (readIcmpErrorFrame(data, view, 100, bytes.length, error) === 'ok') {
        if (error.quoteOffset + error.quoteLength > limit || !isIcmpKind(error.kind)) return false
      }
      const message = decodeControl(bytes)
      return (message === undefined || message.body.length <= bytes.length) && untouched()
    }),
    RUNS,
  )
  t.pass()
  t.end()
})
