import { Worker } from 'node:worker_threads'
import type { HostLanes } from '../../lib/host/host-options.js'
import type { LaneInward, LaneOutward } from '../../lib/host/lane-buffers.js'
import type { Locator } from '../../lib/path/locator.js'
import type { DatagramBatch, FrameRuns, PacketBatch } from '../../lib/wire/batch.js'
import { CaracalError } from '../errors.js'
import { NativeEvent } from '../event.js'
import type { Log } from '../log.js'
import { native, type NativeHandle } from '../native.js'
import { builtFile } from '../our-files.js'
import { codecAddon, NativeCodec, type AeadSetting } from '../native-codec.js'
import { monotonicNow, type PacketLoop } from '../packet-loop.js'
import { NativeTun, type TunOptions } from '../tun.js'
import { NativeUdp, type SocketSettings } from '../udp.js'
import { Underlay } from '../underlay.js'
import { framesOf, LaneExit } from './lane-exit.js'
import type { LaneStart } from './lane-main.js'
import { LaneMemory, Mode, Turn } from './lane-memory.js'

/** With fewer processors the deciding thread, the programs and the kernel's own work need all there are. */
const CORES_MIN = 4
const AUTO_MAX = 8
const PORT_TRIES = 16
const PORT_MAX = 65_535
/** Newly made objects of a lane's thread, MB: it makes none for a packet. */
const YOUNG_GENERATION_MB = 1
/** Batches of a queue or socket that rests before the others get their turn. */
const ROUNDS = 8
/** What the lanes have in hand is waited for as long, ms: a thread that is not held up takes a part of one. */
const SETTLE_MS = 20

export type LanesSetting = number | 'auto'

/** Lanes of a host with so many processors. */
export function lanesFor(setting: LanesSetting, cores: number): number {
  if (setting !== 'auto') return setting
  return cores < CORES_MIN ? 1 : Math.min(AUTO_MAX, Math.floor(cores / 2))
}

/** What the lanes want of the host. */
export interface LanesHost {
  readonly dataPath: { readonly tunIn: PacketBatch; readonly wireIn: DatagramBatch }
  readonly lanePaths: { joining(now: number): boolean }
  readonly sessions: { laneNumber(sealSlot: number): number }
  tunRead(now: number): void
  wireRead(now: number, lane: number): void
  decideOutward(lane: number, outward: LaneOutward, now: number): void
  decideInward(inward: LaneInward, now: number): void
}

interface LanesPlan {
  /** Lanes above the first. */
  readonly count: number
  readonly sockets: SocketSettings
  readonly aead: AeadSetting
  /** Bytes of the address records. */
  readonly recordBytes: number
}

/** What of a lane can be held. */
export interface HeldLane {
  readonly queue: NativeHandle
  readonly sockets: readonly NativeHandle[]
}

/**
 * The lanes above the first. Each has a queue of the TUN, UDP sockets and a codec, and a thread that reads, opens, seals, sends and writes; what becomes of a packet is decided
 * here, by one thread for all lanes, which alone writes flows, sessions and paths. While lanes rest, all of it is done here, and frames go out by the first lane.
 */
export class Lanes {
  readonly ports: number[] = []
  readonly #codecs: readonly NativeCodec[]
  readonly #records: Uint8Array
  readonly #underlays: Underlay[] = []
  readonly #lanes: Lane[] = []
  #held: readonly HeldLane[] | undefined
  #isShut = false

  constructor(private readonly plan: LanesPlan) {
    this.#codecs = Array.from({ length: plan.count }, () => new NativeCodec(codecAddon(), plan.aead))
    this.#records = new Uint8Array(new SharedArrayBuffer(plan.recordBytes))
  }

  /**
   * Opens the lanes' sockets. Throws CARACAL_E_LISTEN.
   *
   * @param listen where the host's own sockets listen
   * @param held a keeper has held what a former process had of them, lane by lane
   */
  open(listen: readonly Locator[], held: readonly HeldLane[] | undefined): void {
    const { count, sockets } = this.plan
    this.#held = held
    for (let lane = 1; lane <= count; lane++) {
      const one = held?.[lane - 1]
      const underlay = one === undefined ? openUnderlay(lane, listen, this.plan) : Underlay.take(one.sockets, sockets)
      this.#underlays.push(underlay)
      this.ports.push(underlay.locals[0]!.port)
    }
  }

