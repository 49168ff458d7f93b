// What drives a host: its devices' readiness by libuv's poll, its deadlines by a timer of the addon's.
//
// A loop of JavaScript's own that blocked in the kernel for the devices was no faster than libuv's poll: what it saved in the loop, entering JavaScript cost. Where packets pass
// without JavaScript (lib/host/express.ts) the loop is what is left to save: there native code waits by itself, on a set that contains libuv's, until anything else is due
// (Descriptors::linger in daemon/native/poll.cc). A pair of hosts, `npm run bench:latency -- -n 6 --root BEFORE`, two runs on a busy machine: ping 0.90 and 0.81 of
// what it was, TCP request/response 1.17 and 1.25; and with a timer that stays armed instead of a time-out at each wait (-n 5) ping 1.02 and 0.97, request/response 1.26 and 1.29.

import type { HostIo } from '../lib/host/data-path.js'
import type { DatagramBatch, FrameRuns, PacketBatch } from '../lib/wire/batch.js'
import { systemCode } from './errors.js'
import type { Lanes } from './lanes/lanes.js'
import { NativeTimer } from './native-timer.js'
import type { TunDevice } from './tun.js'
import type { Underlay } from './underlay.js'

/** Batches of one device before the other one gets its turn. */
const ROUNDS = 8
/** Batches that a socket's buffer holds. */
const ALL_ROUNDS = 256
/** While batches follow each other, deadlines set by what they have begun are looked for this often; of the first few of that time each is looked at at once, which spares a turn of the loop. */
const NOTICE_MS = 5
const NOTICED_AT_ONCE = 8
/** A deadline that is further away is looked at again after so long. */
const AWAKE_MS = 60_000
/** A deadline that is dealt with so much too late has passed while this process stood still, as all do at times, for seconds where a machine is suspended: what has come meanwhile is read first, or each peer would seem silent. */
const LATE_MS = 10
/** More faults than this, within this time, are no single packet's doing. */
const FAULTS_MAX = 20
const FAULTS_WITHIN_MS = 10_000

/** What the machine's monotonic clock said when this process's own began, ms. */
const BEGAN_AT = Number(process.hrtime.bigint()) / 1e6 - performance.now()

/** Monotonic ms, the `now` of everything in lib: since the machine was started, so that all processes agree on when something was. */
export const monotonicNow = (): number => BEGAN_AT + performance.now()

/** The devices as the host writes to them. */
export class DeviceIo implements HostIo {
  underlay: Underlay | undefined
  tun: TunDevice | undefined
  /** The sockets of the lanes above the first. */
  lanes: Pick<Lanes, 'sendFrames'> | undefined
  tunWriteFailed = 0

