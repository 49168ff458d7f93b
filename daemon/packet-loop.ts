import type { HostIo } from '../lib/host/data-path.js'
import type { DatagramBatch, FrameRuns, PacketBatch } from '../lib/wire/batch.js'
import { systemCode } from './errors.js'
import type { Lanes } from './lanes/lanes.js'
import type { TunDevice } from './tun.js'
import type { Underlay } from './underlay.js'

/** Batches of one device before the other one gets its turn. */
const ROUNDS = 8
/** While batches follow each other, timers set by what they have begun are looked for this often; the first one after a pause is looked at at once. */
const NOTICE_MS = 5
/** More faults than this, within this time, are no single packet's doing. */
const FAULTS_MAX = 20
const FAULTS_WITHIN_MS = 10_000

/** Monotonic ms, the `now` of everything in lib. */
export const monotonicNow = (): number => performance.now()

/** The devices as the host writes to them. */
export class DeviceIo implements HostIo {
  tun: TunDevice | undefined
  /** The sockets of the lanes above the first. */
  lanes: Pick<Lanes, 'sendFrames'> | undefined
  tunWriteFailed = 0

  constructor(private readonly underlay: Underlay) {}

  writeTun(batch: PacketBatch): void {
    const written = this.tun?.writeBatch(batch) ?? 0
    this.tunWriteFailed += batch.count - written
  }
  sendFrames(runs: FrameRuns, addresses: Uint8Array, lane: number): void {
    if (lane === 0) this.underlay.send(runs, addresses)
    else this.lanes?.sendFrames(runs, addresses, lane)
  }
}

/** A host as the loop drives it. */
export interface Driven {
  readonly dataPath: { readonly tunIn: PacketBatch; readonly wireIn: DatagramBatch }
  /** The TUN has filled `tunIn`. */
  tunRead(now: number): void
  /** A socket has filled `wireIn`. */
  wireRead(now: number): void
  /** When {@link handleTimeout} is to be called; Infinity: never. */
  nextTimeout(): number
  handleTimeout(now: number): void
}

/**
 * Drives a host: its devices' readiness, and its clock. Packets are moved on the event loop of the thread it runs in. A loop that waits for the devices by itself, and lets the event
 * loop have its turns in between, was tried in its place: round trips of a ping were not shorter, as what a packet costs then is the kernel's and its own decisions.
 */
export class PacketLoop {
  #timer: NodeJS.Timeout | undefined
  #dueAt = Infinity
  #noticedAt = -Infinity
  #stopped = false
  #faults = 0
  #faultsSince = -Infinity

  constructor(
    private readonly components: {
      readonly host: Driven
      readonly tun: TunDevice
      readonly underlay: Underlay
      /** Something unforeseen was thrown over one batch, which is lost; the loop goes on. */
      readonly fault: (error: unknown) => void
      /** The TUN device is gone, or faults do not end: the loop has stopped. */
      readonly failed: (error: unknown) => void
    },
  ) {}

  start(): void {
    const { host, tun, underlay } = this.components
    tun.onReadable(() => this.#readTun())
    underlay.onReadable(host.dataPath.wireIn, () => this.#readWire(), ROUNDS)
    this.wake()
  }

  #readTun(): void {
    const { host, tun } = this.components
    const { tunIn } = host.dataPath
    this.#guard(() => {
      for (let i = 0; i < ROUNDS && tun.readBatch(tunIn) > 0; i++) host.tunRead(monotonicNow())
      this.#notice()
    })
  }

  #readWire(): void {
    this.#guard(() => {
      this.components.host.wireRead(monotonicNow())
      this.#notice()
    })
  }

  /** Other devices have something for the host. */
  run(work: (now: number) => void): void {
    this.#guard(() => {
      work(monotonicNow())
      this.#notice()
    })
  }

  /** Something outside the packet loop has changed the host: its next deadline may be another one. */
  wake(): void {
    this.#arm(0)
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  /** A batch may have set a deadline that is earlier than the timer. */
  #notice(): void {
    const now = monotonicNow()
    const pause = now - this.#noticedAt
    this.#noticedAt = now
    if (pause < NOTICE_MS) return this.#arm(NOTICE_MS)
    const next = this.components.host.nextTimeout()
    if (next < this.#dueAt) this.#arm(Math.max(1, next - now))
  }

  #arm(within: number): void {
    const at = monotonicNow() + within
    if (this.#stopped || this.#dueAt <= at) return
    this.#dueAt = at
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#expire(), within)
  }

  #expire(): void {
    this.#dueAt = Infinity
    if (this.#stopped) return
    const { host } = this.components
    this.#guard(() => {
      let now = monotonicNow()
      if (host.nextTimeout() <= now) {
        host.handleTimeout(now)
        now = monotonicNow()
      }
      const next = host.nextTimeout()
      if (next < Infinity) this.#arm(Math.max(1, Math.min(next - now, 60_000)))
    })
  }

  #guard(work: () => void): void {
    if (this.#stopped) return
    try {
      work()
    } catch (error) {
      const now = monotonicNow()
      if (now - this.#faultsSince > FAULTS_WITHIN_MS) {
        this.#faultsSince = now
        this.#faults = 0
      }
      if (systemCode(error) !== 'CARACAL_E_GONE' && ++this.#faults <= FAULTS_MAX) return this.components.fault(error)
      this.stop()
      this.components.failed(error)
    }
  }
}