  /** What the host is to know of them; the ports are there once they are open. */
  get host(): HostLanes {
    return { codecs: this.#codecs, ports: this.ports, records: this.#records, settle: () => this.#settle() }
  }

  get count(): number {
    return this.plan.count
  }
  get framesOut(): number {
    return this.#sum((lane) => lane.memory.framesOut)
  }
  get bytesOut(): number {
    return this.#sum((lane) => lane.memory.bytesOut)
  }
  get framesFailed(): number {
    return (
      this.#sum((lane) => lane.memory.framesFailed) + this.#underlays.reduce((sum, one) => sum + one.framesFailed, 0)
    )
  }
  get packetsNotWritten(): number {
    return this.#sum((lane) => lane.memory.packetsNotWritten)
  }

  get datagramsLost(): number {
    return this.#underlays.reduce((sum, one) => sum + one.datagramsLost, 0)
  }
  get packetsNotSealed(): number {
    return this.#sum((lane) => lane.memory.packetsNotSealed)
  }

  /** Further queues of the device, one a lane. Throws as NativeTun does. False: a flow would not keep to one queue, and so not keep its order; everything goes by the first lane. */
  attach(first: NativeTun, tun: TunOptions): boolean {
    if (this.count > 0 && !first.steer()) {
      this.#shut()
      return false
    }
    for (let lane = 1; lane <= this.count; lane++) {
      const held = this.#held?.[lane - 1]
      const queue = new NativeTun(held === undefined ? tun : { ...tun, held: held.queue })
      this.#lanes.push(new Lane(lane, this.#codecs[lane - 1]!, queue, this.#underlays[lane - 1]!, this.#records))
    }
    return true
  }

  /** What the next process is to have of the lanes; none while everything goes by the first. */
  get holdings(): HeldLane[] {
    return this.#lanes.map((lane) => lane.holding)
  }

  /** Packets begin to be moved. */
  start(host: LanesHost, loop: PacketLoop, log: Log): void {
    for (const lane of this.#lanes) lane.start(host, loop, log)
    this.work(true)
  }

  /** false: everything goes by the first lane, as soon as the lanes have nothing in hand any more: what a dump has to show is there only then. */
  work(on: boolean): void {
    for (const lane of this.#lanes) lane.work(on)
  }

  /** Sends from this lane's socket what was sealed here. */
  sendFrames(runs: FrameRuns, records: Uint8Array, lane: number): void {
    if (!this.#isShut) this.#underlays[lane - 1]?.send(runs, records)
  }

  async close(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane.close()))
    this.#shut()
  }

  #settle(): boolean {
    const until = performance.now() + SETTLE_MS
    return this.#lanes.map((lane) => lane.settle(until)).every(Boolean)
  }

  #shut(): void {
    this.#isShut = true
    for (const underlay of this.#underlays) underlay.close()
  }

  #sum(of: (lane: Lane) => number): number {
    return this.#lanes.reduce((sum, lane) => sum + of(lane), 0)
  }
}

class Lane {
  readonly memory = new LaneMemory()
  readonly #awake = new NativeEvent()
  readonly #decider = new NativeEvent()
  #worker: Worker | undefined
  #host: LanesHost | undefined
  #loop: PacketLoop | undefined
  /** Next buffer to decide upon, by direction. */
  #outward = 0
  #inward = 0
  /** Packets of the lane are being decided upon. */
  #deciding = false
  /** Whether this thread does the lane's work. */
  #here = false
  #watched = false
  #closed = false

  constructor(
    readonly number: number,
    private readonly codec: NativeCodec,
    private readonly tun: NativeTun,
    private readonly underlay: Underlay,
    private readonly records: Uint8Array,
  ) {}

