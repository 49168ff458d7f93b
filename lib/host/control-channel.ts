import type { PeerTable } from '../path/peers.js'
import { decodeControl, encodeControl, type ControlMessage } from '../wire/control.js'
import type { DropReason } from '../wire/drop.js'

/** What a control message is about; part of the protocol. */
export const Channel = {
  directory: 0,
  liveness: 1,
  farewell: 2,
  flows: 3,
  hosts: 4,
  issuing: 5,
  query: 6,
  sessions: 7,
  pause: 8,
} as const
export type Channel = (typeof Channel)[keyof typeof Channel]

export interface ControlChannelOptions {
  /** Messages of a peer that wait for an acknowledgement; more are queued. */
  readonly windowMax: number
  /** Messages queued per peer beyond the window; more are refused. */
  readonly queueMax: number
  readonly retransmitMinMs: number
  readonly retransmitMaxMs: number
}

export const controlChannelDefaults: ControlChannelOptions = {
  windowMax: 64,
  queueMax: 4_096,
  retransmitMinMs: 60,
  retransmitMaxMs: 2_000,
}

export interface ControlSink {
  /** Seal one control frame to the peer; false: no session now. `wantsAnswer`: it will be acknowledged. */
  sendControl(peer: number, message: Uint8Array, wantsAnswer: boolean): boolean
  /** A message, once, in the order of arrival. */
  message(peer: number, channel: number, body: Uint8Array, now: number): void
  drop(reason: DropReason): void
}

interface Outgoing {
  readonly id: number
  readonly channel: number
  readonly body: Uint8Array
  sentAt: number
  tries: number
}

interface Conversation {
  nextId: number
  readonly inFlight: Map<number, Outgoing>
  readonly queue: Outgoing[]
  /** The peer's epoch and what has been delivered of it: all up to `contiguous`, and `above`. */
  epoch: number
  /** Epochs it had before, oldest first: what is still under way of them is not to be taken for a restart. */
  readonly former: number[]
  contiguous: number
  readonly above: Set<number>
  /** To be acknowledged with the next frame. */
  acks: number[]
}

const NOTHING = new Uint8Array(0)
const ACKS_MAX = 64
const FORMER_MAX = 8
/** IDs that may lie between the oldest message not acknowledged and the newest one sent, in windows. */
const SPREAD_WINDOWS = 4
/** A frame with a large body has room for few acknowledgements on the smallest path. */
const SMALL_BODY = 512
const ACKS_WITH_BODY = 8

/**
 * Small control messages between hosts: each a datagram, acknowledged, repeated at the pace of the measured round trip, delivered once. Not ordered: messages carry their own sequence
 * numbers where order matters. An epoch, fresh at each start of the process, tells a restarted sender from a duplicate.
 */
export class ControlChannel {
  readonly #conversations = new Map<number, Conversation>()
  /** Peers that are owed acknowledgements, and peers that owe us some: of many, few at a time. */
  readonly #owed = new Set<number>()
  readonly #owing = new Set<number>()
  readonly #options: ControlChannelOptions
  refused = 0
  /** Not later than the next repetition. */
  #due = Infinity

  constructor(
    private readonly components: {
      readonly peers: PeerTable
      /** Random, not 0, fresh at each start. */
      readonly epoch: number
      readonly sink: ControlSink
    },
    options: Partial<ControlChannelOptions> = {},
  ) {
    this.#options = { ...controlChannelDefaults, ...options }
  }

