// The initiator's side of late binding: a program's first packet finds its instance.
//
//   first packet ─▶ candidates ─▶ ask(1st) ──silence, doubt──▶ ask(2nd) … attemptsMax at the same time, each with a flow ID of its own
//                                   │  │ │
//                       answer ◀────┘  │ └─▶ refusal ─▶ ask(next) … none left ─▶ show the program
//                          │           ├───▶ moved: whom its hint names comes next, nobody twice, hopsMax deep
//                          │           └───▶ loading: ask(next) meanwhile, this one again after a while
//            established; the others get CLOSE
//
// So resolvers are asked like instances, by the OPEN itself: a client always speaks for itself, and who answers in the end has a session with it.
//
// TCP goes on to the next candidate on silence and on refusal; UDP and echo only on refusal, because an instance that does not answer may
// still have acted. An OPEN is idempotent at its receiver, so it may be repeated.

import { OpenFlag, CloseCode, NotHereCode } from '../wire/open.js'
import { Protocol } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { ParsedPacket, parsePacket } from '../wire/packet.js'
import { Tcp, TcpFlag } from '../wire/tcp.js'
import { SELF } from '../path/peers.js'
import { Affinity } from './affinity.js'
import { Deadlines } from './deadlines.js'
import type { Candidate, DialledTarget } from './environment.js'
import { seconds, type FlowCore } from './flow-core.js'
import { FlowFlag, FlowState, Row } from './flow-table.js'
import type { FrameSender } from './frame-sender.js'
import { HeldPackets } from './held.js'
import type { OwnKernel } from './own-kernel.js'
import { takeSegment, type Segment } from './segment.js'

/** First datagrams of a UDP flow that are kept for the next candidate. */
const SEGMENTS_KEPT = 4
const RESENDS_MAX = 3
/** How often flows of datagrams that nobody answers are looked through, ms. */
const IDLE_EVERY = 1_000

export interface Attempt {
  readonly candidate: Candidate
  /** The flow ID of this attempt is (row, generation). */
  readonly generation: number
  sentAt: number
  /** When the next candidate is asked too; Infinity: never, or done. */
  hedgeAt: number
  /** ms without an answer after which this one counts as silent, and is asked again for the first time. */
  silence: number
  /** When it counts as silent; Infinity: never, or it does. */
  silentAt: number
  resendAt: number
  resends: number
  /** When one that is loading is asked again; Infinity: it is not. */
  againAt: number
  /** Times it has been, and until when that goes on: since it said so first. */
  agains: number
  againUntil: number
  state: 'asked' | 'silent' | 'loading' | 'refused'
}

/** A flow that is being opened. */
export interface Pending {
  readonly row: number
  readonly protocol: number
  readonly candidates: Candidate[]
  readonly segments: Segment[]
  readonly attempts: Attempt[]
  readonly affinity: string
  /** Candidates asked so far. */
  next: number
  lastPacket: number
  /** What the program is shown if nothing else comes. */
  reason: DropReason
  done: boolean
}

/** Takes a packet, vnet header and all, for one of the TUN. */
export type CarryPacket = (packet: Uint8Array, view: DataView, now: number) => void

export class Opening {
  readonly #core: FlowCore
  readonly #sender: FrameSender
  readonly #kernel: OwnKernel
  readonly #pending = new Map<number, Pending>()
  readonly #deadlines = new Deadlines<Pending>()
  readonly #held: HeldPackets
  readonly #released = new ParsedPacket()
  readonly #affinity: Affinity
  /** Only TCP has deadlines that matter to the millisecond; entries of flows long open would else pile up behind the others'. */
  #idleAt = Infinity

  constructor(core: FlowCore, sender: FrameSender, kernel: OwnKernel) {
    this.#core = core
    this.#sender = sender
    this.#kernel = kernel
    this.#held = new HeldPackets(core.options.heldPackets, core.options.heldBytes)
    this.#affinity = new Affinity(core.options.affinityMax, core.options.affinityTimeout)
  }

