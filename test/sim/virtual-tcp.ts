// TCP as far as the programs of a simulated host need it: retransmission at the pace of the measured round trip, reordering, resets taken only at the exact number.

import { IPV4_HEADER, IPV6_HEADER } from '../../lib/wire/ip.js'
import { TCP_HEADER } from '../../lib/wire/tcp.js'
import { ACK, FIN, PSH, RST, SYN, tcpPacket, type Seen } from '../unit/flow/packets.js'
import type { Ends, VirtualKernel } from './virtual-kernel.js'

/** Segments that may be on their way. */
const WINDOW = 16
/** Added to the smoothed round trip at least, as Linux does it, before a segment counts as lost; and the longest that it is waited for, ms. */
const RTO_MIN = 200
const RTO_MAX = 3_200
const SYN_RTO = 1_000
/** Acknowledgements of the same number after which the next segment counts as lost. */
const DUPLICATES = 3

/** A byte stream that grows. */
class Stream {
  length = 0
  #bytes = new Uint8Array(1_024)

  append(bytes: Uint8Array): void {
    while (this.#bytes.length < this.length + bytes.length) {
      const larger = new Uint8Array(2 * this.#bytes.length)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  slice(from: number, to: number): Uint8Array {
    return this.#bytes.slice(from, Math.min(to, this.length))
  }
}

export type TcpState = 'syn-sent' | 'syn-received' | 'established' | 'reset' | 'unreachable'

export class TcpSocket {
  state: TcpState
  readonly startedAt: number
  establishedAt = -1
  /** When the last new byte came. */
  receivedAt = -1
  /** Longest time between new bytes since the connection was there. */
  longestGap = 0
  /** Retransmission time-outs of data. */
  timeouts = 0
  readonly received = new Stream()
  readonly sent = new Stream()
  peerFinished = false
  finished = false
  onData: ((bytes: Uint8Array) => void) | undefined
  onEnd: (() => void) | undefined
  deadline = Infinity
  #closing = false
  /** Positions in `sent`; its end + 1 is the FIN. */
  #acked = 0
  #next = 0
  #expected = 0
  #tries = 0
  /** When a time-out has come up last. */
  #sentAt = 0
  #duplicates = 0
  /** Payload of a segment at most: what the kernel sends, and the other end and the way there take. */
  #segmentMax: number
  readonly #early = new Map<number, Uint8Array>()
  #finAt = -1
  /** Smoothed round trip and its mean deviation, ms (RFC 6298); -1: not measured. */
  #roundTrip = -1
  #deviation = 0
  /** What is being measured: the acknowledgement of this position of what was sent then; -1: nothing. */
  #timedTo = -1
  #timedAt = 0

  constructor(
    readonly kernel: VirtualKernel,
    readonly ends: Ends,
    readonly initial: number,
    readonly server: boolean,
  ) {
    this.state = server ? 'syn-received' : 'syn-sent'
    this.startedAt = kernel.now
    this.#segmentMax = kernel.segment
  }

  /** Both directions have ended and all was acknowledged. */
  get done(): boolean {
    return this.finished && this.peerFinished
  }

  get open(): boolean {
    return this.state === 'established' && !this.done
  }

  write(bytes: Uint8Array): void {
    this.sent.append(bytes)
    this.#push()
  }

  /** No more will be written. */
  close(): void {
    this.#closing = true
    this.#push()
  }

  /** The first SYN. */
  start(): void {
    this.#transmit(SYN, -1, undefined)
    this.deadline = this.kernel.now + SYN_RTO
  }

  receive(packet: Seen): void {
    const { flags } = packet
    if ((flags & RST) !== 0) {
      const exact =
        this.state === 'syn-sent' ? packet.acknowledgement === this.#at(0) : packet.sequence === this.#expected
      if (exact && !this.done) this.#fail('reset')
      else if (this.state === 'established') this.#acknowledge()
      return
    }
    if (this.state === 'reset' || this.state === 'unreachable') return
    if ((flags & SYN) !== 0) return this.#handshake(packet)
    if (this.state === 'syn-sent') return
    if ((flags & ACK) !== 0) this.#acknowledged(packet)
    if (packet.payload.length > 0 || (flags & FIN) !== 0) this.#data(packet)
  }

  /** An ICMP error about a packet of ours, which began with this number. */
  unreachable(sequence: number): void {
    if (this.state === 'syn-sent' || this.state === 'syn-received') return this.#fail('unreachable')
    if (this.state !== 'established') return
    // As Linux does it (RFC 6069): one doubling is taken back.
    const { now } = this.kernel
    if (sequence !== this.#at(this.#acked) || this.#tries === 0 || this.deadline === Infinity) return
    this.#tries--
    this.deadline = Math.max(now, this.#sentAt + Math.min(this.patience * 2 ** this.#tries, RTO_MAX))
  }

  /** An ICMP error says that of a packet of ours only so much is carried, whole packet, bytes: what is on its way goes once more, in smaller segments, as Linux does it. */
  tooBig(sequence: number, mtu: number): void {
    const offset = (sequence - this.#at(0)) | 0
    const segment = mtu - (this.ends.family === 4 ? IPV4_HEADER : IPV6_HEADER) - TCP_HEADER
    if (this.state !== 'established' || offset < this.#acked || offset >= this.#next) return
    if (segment >= this.#segmentMax) return
    this.#segmentMax = segment
    this.#next = this.#acked
    this.#timedTo = -1
    this.#push()
  }

  timeout(): void {
    const { now } = this.kernel
    if (now < this.deadline) return
    this.#tries++
    if (this.state === 'syn-sent') this.#transmit(SYN, -1, undefined)
    else if (this.state === 'syn-received') this.#transmit(SYN | ACK, -1, undefined)
    else {
      this.timeouts++
      this.#sentAt = now
      this.#next = this.#acked
      this.#timedTo = -1
      this.#push()
      return
    }
    this.deadline = now + SYN_RTO * 2 ** this.#tries
  }

  #handshake(packet: Seen): void {
    const synAck = (packet.flags & ACK) !== 0
    if (packet.mss !== undefined) this.#segmentMax = Math.min(this.#segmentMax, packet.mss)
    if (this.state === 'syn-received' && !synAck) {
      this.#expected = (packet.sequence + 1) >>> 0
      this.#transmit(SYN | ACK, -1, undefined)
      if (this.deadline === Infinity) this.deadline = this.kernel.now + SYN_RTO
    } else if (this.state === 'syn-sent' && synAck && packet.acknowledgement === this.#at(0)) {
      this.#expected = (packet.sequence + 1) >>> 0
      this.#established()
      this.#acknowledge()
      this.#push()
    } else if (this.state === 'established') this.#acknowledge()
  }

  #established(): void {
    this.state = 'established'
    this.establishedAt = this.kernel.now
    this.receivedAt = this.kernel.now
    this.deadline = Infinity
    if (this.#tries === 0) this.#measured(this.kernel.now - this.startedAt)
    this.#tries = 0
  }

  /** A round trip of what was sent once (RFC 6298, section 2). */
  #measured(ms: number): void {
    if (this.#roundTrip < 0) {
      this.#roundTrip = ms
      this.#deviation = ms / 2
    } else {
      this.#deviation += (Math.abs(this.#roundTrip - ms) - this.#deviation) / 4
      this.#roundTrip += (ms - this.#roundTrip) / 8
    }
  }

  /** ms until what was sent counts as lost. */
  get patience(): number {
    return this.#roundTrip < 0 ? SYN_RTO : this.#roundTrip + Math.max(RTO_MIN, 4 * this.#deviation)
  }

  #acknowledged(packet: Seen): void {
    const offset = (packet.acknowledgement - this.#at(0)) | 0
    if (offset < 0 || offset > this.sent.length + 1) return
    if (this.state === 'syn-received') this.#established()
    if (offset > this.#acked) {
      this.#acked = offset
      this.#next = Math.max(this.#next, offset)
      this.#tries = 0
      this.#duplicates = 0
      if (this.#timedTo >= 0 && offset >= this.#timedTo) {
        this.#measured(this.kernel.now - this.#timedAt)
        this.#timedTo = -1
      }
      this.deadline = this.#acked < this.#next ? this.kernel.now + this.patience : Infinity
      if (this.#closing && offset === this.sent.length + 1) {
        this.finished = true
        this.deadline = Infinity
      }
    } else if (packet.payload.length === 0 && offset === this.#acked && this.#next > offset) {
      if (++this.#duplicates === DUPLICATES) {
        this.#timedTo = -1
        this.#segment(this.#acked)
      }
    }
    this.#push()
  }

  #data(packet: Seen): void {
    const offset = (packet.sequence - this.#expected) | 0
    const end = offset + packet.payload.length
    if ((packet.flags & FIN) !== 0) this.#finAt = (packet.sequence + packet.payload.length) >>> 0
    if (offset > 0) {
      if (packet.payload.length > 0 && this.#early.size < 256) this.#early.set(packet.sequence, packet.payload)
    } else if (end > 0) this.#take(packet.payload.subarray(-offset))
    for (let more = true; more;) {
      more = false
      for (const [sequence, payload] of this.#early) {
        const at = (sequence - this.#expected) | 0
        if (at > 0) continue
        this.#early.delete(sequence)
        if (at + payload.length > 0) this.#take(payload.subarray(-at))
        more = true
      }
    }
    const ended = !this.peerFinished && this.#finAt === this.#expected
    if (ended) {
      this.#expected = (this.#expected + 1) >>> 0
      this.peerFinished = true
    }
    this.#acknowledge()
    if (ended) this.onEnd?.()
  }

  #take(bytes: Uint8Array): void {
    const { now } = this.kernel
    this.longestGap = Math.max(this.longestGap, now - this.receivedAt)
    this.receivedAt = now
    this.received.append(bytes)
    this.#expected = (this.#expected + bytes.length) >>> 0
    this.onData?.(bytes)
  }

  #push(): void {
    if (this.state !== 'established' || this.finished) return
    while (this.#next < Math.min(this.sent.length, this.#acked + this.#window)) this.#segment(this.#next)
    if (this.#closing && this.#next === this.sent.length) {
      this.#transmit(FIN | ACK, this.#next, undefined)
      this.#next++
    }
    if (this.#next > this.#acked && this.deadline === Infinity) this.deadline = this.kernel.now + this.patience
    if (this.#next > this.#acked && this.deadline <= this.kernel.now) {
      this.deadline = this.kernel.now + Math.min(this.patience * 2 ** this.#tries, RTO_MAX)
    }
  }

  get #window(): number {
    return WINDOW * this.#segmentMax
  }

  /** Sends from the position: one segment, or several as a super-packet. */
  #segment(from: number): void {
    const room = Math.min(this.sent.length, this.#acked + this.#window) - from
    const segments = this.kernel.random() < 0.3 ? 4 : 1
    const payload = this.sent.slice(from, from + Math.min(room, segments * this.#segmentMax))
    this.#transmit(ACK | PSH, from, payload)
    if (this.#timedTo < 0 && from === this.#next && this.#tries === 0 && this.#duplicates < DUPLICATES) {
      this.#timedTo = from + payload.length
      this.#timedAt = this.kernel.now
    }
    this.#next = Math.max(this.#next, from + payload.length)
  }

  #acknowledge(): void {
    this.#transmit(ACK, this.#next, undefined)
  }

  #fail(state: 'reset' | 'unreachable'): void {
    this.state = state
    this.deadline = Infinity
    this.onEnd?.()
  }

  #at(offset: number): number {
    return (this.initial + 1 + offset) >>> 0
  }

  #transmit(flags: number, offset: number, payload: Uint8Array | undefined): void {
    const { family, local, localPort, remote, remotePort } = this.ends
    const long = payload !== undefined && payload.length > this.#segmentMax
    this.kernel.emit(
      tcpPacket({
        family,
        source: local,
        destination: remote,
        ports: [localPort, remotePort],
        flags,
        sequence: this.#at(offset),
        acknowledgement: (flags & ACK) === 0 ? 0 : this.#expected,
        partial: this.kernel.random() < 0.5,
        ...((flags & SYN) === 0 ? {} : { mss: 1360 }),
        ...(payload === undefined ? {} : { payload: [...payload] }),
        ...(long ? { gsoSize: this.#segmentMax } : {}),
      }),
    )
  }
}