  /** Messages that wait for their acknowledgement, of all peers. */
  get pending(): number {
    let pending = 0
    for (const { inFlight, queue } of this.#conversations.values()) pending += inFlight.size + queue.length
    return pending
  }

  /** Whether something to the peer, or something on this channel, waits for its acknowledgement. */
  pendingFor(peer: number, channel?: Channel): boolean {
    const conversation = this.#conversations.get(peer)
    if (conversation === undefined) return false
    const { inFlight, queue } = conversation
    if (channel === undefined) return inFlight.size + queue.length > 0
    for (const outgoing of inFlight.values()) if (outgoing.channel === channel) return true
    return queue.some((outgoing) => outgoing.channel === channel)
  }

  /** Queues a message and sends it when the window allows. False: the queue is full, nothing was taken. */
  send(peer: number, channel: Channel, body: Uint8Array, now: number): boolean {
    const conversation = this.#conversation(peer)
    if (conversation.queue.length >= this.#options.queueMax) {
      this.refused++
      return false
    }
    conversation.queue.push({ id: conversation.nextId++, channel, body, sentAt: 0, tries: 0 })
    this.#pump(peer, conversation, now)
    return true
  }

  /** One control frame's content, from inside the session with the peer. False: it was not understood, and is not acknowledged. */
  receive(peer: number, bytes: Uint8Array, now: number): boolean {
    const { sink, epoch } = this.components
    const message = decodeControl(bytes)
    if (message === undefined) {
      sink.drop('bad-control')
      return false
    }
    const conversation = this.#conversation(peer)
    if (message.acksEpoch === epoch) for (const id of message.acks) conversation.inFlight.delete(id)
    if (conversation.inFlight.size === 0) this.#owing.delete(peer)
    if (message.id > 0) this.#deliver(peer, conversation, message, now)
    this.#pump(peer, conversation, now)
    return true
  }

  /** The session came (back) up: what is in flight goes out again at once. */
  sessionUp(peer: number, now: number): void {
    const conversation = this.#conversations.get(peer)
    if (conversation === undefined) return
    for (const outgoing of conversation.inFlight.values()) this.#transmit(peer, conversation, outgoing, now)
    this.#pump(peer, conversation, now)
  }

  /** The session is lost: what waits is given up. Numbers go on, so that a later message is no duplicate. */
  clear(peer: number): void {
    const conversation = this.#conversations.get(peer)
    if (conversation === undefined) return
    conversation.inFlight.clear()
    conversation.queue.length = 0
    conversation.acks = []
    this.#owing.delete(peer)
    this.#owed.delete(peer)
  }

  /** Sends what acknowledgements are owed; called once after each batch from the network. */
  flush(now: number): void {
    for (const peer of this.#owed) {
      const conversation = this.#conversation(peer)
      if (conversation.acks.length > 0) this.#frame(peer, conversation, 0, 0, NOTHING)
      if (conversation.acks.length === 0) this.#owed.delete(peer)
      this.#pump(peer, conversation, now)
    }
  }

  handleTimeout(now: number): void {
    if (now < this.#due) return
    this.#due = Infinity
    for (const peer of this.#owing) {
      const conversation = this.#conversation(peer)
      for (const outgoing of conversation.inFlight.values()) {
        const at = this.#dueAt(peer, outgoing)
        if (now >= at) this.#transmit(peer, conversation, outgoing, now)
        else this.#due = Math.min(this.#due, at)
      }
    }
  }

  /** It may turn out that there is nothing to do. */
  nextTimeout(): number {
    return this.#owing.size === 0 ? Infinity : this.#due
  }

  #dueAt(peer: number, outgoing: Outgoing): number {
    const { retransmitMinMs, retransmitMaxMs } = this.#options
    const base = Math.max(retransmitMinMs, 2 * (this.components.peers.rttMs[peer] ?? 0))
    // Who says farewell, or is about to be restarted, does not wait for long.
    if (outgoing.channel === Channel.farewell || outgoing.channel === Channel.pause) return outgoing.sentAt + base
    return outgoing.sentAt + Math.min(base * 2 ** Math.min(outgoing.tries - 1, 8), retransmitMaxMs)
  }

  #deliver(peer: number, conversation: Conversation, message: ControlMessage, now: number): void {
    const { sink } = this.components
    if (message.epoch !== conversation.epoch) {
      if (conversation.former.includes(message.epoch)) return
      if (conversation.epoch !== 0) conversation.former.push(conversation.epoch)
      if (conversation.former.length > FORMER_MAX) conversation.former.shift()
      conversation.epoch = message.epoch
      conversation.contiguous = message.base - 1
      conversation.above.clear()
      conversation.acks = []
    } else if (message.base - 1 > conversation.contiguous) {
      // The sender has given up on what is below.
      conversation.contiguous = message.base - 1
      for (const id of conversation.above) if (id <= conversation.contiguous) conversation.above.delete(id)
    }
    if (message.id > conversation.contiguous + SPREAD_WINDOWS * this.#options.windowMax) return sink.drop('bad-control')
    conversation.acks.push(message.id)
    this.#owed.add(peer)
    if (conversation.acks.length > ACKS_MAX) conversation.acks.shift()
    if (message.id <= conversation.contiguous || conversation.above.has(message.id)) return
    conversation.above.add(message.id)
    while (conversation.above.delete(conversation.contiguous + 1)) conversation.contiguous++
    sink.message(peer, message.channel, message.body, now)
  }

  #pump(peer: number, conversation: Conversation, now: number): void {
    const { windowMax } = this.#options
    while (conversation.inFlight.size < windowMax) {
      const oldest = firstOf(conversation.inFlight)
      if (oldest !== undefined && (conversation.queue[0]?.id ?? 0) >= oldest + SPREAD_WINDOWS * windowMax) return
      const outgoing = conversation.queue.shift()
      if (outgoing === undefined) return
      conversation.inFlight.set(outgoing.id, outgoing)
      this.#owing.add(peer)
      this.#transmit(peer, conversation, outgoing, now)
    }
  }

  #transmit(peer: number, conversation: Conversation, outgoing: Outgoing, now: number): void {
    outgoing.sentAt = now
    outgoing.tries++
    this.#due = Math.min(this.#due, this.#dueAt(peer, outgoing))
    this.#frame(peer, conversation, outgoing.id, outgoing.channel, outgoing.body)
  }

  #frame(peer: number, conversation: Conversation, id: number, channel: number, body: Uint8Array): void {
    const base = firstOf(conversation.inFlight) ?? conversation.nextId
    const { epoch, sink } = this.components
    const acks = conversation.acks.slice(0, body.length > SMALL_BODY ? ACKS_WITH_BODY : ACKS_MAX)
    const message = encodeControl({ epoch, id, base, acksEpoch: conversation.epoch, acks, channel, body })
    if (sink.sendControl(peer, message, id > 0)) conversation.acks.splice(0, acks.length)
  }

  #conversation(peer: number): Conversation {
    let conversation = this.#conversations.get(peer)
    if (conversation === undefined) {
      conversation = {
        nextId: 1,
        inFlight: new Map(),
        queue: [],
        epoch: 0,
        former: [],
        contiguous: 0,
        above: new Set(),
        acks: [],
      }
      this.#conversations.set(peer, conversation)
    }
    return conversation
  }
}

/** The lowest ID: they are sent in their order. */
function firstOf(inFlight: ReadonlyMap<number, Outgoing>): number | undefined {
  for (const id of inFlight.keys()) return id
  return undefined
}