  get size(): number {
    return this.#pending.size
  }

  /** Opens a flow for a packet from the TUN that belongs to none: a SYN, a datagram, an echo request. The packet is consumed. */
  start(
    data: Uint8Array,
    view: DataView,
    packet: ParsedPacket,
    target: DialledTarget,
    now: number,
    heldUntil?: number,
  ): void {
    const { env, table, options } = this.#core
    const { family, protocol, sourcePort, destinationPort } = packet
    const found = env.candidates(target, protocol, destinationPort, now)
    if (found === 'hold') {
      const copy = data.slice(packet.vnetOffset, packet.end)
      if (!this.#held.add({ target, packet: copy, until: heldUntil ?? now + options.heldTimeout })) {
        this.#core.drop('queue-full', data.subarray(packet.ipOffset, packet.end))
      } else env.ask(target, protocol, destinationPort, now)
      return
    }
    if (typeof found === 'string' || found.length === 0) {
      const reason = typeof found === 'string' ? found : 'no-instance'
      this.#kernel.refusePacket(data, view, packet, reason, now)
      this.#core.drop(reason, data.subarray(packet.ipOffset, packet.end))
      return
    }
    const row = this.#pending.size < options.openingsMax ? this.#core.allocate(FlowState.opening, now) : -1
    if (row < 0) {
      this.#kernel.refusePacket(data, view, packet, 'flow-table-full', now)
      this.#core.drop('flow-table-full', data.subarray(packet.ipOffset, packet.end))
      return
    }
    const length = family === 4 ? 4 : 16
    const local = data.slice(packet.sourceOffset, packet.sourceOffset + length)
    const remote = data.slice(packet.destinationOffset, packet.destinationOffset + length)
    table.link(row, family, protocol, local, remote, sourcePort, destinationPort)
    this.#core.begun(row)
    table.set(row, Row.dialled, (destinationPort << 16) | sourcePort)
    table.set(row, Row.since, seconds(now))
    table.set(row, Row.lastOut, seconds(now))
    if (protocol === Protocol.tcp) {
      const initial = view.getInt32(packet.transportOffset + Tcp.sequence)
      table.set(row, Row.initial, initial)
      table.set(row, Row.nextOut, (initial + 1) | 0)
    }
    const affinity = protocol === Protocol.tcp ? '' : affinityKey(protocol, local, remote, sourcePort, destinationPort)
    const pending: Pending = {
      row,
      protocol,
      candidates: this.#preferred(found, affinity, now),
      segments: [takeSegment(data, view, packet)],
      attempts: [],
      affinity,
      next: 0,
      lastPacket: now,
      reason: 'no-instance',
      done: false,
    }
    this.#pending.set(row, pending)
    this.#core.counters.opened++
    this.#ask(pending, now)
    this.#schedule(pending, now)
  }

  /** A flow of a former process is bound where it is: should it go idle, it returns there. */
  remember(row: number, now: number): void {
    const { table } = this.#core
    if (table.protocol(row) === Protocol.tcp || table.has(row, FlowFlag.acceptor)) return
    const [local, remote] = [table.address(row, Row.local), table.address(row, Row.remote)]
    const key = affinityKey(table.protocol(row), local, remote, table.localPort(row), table.remotePort(row))
    this.#affinity.remember(key, table.get(row, Row.peer), now)
  }

