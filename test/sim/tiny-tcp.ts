// As much of TCP as a flow needs to be put to the test: handshake, data in order under a small window, go-back-N, FIN, resets taken only at the exact number.

import { ACK, FIN, RST, SYN, type Seen } from '../unit/flow/packets.js'

const WINDOW = 8
const SEGMENT = 100
const RTO = 200
const SYN_RTO = 1000

export interface SegmentOut {
  readonly flags: number
  readonly sequence: number
  readonly acknowledgement: number
  readonly payload: readonly number[]
}

export class TinyTcp {
  readonly received: number[] = []
  state: 'closed' | 'syn-sent' | 'syn-received' | 'established' | 'reset' = 'closed'
  finished = false
  peerFinished = false
  establishedAt = -1
  readonly #initial: number
  /** Offsets into the stream; the SYN is before 0, the FIN after its end. */
  #acked = 0
  #sent = 0
  #next = 0
  #deadline = Infinity

  constructor(
    readonly data: readonly number[],
    initial: number,
    readonly emit: (segment: SegmentOut) => void,
  ) {
    this.#initial = initial >>> 0
  }

  /** Both directions have ended and everything was acknowledged. */
  get done(): boolean {
    return this.finished && this.peerFinished
  }

  get deadline(): number {
    return this.#deadline
  }

  connect(now: number): void {
    this.state = 'syn-sent'
    this.#deadline = now + SYN_RTO
    this.#segment(SYN, this.#initial, [])
  }

  receive(packet: Seen, now: number): void {
    const sequence = packet.sequence >>> 0
    if ((packet.flags & RST) !== 0) {
      const expected = this.state === 'syn-sent' ? packet.acknowledgement === this.#at(0) : sequence === this.#next
      if (expected && !this.done) this.state = 'reset'
      return
    }
    if ((packet.flags & SYN) !== 0) {
      this.#handshake(packet, sequence, now)
      return
    }
    if (this.state === 'closed' || this.state === 'reset') return
    if ((packet.flags & ACK) !== 0) this.#acknowledged(packet.acknowledgement, now)
    const length = packet.payload.length + ((packet.flags & FIN) !== 0 ? 1 : 0)
    if (length === 0) return
    if (sequence === this.#next) {
      this.received.push(...packet.payload)
      this.#next = (this.#next + length) >>> 0
      if ((packet.flags & FIN) !== 0) this.peerFinished = true
    }
    this.#segment(ACK, this.#at(this.#sent), [])
  }

  timeout(now: number): void {
    if (now < this.#deadline) return
    if (this.state === 'syn-sent') this.connect(now)
    else if (this.state === 'syn-received') {
      this.#deadline = now + SYN_RTO
      this.#segment(SYN | ACK, this.#initial, [])
    } else if (this.state === 'established') {
      this.#sent = this.#acked
      this.#push(now)
    } else this.#deadline = Infinity
  }

  #handshake(packet: Seen, sequence: number, now: number): void {
    const synAck = (packet.flags & ACK) !== 0
    if (this.state === 'closed' && !synAck) {
      this.state = 'syn-received'
      this.#next = (sequence + 1) >>> 0
      this.#deadline = now + SYN_RTO
      this.#segment(SYN | ACK, this.#initial, [])
    } else if (this.state === 'syn-received' && !synAck) this.#segment(SYN | ACK, this.#initial, [])
    else if (this.state === 'syn-sent' && synAck && packet.acknowledgement === this.#at(0)) {
      this.#next = (sequence + 1) >>> 0
      this.#established(now)
      this.#segment(ACK, this.#at(0), [])
      this.#push(now)
    } else if (this.state === 'established') this.#segment(ACK, this.#at(this.#sent), [])
  }

  #established(now: number): void {
    this.state = 'established'
    this.establishedAt = now
    this.#deadline = Infinity
  }

  #acknowledged(acknowledgement: number, now: number): void {
    const offset = (acknowledgement - this.#at(0)) | 0
    if (this.state === 'syn-received' && offset >= 0) this.#established(now)
    if (this.state !== 'established' || offset < this.#acked || offset > this.data.length + 1) return
    this.#acked = offset
    this.#sent = Math.max(this.#sent, offset)
    if (offset === this.data.length + 1) {
      this.finished = true
      this.#deadline = Infinity
    } else this.#push(now)
  }

  /** Sends what the window lets through. */
  #push(now: number): void {
    while (this.#sent < Math.min(this.data.length, this.#acked + WINDOW * SEGMENT)) {
      const payload = this.data.slice(this.#sent, this.#sent + SEGMENT)
      this.#segment(ACK, this.#at(this.#sent), payload)
      this.#sent += payload.length
    }
    if (this.#sent === this.data.length) {
      this.#segment(ACK | FIN, this.#at(this.#sent), [])
      this.#sent++
    }
    if (!this.finished) this.#deadline = now + RTO
  }

  #at(offset: number): number {
    return (this.#initial + 1 + offset) >>> 0
  }

  #segment(flags: number, sequence: number, payload: readonly number[]): void {
    this.emit({ flags, sequence, acknowledgement: (flags & ACK) === 0 ? 0 : this.#next, payload })
  }
}
