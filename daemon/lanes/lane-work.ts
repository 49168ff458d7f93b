import { frameRuns, RUN_WORDS } from '../../lib/wire/batch.js'
import type { NativeEvent } from '../event.js'
import type { NativeCodec } from '../native-codec.js'
import type { NativeTun } from '../tun.js'
import type { NativeUdp } from '../udp.js'
import { Underlay } from '../underlay.js'
import { Mode, Turn, type InwardBuffer, type LaneMemory, type OutwardBuffer } from './lane-memory.js'

const RUN_BYTES = 1024 * 1024
const RUNS = 512

/**
 * All that touches the bytes of a lane: reads its queue of the TUN and its sockets, opens, and, once the host has decided, seals and sends or writes. Buffers go round in
 * their order, so what was read first is decided first and leaves first.
 */
export class LaneWork {
  readonly #underlay: Underlay
  readonly #runs = frameRuns(RUN_BYTES, RUNS)
  /** Next buffer to be filled, and next one to leave, by direction. */
  #filling = 0
  #leaving = 0
  #receiving = 0
  #writing = 0
  #held = { tun: true, wire: true }

  constructor(
    private readonly c: {
      readonly memory: LaneMemory
      readonly records: Uint8Array
      readonly codec: NativeCodec
      readonly tun: NativeTun
      readonly sockets: readonly NativeUdp[]
      /** Wakes this thread. */
      readonly awake: NativeEvent
      /** Wakes the one that decides. */
      readonly decider: NativeEvent
    },
  ) {
    this.#underlay = new Underlay(c.sockets)
  }

  start(): void {
    const { tun, sockets, awake } = this.c
    tun.onReadable(() => this.#fill())
    tun.pause(true)
    for (const socket of sockets) {
      socket.onReadable(() => this.#receive(socket))
      socket.pause(true)
    }
    awake.onSignal(() => this.#turn())
    this.#turn()
  }

  /** The deciding thread has given something back, or wants something else. */
  #turn(): void {
    const { memory, decider } = this.c
    while (this.#seal() || this.#write());
    if (memory.wanted === Mode.work) {
      memory.mode = Mode.work
      this.#hold(false, false)
      return
    }
    this.#hold(true, true)
    const idle = [...memory.outward, ...memory.inward].every((buffer) => buffer.is(Turn.fill))
    if (!idle || memory.mode === Mode.rest) return
    memory.mode = Mode.rest
    decider.signal()
  }

  #hold(tun: boolean, wire: boolean): void {
    const { c } = this
    if (this.#held.tun !== tun) c.tun.pause(tun)
    if (this.#held.wire !== wire) for (const socket of c.sockets) socket.pause(wire)
    this.#held = { tun, wire }
  }

  #fill(): void {
    const { memory, tun, decider } = this.c
    for (;;) {
      const buffer = memory.outward[this.#filling]!
      if (!buffer.is(Turn.fill)) return this.#hold(true, this.#held.wire)
      const { reading, batches } = buffer
      if (tun.readBatch(reading) === 0) return
      batches.tunIn.count = reading.count
      batches.tunIn.used = reading.used
      buffer.give(Turn.decide)
      this.#filling = (this.#filling + 1) % memory.outward.length
      decider.signal()
    }
  }

  #receive(socket: NativeUdp): void {
    const { memory, codec, decider } = this.c
    const buffer = memory.inward[this.#receiving]!
    if (!buffer.is(Turn.fill)) return this.#hold(this.#held.tun, true)
    const { wireIn, open, tunOut } = buffer.batches
    if (socket.recvBatch(wireIn) === 0) return
    codec.open(wireIn, open)
    tunOut.count = 0
    buffer.give(Turn.decide)
    this.#receiving = (this.#receiving + 1) % memory.inward.length
    decider.signal()
  }

  /** True: there was something. */
  #seal(): boolean {
    const { memory } = this.c
    const buffer = memory.outward[this.#leaving]!
    if (!buffer.is(Turn.leave)) return false
    this.#leaving = (this.#leaving + 1) % memory.outward.length
    this.#send(buffer)
    buffer.give(Turn.fill)
    return true
  }

  #send({ batches: { seal } }: OutwardBuffer): void {
    const { memory, codec, records } = this.c
    const runs = this.#runs
    // Those that the first lane has sent have no key here.
    let skipped = -seal.byFirst
    for (let next = 0; next < seal.count;) {
      runs.count = 0
      runs.used = 0
      next = codec.seal(seal, next, runs)
      skipped += codec.skipped
      if (runs.count === 0) break
      for (let i = 0; i < runs.count; i++) {
        const length = runs.desc[i * RUN_WORDS + 1]!
        memory.countSent(Math.ceil(length / Math.max(runs.desc[i * RUN_WORDS + 2]!, 1)), length)
      }
      const failed = this.#underlay.framesFailed
      this.#underlay.send(runs, records)
      memory.countFailed(this.#underlay.framesFailed - failed)
    }
    if (skipped > 0) memory.countNotSealed(skipped)
  }

  #write(): boolean {
    const { memory, tun } = this.c
    const buffer: InwardBuffer = memory.inward[this.#writing]!
    if (!buffer.is(Turn.leave)) return false
    this.#writing = (this.#writing + 1) % memory.inward.length
    const { tunOut } = buffer.batches
    if (tunOut.count > 0) memory.countNotWritten(tunOut.count - tun.writeBatch(tunOut))
    buffer.give(Turn.fill)
    return true
  }
}