  start(host: LanesHost, loop: PacketLoop, log: Log): void {
    this.#host = host
    this.#loop = loop
    this.#decider.onSignal(() => loop.run(() => this.#decide()))
    const workerData: LaneStart = {
      memory: this.memory.memory,
      records: this.records,
      codec: this.codec.share(),
      tun: this.tun.share(),
      sockets: this.underlay.sockets.flatMap((socket) => (socket instanceof NativeUdp ? [socket.share()] : [])),
      awake: this.#awake.share(),
      decider: this.#decider.share(),
      realTime: native().isRealTime(),
    }
    this.#worker = new Worker(builtFile('daemon/lanes/lane.js'), {
      name: `lane ${this.number}`,
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    })
    const lost = (error: unknown) => {
      if (this.#closed || this.#worker === undefined) return
      this.#worker = undefined
      log.error({ error, lane: this.number }, 'the thread of a lane failed; its packets go by the first lane')
      loop.run(() => this.#finish())
      this.memory.mode = Mode.rest
      this.#takeOver(true)
    }
    this.#worker.on('error', lost)
    this.#worker.on('exit', () => lost(new Error('the thread has ended')))
  }

  get holding(): HeldLane {
    return { queue: this.tun.handle, sockets: this.underlay.handles }
  }

  /** See {@link HostLanes.settle}; until then, ms of {@link performance}. */
  settle(until: number): boolean {
    if (this.#deciding) return false
    return this.memory.outward.map((buffer) => buffer.hasLeft(until)).every(Boolean)
  }

  work(on: boolean): void {
    if (this.#worker === undefined) return
    this.memory.wanted = on ? Mode.work : Mode.rest
    if (on) this.#takeOver(false)
    else if (this.memory.mode === Mode.rest) this.#takeOver(true)
    this.#awake.signal()
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#worker?.terminate()
    this.tun.close()
    this.#awake.close()
    this.#decider.close()
  }

  /** The lane's thread has filled buffers, or rests now. */
  #decide(): void {
    const { memory } = this
    const host = this.#host!
    let given = false
    for (let more = true; more;) {
      more = false
      const inward = memory.inward[this.#inward]!
      if (inward.is(Turn.decide)) {
        this.#inward = (this.#inward + 1) % memory.inward.length
        if (host.lanePaths.joining(monotonicNow())) this.#loop!.receive()
        try {
          host.decideInward(inward.batches, monotonicNow())
        } finally {
          inward.give(Turn.leave)
          this.#awake.signal()
        }
        given = more = true
      }
      const outward = memory.outward[this.#outward]!
      if (outward.is(Turn.decide)) {
        this.#outward = (this.#outward + 1) % memory.outward.length
        this.#deciding = true
        try {
          host.decideOutward(this.number, outward.batches, monotonicNow())
        } finally {
          this.#deciding = false
          outward.give(Turn.leave)
          this.#awake.signal()
        }
        given = more = true
      }
    }
    if (!given && memory.wanted === Mode.rest && memory.mode === Mode.rest) this.#takeOver(true)
  }

  /** The lane's thread has ended: what it had in hand leaves by this one. What it was about to send or write is lost, as nobody can tell how far it got. */
  #finish(): void {
    const { memory, records, codec, tun, underlay } = this
    for (const buffer of memory.outward) buffer.rescue()
    for (const buffer of memory.inward) buffer.rescue(({ wireIn, open }) => codec.open(wireIn, open))
    this.#decide()
    const exit = new LaneExit({ memory, records, codec, tun, underlay: new Underlay(underlay.sockets) })
    for (let i = 0; i < memory.outward.length; i++) {
      const buffer = memory.outward[(this.#outward + i) % memory.outward.length]!
      if (buffer.is(Turn.leaving)) {
        memory.countFailed(framesOf(buffer.batches.seal, buffer.sent, (slot) => this.#isOurs(slot)))
        buffer.give(Turn.fill)
      } else if (buffer.is(Turn.leave)) exit.send(buffer)
    }
    for (let i = 0; i < memory.inward.length; i++) {
      const buffer = memory.inward[(this.#inward + i) % memory.inward.length]!
      if (buffer.is(Turn.leaving)) {
        memory.countNotWritten(buffer.batches.tunOut.count)
        buffer.give(Turn.fill)
      } else if (buffer.is(Turn.leave)) exit.write(buffer)
    }
  }

  #isOurs(sealSlot: number): boolean {
    return this.#host!.sessions.laneNumber(sealSlot) === this.number
  }

  /** true: this thread does the lane's work from now on. */
  #takeOver(here: boolean): void {
    if (this.#here === here || this.#closed) return
    this.#here = here
    const { tun, underlay } = this
    const host = this.#host!
    const loop = this.#loop!
    const sockets = underlay.sockets.flatMap((socket) => (socket instanceof NativeUdp ? [socket] : []))
    if (!this.#watched) {
      this.#watched = true
      const { tunIn, wireIn } = host.dataPath
      tun.onReadable(() =>
        loop.run((now) => {
          for (let i = 0; i < ROUNDS && tun.readBatch(tunIn) > 0; i++) host.tunRead(now)
        }),
      )
      underlay.onReadable(wireIn, () => loop.run((now) => host.wireRead(now, this.number)), ROUNDS)
      return
    }
    tun.pause(!here)
    for (const socket of sockets) socket.pause(!here)
  }
}

/** Sockets at the addresses of the host's own, with one port for all of them: the next one that is free. */
function openUnderlay(lane: number, listen: readonly Locator[], { count, sockets }: LanesPlan): Underlay {
  const addresses = [...new Set(listen.map(({ address }) => address))]
  const first = (listen[0]?.port ?? 0) + lane
  let failure: unknown
  for (let port = first; port < first + PORT_TRIES * count && port <= PORT_MAX; port += count) {
    try {
      return Underlay.open(
        addresses.map((address) => ({ address, port })),
        sockets,
      )
    } catch (error) {
      failure = error
    }
  }
  throw failure ?? new CaracalError('CARACAL_E_LISTEN', 'no UDP port is left for the lanes', 'set loop.lanes: 1')
}
