// A TUN device as the data path sees it, and the real one.

import { readFileSync } from 'node:fs'
import { PACKET_WORDS, type PacketBatch } from '../lib/wire/batch.js'
import { CaracalError, messageOf } from './errors.js'
import { native, nativeReason, TunFlag, TunOffload, type NativeHandle, type OpenedTun } from './native.js'

/** What the kernel leaves to us when it hands packets over, and takes from us when we write. */
export interface TunOffloads {
  /** Packets carry a virtio_net_hdr in the kernel too; else the native layer adds and strips it, segments and completes checksums. */
  readonly vnetHeader: boolean
  readonly checksum: boolean
  /** TCP super-packets of both families. */
  readonly tso: boolean
  /** UDP super-packets of both families. */
  readonly uso: boolean
}

/** One queue of a TUN device. Not to be used after `close`. */
export interface TunDevice {
  /** Name of the network interface. */
  readonly name: string
  readonly mtu: number
  readonly offloads: TunOffloads
  /** Packets of programs that the kernel has dropped since it was opened or taken over, mostly as the device was not read in time and its queue was full. Asks the kernel. */
  readonly packetsLost: number
  /** Replaces the batch's content by what waits, up to 64 packets; returns its count. Throws CARACAL_E_GONE when the device was removed. */
  readBatch(batch: PacketBatch): number
  /** Writes the batch's packets, but for those of negative length; returns how many the kernel took. Never throws for what it did not. */
  writeBatch(batch: PacketBatch): number
  /** Calls back whenever packets wait (level-triggered: read until the batch stays short, or be called again). One reader. */
  onReadable(callback: () => void): void
  close(): void
}

export interface TunOptions {
  /** Name of the interface, 1 to 15 bytes; `%d` in it lets the kernel number it. */
  readonly name: string
  /** Bytes, 68 to 65,535. */
  readonly mtu: number
  /** Further queues can be opened under the same name. */
  readonly multiQueue?: boolean
  /** The device stays when its last descriptor closes. */
  readonly persist?: boolean
  /** Default: true. While a device is down it takes no packets. */
  readonly up?: boolean
  /** Best offload to ask for; the kernel may give less. Default: uso. */
  readonly offload?: keyof typeof TunOffload
  /** false: work as on kernels without virtio_net_hdr. */
  readonly vnetHeader?: boolean
}

/** What of a queue goes to another thread. Good for once. */
export interface SharedTun {
  readonly token: number
  readonly name: string
  readonly mtu: number
  readonly offloads: TunOffloads
}

/** A queue that a keeper has held. Nothing of the device changes but what the kernel leaves to us. */
export interface HeldTun extends Pick<TunOptions, 'mtu' | 'offload'> {
  readonly held: NativeHandle
}

/** Opens a TUN device, or attaches to the one of that name, and sets its MTU; or takes over a queue that another thread, or process, has handed over. */
export class NativeTun implements TunDevice {
  readonly name: string
  readonly mtu: number
  readonly offloads: TunOffloads
  readonly #native = native()
  /** For who hands it to another process. */
  readonly handle: NativeHandle
  #open = true
  readonly #lostBefore: number

  /** Throws CARACAL_E_TUN_DENIED without the right to, CARACAL_E_TUN for any other failure. */
  constructor(options: TunOptions | SharedTun | HeldTun) {
    if ('token' in options) {
      this.handle = this.#native.adopt(options.token)
      this.name = options.name
      this.mtu = options.mtu
      this.offloads = options.offloads
      this.#lostBefore = 0
      return
    }
    this.mtu = options.mtu
    if ('held' in options) {
      const taken = this.#native.tunTake(options.held, TunOffload[options.offload ?? 'uso'])
      this.handle = taken.handle
      this.name = taken.name
      this.offloads = offloadsOf(taken)
      this.#lostBefore = transmitDropped(this.name)
      return
    }
    if (!/^[A-Za-z0-9_.%-]{1,15}$/.test(options.name) || options.name === '.' || options.name === '..') {
      throw new CaracalError('CARACAL_E_TUN', `${JSON.stringify(options.name)} is no name of a network interface`)
    }
    const flags =
      (options.multiQueue === true ? TunFlag.multiQueue : 0) | (options.vnetHeader === false ? TunFlag.noVnetHeader : 0)
    try {
      const opened = this.#native.tunOpen(options.name, flags, TunOffload[options.offload ?? 'uso'])
      this.handle = opened.handle
      this.name = opened.name
      this.offloads = offloadsOf(opened)
      this.#lostBefore = transmitDropped(this.name)
    } catch (error) {
      throw openFailure(options.name, error)
    }
    try {
      if (options.persist !== undefined) this.#native.tunPersist(this.handle, options.persist)
      this.#native.tunConfigure(this.handle, options.mtu, options.up ?? true)
    } catch (error) {
      this.close()
      throw openFailure(options.name, error)
    }
  }

