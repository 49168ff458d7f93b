import type { NativeEvent } from '../event.js'
import type { NativeUdp } from '../udp.js'
import { Underlay } from '../underlay.js'
import { LaneExit, type LaneParts } from './lane-exit.js'
import { Mode, Turn } from './lane-memory.js'

/**
 * All that touches the bytes of a lane: reads its queue of the TUN and its sockets, opens, and, once the host has decided, seals and sends or writes. Buffers go round in
 * their order, so what was read first is decided first and leaves first.
 */
export class LaneWork {
  readonly #exit: LaneExit
  /** Next buffer to be filled, and next one to leave, by direction. */
  #filling = 0
  #leaving = 0
  #receiving = 0
  #writing = 0
  #held = { tun: true, wire: true }

  constructor(
    private readonly c: LaneParts & {
      readonly sockets: readonly NativeUdp[]
      /** Wakes this thread. */
      readonly awake: NativeEvent
      /** Wakes the one that decides. */
      readonly decider: NativeEvent
    },
  ) {
    const { memory, records, codec, tun, sockets } = c
    this.#exit = new LaneExit({ memory, records, codec, tun, underlay: new Underlay(sockets) })
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
    this.#exit.send(buffer)
    return true
  }

  #write(): boolean {
    const { memory } = this.c
    const buffer = memory.inward[this.#writing]!
    if (!buffer.is(Turn.leave)) return false
    this.#writing = (this.#writing + 1) % memory.inward.length
    this.#exit.write(buffer)
    return true
  }
}