  /** What is held is tried again: more is known of services. What has been held for too long is refused. `carry`: takes packets whose flow is there by then on their way. */
  release(now: number, carry: CarryPacket): void {
    for (const { target, packet: bytes, until } of this.#held.takeAll()) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const packet = this.#released
      if (parsePacket(bytes, view, 0, bytes.length, packet) !== 'ok') continue
      const { family, protocol, sourceOffset, destinationOffset, sourcePort, destinationPort } = packet
      const ports = (sourcePort << 16) | destinationPort
      const row = this.#core.table.find(view, sourceOffset, destinationOffset, family, protocol, ports)
      if (row >= 0) {
        // It was opened by what was held before: of a SYN that is this one again enough has gone.
        if (!this.#isRepeatedSyn(row, view, packet)) carry(bytes, view, now)
        continue
      }
      if (now < until) {
        this.start(bytes, view, packet, target, now, until)
        continue
      }
      this.#kernel.refusePacket(bytes, view, packet, 'no-such-service', now)
      this.#core.drop('no-such-service', bytes.subarray(packet.ipOffset, packet.end))
    }
  }

  #isRepeatedSyn(row: number, view: DataView, { protocol, transportOffset }: ParsedPacket): boolean {
    return (
      protocol === Protocol.tcp &&
      view.getInt32(transportOffset + Tcp.sequence) === this.#core.table.get(row, Row.initial)
    )
  }

  /** Another packet of a flow that is being opened. */
  again(row: number, data: Uint8Array, view: DataView, packet: ParsedPacket, now: number): void {
    const pending = this.#pending.get(row)
    if (pending === undefined) return
    const asked = pending.attempts.filter((attempt) => attempt.state !== 'refused')
    if (pending.protocol === Protocol.tcp) {
      if ((packet.tcpFlags & TcpFlag.rst) !== 0) {
        this.abandon(row)
        return
      }
      if ((packet.tcpFlags & TcpFlag.syn) === 0) {
        this.#core.drop('mid-stream', data.subarray(packet.ipOffset, packet.end))
        return
      }
      // The program's kernel repeats its SYN: so do we.
      for (const attempt of asked)
        if (attempt.state !== 'loading') this.#send(pending, attempt, pending.segments[0]!, now)
      return
    }
    const segment = takeSegment(data, view, packet)
    pending.lastPacket = now
    this.#core.table.set(row, Row.lastOut, seconds(now))
    const kept = pending.segments.length < SEGMENTS_KEPT
    if (kept) pending.segments.push(segment)
    // Who is loading gets what is kept when it is asked again.
    const ready = asked.filter((attempt) => attempt.state !== 'loading')
    if (!kept && ready.length === 0) this.#core.drop('queue-full', data.subarray(packet.ipOffset, packet.end))
    for (const attempt of ready) this.#send(pending, attempt, segment, now)
  }

  /** The attempt that a flow ID in a frame from `peer` belongs to. */
  find(slot: number, generation: number, peer: number): { pending: Pending; attempt: Attempt } | undefined {
    const pending = this.#pending.get(slot)
    const attempt = pending?.attempts.find((a) => a.generation === (generation | 0) && a.candidate.peer === peer)
    return pending === undefined || attempt === undefined ? undefined : { pending, attempt }
  }

  /** Whether a frame kept for this flow ID is still of use. */
  wants(slot: number, generation: number): boolean {
    const pending = this.#pending.get(slot)
    return pending?.attempts.some((a) => a.generation === generation && a.state !== 'refused') ?? false
  }

  /** An attempt was answered: the flow is bound to it, and its row established. */
  accepted(pending: Pending, winner: Attempt, remoteSlot: number, remoteGeneration: number, now: number): void {
    const { table, env } = this.#core
    const { row } = pending
    this.#finish(pending)
    for (const attempt of pending.attempts) {
      if (attempt === winner || attempt.state === 'refused') continue
      this.#sender.close(attempt.candidate.peer, row, attempt.generation, 0, 0, CloseCode.lost)
    }
    table.set(row, Row.generation, winner.generation)
    this.#core.bind(row, winner.candidate.peer, winner.candidate.service)
    table.set(row, Row.remoteSlot, remoteSlot)
    table.set(row, Row.remoteGeneration, remoteGeneration)
    table.set(row, Row.confirmed, seconds(now))
    table.linkRemote(row)
    this.#core.setState(row, FlowState.established)
    if (pending.affinity !== '') this.#affinity.remember(pending.affinity, winner.candidate.peer, now)
    env.outcome(winner.candidate, 'answered', winner.sentAt, now)
  }