  get packetsLost(): number {
    return Math.max(0, transmitDropped(this.name) - this.#lostBefore)
  }

  readBatch(batch: PacketBatch): number {
    const count = this.#native.tunRead(this.handle, batch.data, batch.desc)
    batch.count = count
    const last = (count - 1) * PACKET_WORDS
    batch.used = count === 0 ? 0 : batch.desc[last]! + batch.desc[last + 1]!
    return count
  }

  writeBatch(batch: PacketBatch): number {
    return this.#native.tunWrite(this.handle, batch.data, batch.desc, batch.count)
  }

  onReadable(callback: () => void): void {
    this.#native.watch(this.handle, callback)
  }

  /** What comes alone is tried by this express first. The batch is the one that is read into. */
  express(express: NativeHandle, batch: PacketBatch): void {
    this.#native.tunExpress(this.handle, express, batch.data, batch.desc)
  }

  /** On hold, nobody is called back. */
  pause(on: boolean): void {
    this.#native.pause(this.handle, on)
  }

  /** The same queue, for another thread. */
  share(): SharedTun {
    const { name, mtu, offloads } = this
    return { token: this.#native.share(this.handle), name, mtu, offloads }
  }

  /** Each flow's packets come by one of the device's queues, whatever is written to them; false: the kernel does not let us. */
  steer(): boolean {
    return this.#native.tunSteer(this.handle)
  }

  /** Whether the device is to outlive its last descriptor. */
  persist(on: boolean): void {
    this.#native.tunPersist(this.handle, on)
  }

  /** Closing twice is allowed. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#native.close(this.handle)
  }
}

/** Position among the counts of a line of /proc/net/dev. */
const TRANSMIT_DROPPED = 11

/** What the kernel counts for the device, in this process's network namespace; 0: it does not say. */
function transmitDropped(name: string): number {
  let text: string
  try {
    text = readFileSync('/proc/net/dev', 'latin1')
  } catch {
    return 0
  }
  const line = text.split('\n').find((one) => one.trimStart().startsWith(`${name}:`))
  const count = Number(
    line
      ?.slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/)[TRANSMIT_DROPPED],
  )
  return Number.isSafeInteger(count) ? count : 0
}

function offloadsOf({ vnetHeader, offload }: OpenedTun): TunOffloads {
  return {
    vnetHeader,
    checksum: offload >= TunOffload.checksum,
    tso: offload >= TunOffload.tso,
    uso: offload >= TunOffload.uso,
  }
}

function openFailure(name: string, error: unknown): CaracalError {
  const reason = nativeReason(error)
  if (reason === 'EPERM' || reason === 'EACCES') {
    return new CaracalError(
      'CARACAL_E_TUN_DENIED',
      `no right to open the TUN device ${name}`,
      'run as root (sudo caracal up …), or try it without: caracal demo',
      { cause: error },
    )
  }
  const next =
    reason === 'EBUSY'
      ? 'another process has it; choose another name with --tun'
      : reason === 'ENOENT' || reason === 'ENODEV' || reason === 'ENXIO'
        ? 'load the kernel module: sudo modprobe tun'
        : undefined
  return new CaracalError('CARACAL_E_TUN', messageOf(error), next, { cause: error })
}
