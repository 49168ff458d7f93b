import { PACKET_WORDS, packetBatch, type PacketBatch } from '../../../lib/wire/batch.js'
import { LinkDecisions } from './decisions.js'
import { PacketLine } from './packet-line.js'
import { changed, type LinkChanges, type LinkCounts, type LinkSettings } from './settings.js'

/** The vnet header before each packet of a batch. */
const VNET_HEADER = 10
const MEMORY_BYTES = 1 << 28
const SLOTS_MAX = 65_536
const OUT_PACKETS = 128
type Event = Exclude<keyof LinkCounts, 'waiting'>

/** Takes a batch at the far end; returns how many packets it took. Entries of negative length are none. */
export type Deliver = (batch: PacketBatch) => number

/**
 * One direction of an emulated link: packets come in as batches, are decided about, and go out at their time. Pure: time is an argument, chance is the seed's.
 *
 *     receive → decide ─┬─ now ─────────────────────→ deliver
 *                       ├─ later ────→ #line ───────→ deliver     (in order)
 *                       └─ held back → #late ───────→ deliver     (overtaken by the line)
 */
export class LinkDirection {
  readonly #decisions: LinkDecisions
  readonly #line: PacketLine
  readonly #late: PacketLine
  readonly #out: PacketBatch
  readonly #counts: Record<Event, number> = {
    received: 0,
    receivedBytes: 0,
    duplicated: 0,
    forwarded: 0,
    lost: 0,
    overflowed: 0,
    tooBig: 0,
    cut: 0,
    refused: 0,
    heldBack: 0,
    reordered: 0,
  }
  /** Highest number that was forwarded. */
  #highest = -1
  #waitingCopies = 0

  /** `packetBytes`: size of the largest packet that can come. */
  constructor(
    settings: LinkSettings,
    seed: number,
    packetBytes: number,
    private readonly deliver: Deliver,
  ) {
    this.#decisions = new LinkDecisions(settings, seed)
    const slot = Math.ceil((packetBytes + VNET_HEADER) / 8) * 8
    const slots = Math.min(SLOTS_MAX, Math.floor(MEMORY_BYTES / slot))
    this.#line = new PacketLine(slot, slots)
    this.#late = new PacketLine(slot, slots)
    this.#out = packetBatch(OUT_PACKETS * slot, OUT_PACKETS)
  }

  get settings(): LinkSettings {
    return this.#decisions.settings
  }
  set(changes: LinkChanges): void {
    this.#decisions.settings = changed(this.settings, changes)
  }
  get counts(): LinkCounts {
    return { ...this.#counts, waiting: this.#line.length + this.#late.length + this.#waitingCopies }
  }

  /** Packets have come in. */
  receive(now: number, batch: PacketBatch): void {
    this.release(now)
    for (let i = 0; i < batch.count; i++) {
      const at = i * PACKET_WORDS
      const offset = batch.desc[at]!
      const length = batch.desc[at + 1]!
      this.#take(now, batch.data.subarray(offset, offset + length))
    }
    this.#flush()
  }

  #take(now: number, packet: Uint8Array): void {
    const decisions = this.#decisions
    const counts = this.#counts
    const number = counts.received++
    const bytes = packet.length - VNET_HEADER
    counts.receivedBytes += bytes
    const fate = decisions.decide(now, bytes)
    if (fate !== 'arrives') {
      counts[fate]++
      return
    }
    const { arrivesAt, twice, heldBack } = decisions
    if (!heldBack && arrivesAt <= now) {
      if (twice) counts.duplicated++
      this.#forward(packet, number, twice)
      return
    }
    const kept = heldBack
      ? this.#late.add(arrivesAt + decisions.settings.reorderMs, number, packet, twice)
      : this.#line.add(arrivesAt, number, packet, twice)
    if (!kept) {
      counts.overflowed++
      return
    }
    if (heldBack) counts.heldBack++
    if (twice) {
      counts.duplicated++
      this.#waitingCopies++
    }
  }

  /** When {@link release} is to be called; Infinity: never. */
  nextTimeout(): number {
    return Math.min(this.#line.at, this.#late.at)
  }

  /** Forwards what is due. */
  release(now: number): void {
    for (;;) {
      const next = this.#late.at < this.#line.at ? this.#late : this.#line
      if (next.at > now) break
      const { twice } = next
      if (twice) this.#waitingCopies--
      this.#forward(next.bytes, next.number, twice)
      next.shift()
    }
    this.#flush()
  }

  #forward(packet: Uint8Array, number: number, twice: boolean): void {
    if (number < this.#highest) this.#counts.reordered++
    else this.#highest = number
    const out = this.#out
    for (let copies = twice ? 2 : 1; copies > 0; copies--) {
      if (out.count === OUT_PACKETS) this.#flush()
      out.data.set(packet, out.used)
      out.desc[out.count * PACKET_WORDS] = out.used
      out.desc[out.count * PACKET_WORDS + 1] = packet.length
      out.used += packet.length
      out.count++
    }
  }

  #flush(): void {
    const out = this.#out
    if (out.count === 0) return
    const taken = this.deliver(out)
    this.#counts.forwarded += taken
    this.#counts.refused += out.count - taken
    out.count = 0
    out.used = 0
  }
}