  /** An attempt was refused, by whom and why as the code says. `hint` of a `moved`: borrowed. */
  refused(pending: Pending, attempt: Attempt, code: NotHereCode, hint: Uint8Array, now: number): void {
    if (pending.done || attempt.state === 'refused') return
    if (code === NotHereCode.loading) {
      this.#wait(pending, attempt, now)
      return
    }
    if (code === NotHereCode.moved) this.#follow(pending, attempt, hint, now)
    this.#fail(pending, attempt, reasonOf(code), now)
  }

  /** Whom the hint names is asked before those that were left. */
  #follow(pending: Pending, { candidate }: Attempt, hint: Uint8Array, now: number): void {
    const { env, options, counters } = this.#core
    const hops = (candidate.hops ?? 0) + 1
    if (candidate.pinned === true || candidate.service === undefined || hops > options.hopsMax) return
    for (const named of env.moved(candidate, hint, now).toReversed()) {
      const left = pending.candidates.findIndex(({ peer }, i) => i >= pending.next && peer === named.peer)
      // One that would be asked anyhow only moves up.
      if (left >= 0) pending.candidates.splice(left, 1)
      else if (pending.candidates.some(({ peer }) => peer === named.peer)) continue
      else if (pending.candidates.filter((one) => one.hops !== undefined).length >= options.followedMax) continue
      else counters.followed++
      pending.candidates.splice(pending.next, 0, { ...named, hops })
    }
  }

  /** The candidate does not know yet: it is asked again after a while, the next one meanwhile. */
  #wait(pending: Pending, attempt: Attempt, now: number): void {
    const { againMin, againMax, heldTimeout } = this.#core.options
    if (attempt.state === 'loading') return
    if (attempt.agains === 0) attempt.againUntil = now + heldTimeout
    if (now >= attempt.againUntil) {
      this.#fail(pending, attempt, 'no-instance', now)
      return
    }
    attempt.state = 'loading'
    attempt.againAt = now + Math.min(againMin * 2 ** attempt.agains, againMax)
    attempt.hedgeAt = Infinity
    attempt.silentAt = Infinity
    attempt.resendAt = Infinity
    this.#ask(pending, now)
    this.#schedule(pending, now)
  }

  #askAgain(pending: Pending, attempt: Attempt, now: number): void {
    const tcp = pending.protocol === Protocol.tcp
    const silence = this.#silence(attempt.candidate.peer)
    attempt.state = 'asked'
    attempt.againAt = Infinity
    attempt.agains++
    attempt.sentAt = now
    attempt.silence = silence
    attempt.resends = 0
    attempt.silentAt = tcp ? now + silence : Infinity
    attempt.resendAt = tcp ? now + silence : Infinity
    this.#core.counters.askedAgain++
    for (const segment of pending.segments) this.#send(pending, attempt, segment, now)
  }

  /** The handshake with the peer was given up. */
  sessionFailed(peer: number, now: number): void {
    for (const pending of [...this.#pending.values()]) {
      const attempt = pending.attempts.find((a) => a.candidate.peer === peer && a.state !== 'refused')
      if (attempt === undefined || pending.done) continue
      if (attempt.state === 'asked') this.#core.env.outcome(attempt.candidate, 'silent', attempt.sentAt, now)
      this.#fail(pending, attempt, 'session-timeout', now, false)
    }
  }

  /** Gives the flow up without telling the program; the candidates get CLOSE. */
  abandon(row: number): void {
    const pending = this.#pending.get(row)
    if (pending === undefined) return
    this.#finish(pending)
    for (const attempt of pending.attempts) {
      if (attempt.state === 'refused') continue
      this.#sender.close(attempt.candidate.peer, row, attempt.generation, 0, 0, CloseCode.lost)
    }
    this.#core.release(row)
  }

  /** Gives up all flows that are being opened. */
  abandonAll(): void {
    for (const pending of [...this.#pending.values()]) {
      this.#kernel.reset(pending.row)
      this.abandon(pending.row)
    }
  }

  get nextTimeout(): number {
    return Math.min(this.#deadlines.next, this.#idleAt, this.#held.next)
  }

  handleTimeout(now: number, carry: CarryPacket): void {
    for (let pending = this.#deadlines.take(now); pending !== undefined; pending = this.#deadlines.take(now)) {
      if (pending.done) continue
      this.#tick(pending, now)
      if (!pending.done) this.#schedule(pending, now)
    }
    if (now >= this.#idleAt) this.#expireIdle(now)
    if (now >= this.#held.next) this.release(now, carry)
  }

  #expireIdle(now: number): void {
    this.#idleAt = Infinity
    for (const pending of this.#pending.values()) {
      if (pending.protocol === Protocol.tcp) continue
      if (now - pending.lastPacket >= this.#core.options.openingTimeout) this.abandon(pending.row)
      else this.#idleAt = now + IDLE_EVERY
    }
  }

  #tick(pending: Pending, now: number): void {
    const { options, env, counters } = this.#core
    if (now - pending.lastPacket >= options.openingTimeout) {
      this.abandon(pending.row)
      return
    }
    for (const attempt of [...pending.attempts]) {
      if (attempt.state === 'refused') continue
      if (attempt.againAt <= now) this.#askAgain(pending, attempt, now)
      if (attempt.hedgeAt <= now) {
        attempt.hedgeAt = Infinity
        if (this.#ask(pending, now)) counters.hedged++
      }
      if (attempt.silentAt <= now) {
        attempt.silentAt = Infinity
        attempt.state = 'silent'
        env.outcome(attempt.candidate, 'silent', attempt.sentAt, now)
      }
      if (attempt.resendAt <= now) {
        attempt.resends++
        const wait = 2 ** attempt.resends * attempt.silence
        attempt.resendAt = attempt.resends < RESENDS_MAX ? now + wait : Infinity
        // Without a session the frame is still waiting.
        if (this.#sender.connected(attempt.candidate.peer)) this.#send(pending, attempt, pending.segments[0]!, now)
      }
    }
    this.#conclude(pending, now)
  }

  /** Asks the next candidate; false: none is left, or enough are being asked. */
  #ask(pending: Pending, now: number): boolean {
    const { options, table, counters } = this.#core
    const candidate = pending.candidates[pending.next]
    if (candidate === undefined) return false
    if (pending.attempts.filter((a) => a.state !== 'refused').length >= options.attemptsMax) return false
    const first = pending.next === 0
    pending.next++
    const { row } = pending
    if (first) {
      this.#core.bind(row, candidate.peer, candidate.service)
      if (pending.affinity !== '' && candidate.resolver !== true)
        this.#affinity.remember(pending.affinity, candidate.peer, now)
    } else counters.retried++
    const tcp = pending.protocol === Protocol.tcp
    const silence = this.#silence(candidate.peer)
    const attempt: Attempt = {
      candidate,
      generation: first ? table.get(row, Row.generation) : table.newGeneration(),
      sentAt: now,
      hedgeAt: tcp ? now + (candidate.doubtful ? Math.min(options.hedgeAfter, silence) : silence) : Infinity,
      silence,
      silentAt: tcp ? now + silence : Infinity,
      resendAt: tcp ? now + silence : Infinity,
      resends: 0,
      againAt: Infinity,
      agains: 0,
      againUntil: Infinity,
      state: 'asked',
    }
    pending.attempts.push(attempt)
    for (const segment of pending.segments) this.#send(pending, attempt, segment, now)
    return true
  }

  #send(pending: Pending, attempt: Attempt, segment: Segment, now: number): void {
    const { table } = this.#core
    const { candidate, generation } = attempt
    const dialled = table.get(pending.row, Row.dialled)
    const details = {
      slot: pending.row,
      generation,
      service: candidate.service,
      family: table.family(pending.row),
      attempt: pending.attempts.indexOf(attempt),
      flags: pending.attempts.length > 1 ? OpenFlag.hedged : 0,
      clientPort: dialled & 0xffff,
      dialledPort: dialled >>> 16,
    }
    this.#sender.open(candidate.peer, details, segment, now)
  }

  /** Time without an answer after which a candidate counts as silent, ms. */
  #silence(peer: number): number {
    const { options, peers } = this.#core
    const rtt = peers.rttMs[peer]!
    if (peer !== SELF && rtt === 0) return options.silenceMax
    return Math.min(options.silenceMax, Math.max(options.silenceMin, 4 * rtt + options.silenceBase))
  }

  #fail(pending: Pending, attempt: Attempt, reason: DropReason, now: number, report = true): void {
    attempt.state = 'refused'
    attempt.hedgeAt = Infinity
    attempt.silentAt = Infinity
    attempt.resendAt = Infinity
    attempt.againAt = Infinity
    // A server's own refusal says more than that another one could not be reached.
    if (pending.reason !== 'refused') pending.reason = reason
    if (report) this.#core.env.outcome(attempt.candidate, 'refused', attempt.sentAt, now)
    this.#ask(pending, now)
    this.#conclude(pending, now)
    if (!pending.done) this.#schedule(pending, now)
  }

  /** Shows the program a refusal when nobody is left who might answer. */
  #conclude(pending: Pending, now: number): void {
    if (pending.next < pending.candidates.length) return
    let refused = 0
    for (const attempt of pending.attempts) {
      if (attempt.state === 'refused') refused++
      else if (attempt.state === 'loading') return
      else if (pending.protocol !== Protocol.tcp || now - attempt.sentAt < this.#core.options.silenceFinal) return
    }
    if (refused === 0) return
    const { row, reason } = pending
    this.#kernel.refuse(row, reason, pending.segments[0]!, now)
    this.#core.counters.refused++
    this.#core.drop(reason, undefined, pending.segments.length)
    this.abandon(row)
  }

  #schedule(pending: Pending, now: number): void {
    const { options } = this.#core
    if (pending.protocol !== Protocol.tcp) {
      if (this.#idleAt === Infinity) this.#idleAt = now + IDLE_EVERY
      const again = Math.min(...pending.attempts.map((attempt) => attempt.againAt))
      if (again < Infinity) this.#deadlines.add(again, pending)
      return
    }
    let at = pending.lastPacket + options.openingTimeout
    let refused = false
    for (const attempt of pending.attempts) {
      at = Math.min(at, attempt.hedgeAt, attempt.silentAt, attempt.resendAt, attempt.againAt)
      if (attempt.state === 'refused') refused = true
    }
    if (refused && pending.next >= pending.candidates.length) {
      for (const attempt of pending.attempts) {
        if (attempt.state === 'asked' || attempt.state === 'silent')
          at = Math.min(at, attempt.sentAt + options.silenceFinal)
      }
    }
    this.#deadlines.add(Math.max(at, now + 1), pending)
  }

  #finish(pending: Pending): void {
    pending.done = true
    this.#pending.delete(pending.row)
  }

  /** The candidates, the one that this flow was bound to before it went idle first. */
  #preferred(candidates: readonly Candidate[], affinity: string, now: number): Candidate[] {
    const peer = affinity === '' ? undefined : this.#affinity.recall(affinity, now)
    const index = peer === undefined ? -1 : candidates.findIndex((candidate) => candidate.peer === peer)
    if (index <= 0) return [...candidates]
    const first = candidates[index]!
    return [first, ...candidates.filter((candidate) => candidate !== first)]
  }
}

function affinityKey(
  protocol: number,
  local: Uint8Array,
  remote: Uint8Array,
  localPort: number,
  remotePort: number,
): string {
  return `${protocol}/${String.fromCharCode(...local, ...remote)}/${localPort}/${remotePort}`
}

function reasonOf(code: NotHereCode): DropReason {
  switch (code) {
    case NotHereCode.refused:
      return 'refused'
    case NotHereCode.denied:
      return 'denied'
    case NotHereCode.full:
      return 'flow-table-full'
    default:
      return 'no-instance'
  }
}