  writeTun(batch: PacketBatch): void {
    // It throws when the device is gone.
    this.tunWriteFailed += batch.count
    const written = this.tun?.writeBatch(batch) ?? 0
    this.tunWriteFailed -= written
  }
  sendFrames(runs: FrameRuns, addresses: Uint8Array, lane: number): void {
    if (lane === 0) this.underlay?.send(runs, addresses)
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
 * Drives a host: its devices' readiness, and its clock. Packets are moved on the event loop of the thread it runs in. A native loop that waits on the event loop's own set of descriptors
 * while nothing but packets comes was tried in its place: round trips were a tenth shorter, but it needs private
 * fields of libuv, and newer ones tell the kernel to report a wake-up by another thread only once, which would then be lost.
 */
export class PacketLoop {
  #timer: NativeTimer | undefined
  #dueAt = Infinity
  /** When the timer goes off. */
  #setFor = Infinity
  #look: NodeJS.Timeout | undefined
  #lookAt = Infinity
  /** Since when, ms, and how many of these were looked at at once. */
  #noticingSince = -Infinity
  #noticed = 0
  /** When the last batch came, ms. */
  #at = -Infinity
  #stopped = false
  #faults = 0
  #faultsSince = -Infinity

  constructor(
    private readonly components: {
      readonly host: Driven
      readonly tun: TunDevice
      readonly underlay: Underlay
      /** Something unforeseen was thrown over a packet or a batch: what is lost is counted, and the loop goes on. */
      readonly fault: (error: unknown) => void
      /** A deadline was dealt with so many ms too late. */
      readonly late?: (ms: number) => void
      /** The TUN device is gone, or faults do not end: the loop has stopped. */
      readonly failed: (error: unknown) => void
    },
  ) {}

  start(): void {
    const { host, tun, underlay } = this.components
    tun.onReadable(() => this.#readTun())
    underlay.onReadable(host.dataPath.wireIn, () => this.#readWire(), ROUNDS)
    // At once: what the host begins by is work for others.
    this.#expire()
  }

  #readTun(): void {
    this.#takeTun()
    this.#notice()
  }

  /** A batch of a socket. The kernel's answers to what has been written are there already: they need no turn of the loop. */
  #readWire(): void {
    this.#takeWire()
    this.#takeTun()
    this.#notice()
  }

  #takeWire(): void {
    if (this.#stopped) return
    try {
      this.#at = monotonicNow()
      this.components.host.wireRead(this.#at)
    } catch (error) {
      this.#thrown(error)
    }
  }

  /** What has come to the host's own sockets by now is dealt with: before what came later by others. */
  receive(): void {
    const { host, underlay } = this.components
    if (!this.#stopped) underlay.receive(host.dataPath.wireIn, () => this.#takeWire(), ALL_ROUNDS)
  }

  #takeTun(): void {
    if (this.#stopped) return
    const { host, tun } = this.components
    const { tunIn } = host.dataPath
    try {
      // A packet that came alone is mostly the only one: another look at the device takes longer than to be called again once in a while.
      for (let round = 0, count = 2; round < ROUNDS && count > 1; round++) {
        count = tun.readBatch(tunIn)
        if (count === 0) break
        this.#at = monotonicNow()
        host.tunRead(this.#at)
      }
    } catch (error) {
      this.#thrown(error)
    }
  }

  /** Other devices have something for the host. */
  run(work: (now: number) => void): void {
    if (this.#stopped) return
    try {
      this.#at = monotonicNow()
      work(this.#at)
    } catch (error) {
      this.#thrown(error)
    }
    this.#notice()
  }

  /** Packets have passed by native code, or have ceased to: it is seen to, and all else with it that is due. */
  passed(): void {
    const { host } = this.components
    this.run((now) => {
      const caughtUp = this.#caughtUp(host.nextTimeout(), now)
      host.handleTimeout(caughtUp ? monotonicNow() : now)
    })
  }

  /** Something outside the packet loop has changed the host: its next deadline may be another one. */
  wake(): void {
    const now = monotonicNow()
    this.#arm(now, now)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.close()
    clearTimeout(this.#look)
  }

  /** A batch may have set a deadline that is earlier than the timer. */
  #notice(): void {
    if (this.#stopped) return
    const now = this.#at
    if (now - this.#noticingSince >= NOTICE_MS) {
      this.#noticingSince = now
      this.#noticed = 0
    }
    if (++this.#noticed > NOTICED_AT_ONCE) return this.#lookSoon(now)
    try {
      const next = this.components.host.nextTimeout()
      // What has come may be what was waited for until then.
      if (this.#dueAt < Infinity && next > this.#dueAt + NOTICE_MS) this.#dueAt = Infinity
      if (next < this.#dueAt) this.#arm(Math.max(now + 1, Math.min(next, now + AWAKE_MS)), now)
    } catch (error) {
      this.#thrown(error)
    }
  }

  /** One timer, set again and again: while packets come it costs less than to move the other one. */
  #lookSoon(now: number): void {
    const at = now + NOTICE_MS
    if (this.#lookAt <= at || this.#dueAt <= at) return
    this.#lookAt = at
    if (this.#look === undefined) this.#look = setTimeout(() => this.#expire(), NOTICE_MS)
    else this.#look.refresh()
  }

  #arm(at: number, now: number): void {
    if (this.#stopped || this.#dueAt <= at) return
    this.#dueAt = at
    this.#timer ??= new NativeTimer(() => {
      this.components.late?.(Math.max(0, monotonicNow() - this.#setFor))
      this.#dueAt = Infinity
      this.#expire()
    })
    // What is due within the same millisecond takes one turn.
    this.#setFor = Math.ceil(at)
    this.#timer.set(this.#setFor - now)
  }

  #expire(): void {
    this.#lookAt = Infinity
    if (this.#stopped) return
    const { host } = this.components
    try {
      let now = monotonicNow()
      let next = host.nextTimeout()
      if (this.#caughtUp(next, now)) {
        now = monotonicNow()
        next = host.nextTimeout()
      }
      if (next <= now) {
        host.handleTimeout(now)
        now = monotonicNow()
        next = host.nextTimeout()
      }
      if (next < Infinity) this.#arm(Math.max(now + 1, Math.min(next, now + AWAKE_MS)), now)
    } catch (error) {
      this.#thrown(error)
    }
  }

  /** True: that was due long ago; what has come meanwhile is read. */
  #caughtUp(next: number, now: number): boolean {
    const late = next + LATE_MS <= now
    if (late) this.receive()
    return late
  }

  #thrown(error: unknown): void {
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
