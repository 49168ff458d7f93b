// A UDP socket of the underlay as the data path sees it, and the real one.

import { decodeLocator, encodeLocator, type Locator } from '../lib/path/locator.js'
import type { DatagramBatch, FrameRuns } from '../lib/wire/batch.js'
import { CaracalError, messageOf } from './errors.js'
import { native, nativeReason, UdpFlag, type NativeHandle } from './native.js'

/** What one send call did, in frames. Belongs to the socket; valid until its next send. */
export interface SendResult {
  readonly sent: number
  /** Not taken by the kernel: no route, refused by an earlier answer, buffer full, address of the other family. */
  readonly failed: number
}

/** Bytes that the kernel keeps for the socket. */
export interface BufferSizes {
  readonly receive: number
  readonly send: number
}

/** One non-blocking socket of one family. Not to be used after `close`. */
export interface UdpSocket {
  /** Where it listens; the address may be the wildcard, the port is the real one. */
  readonly local: Locator
  readonly bufferSizes: BufferSizes
  /** Datagrams that the kernel has dropped since it was opened or taken over: they were not read in time, and the buffer was full. Asks the kernel. */
  readonly datagramsLost: number
  /** Replaces the batch's content by what waits, up to 8 datagrams; returns its count. Never throws for errors of the network. */
  recvBatch(batch: DatagramBatch): number
  /** Sends all runs; each goes to the record that its address slot names in `addressRecords`. Never throws for errors of the network. */
  sendBatch(runs: FrameRuns, addressRecords: Uint8Array): SendResult
  /** Calls back whenever datagrams wait (level-triggered). One reader. */
  onReadable(callback: () => void): void
  close(): void
}

/** Wanted size of each kernel buffer when nothing else is said. */
export const BUFFER_BYTES = 1 << 24

/** What holds for all sockets of a host. */
export interface SocketSettings {
  /** Wanted size of each kernel buffer; the system's limit applies where we are not allowed to go above it. Default: {@link BUFFER_BYTES}. */
  readonly bufferBytes?: number
  /** false: one datagram a buffer. */
  readonly gro?: boolean
  /** false: one message a frame. */
  readonly gso?: boolean
}

export interface UdpOptions extends SocketSettings {
  /** IPv4 or IPv6 literal, link-local with `%interface`. IPv6 sockets take IPv6 only: open one of each family. */
  readonly address: string
  /** 0: any free one. */
  readonly port: number
}

/** What of a socket goes to another thread. Good for once. */
export interface SharedUdp {
  readonly token: number
  readonly local: Locator
  readonly bufferSizes: BufferSizes
  readonly gro: boolean
  readonly gso: boolean
}

/** A bound socket that a keeper has held. */
export interface HeldUdp extends SocketSettings {
  readonly held: NativeHandle
}

/** A real socket: a new one, or one that another thread, or process, has handed over. */
export class NativeUdp implements UdpSocket {
  readonly local: Locator
  readonly bufferSizes: BufferSizes
  /** Whether one buffer may bring several datagrams. */
  readonly gro: boolean
  readonly #native = native()
  /** For who hands it to another process. */
  readonly handle: NativeHandle
  readonly #words = new Int32Array(4)
  readonly #result = { sent: 0, failed: 0 }
  readonly #gso: boolean
  #gsoRefused = false
  #open = true
  /** What the kernel's count, of 32 bits, was last, and by how much it has risen in all. */
  #lostCount: number
  #lost = 0

  /** Throws CARACAL_E_LISTEN. */
  constructor(options: UdpOptions | SharedUdp | HeldUdp) {
    if ('token' in options) {
      this.handle = this.#native.adopt(options.token)
      this.local = options.local
      this.bufferSizes = options.bufferSizes
      this.gro = options.gro
      this.#gso = options.gso
      this.#lostCount = this.#native.udpLost(this.handle)
      return
    }
    const flags = (options.gro === false ? UdpFlag.noGro : 0) | (options.gso === false ? UdpFlag.noGso : 0)
    try {
      const bufferBytes = options.bufferBytes ?? BUFFER_BYTES
      const opened =
        'held' in options
          ? this.#native.udpTake(options.held, bufferBytes, flags)
          : this.#native.udpOpen(options.address, options.port, bufferBytes, flags)
      this.handle = opened.handle
      const local = decodeLocator(opened.local)
      if (local === undefined) throw new Error('the socket has no port')
      this.local = local
      this.bufferSizes = { receive: opened.receiveBuffer, send: opened.sendBuffer }
      this.gro = opened.gro
      this.#gso = opened.gso
      this.#lostCount = this.#native.udpLost(this.handle)
    } catch (error) {
      throw 'held' in options ? error : openFailure(options, error)
    }
  }

  /** Whether a run goes as one message. */
  get gso(): boolean {
    return this.#gso
  }

  /** Whether that is refused by the device on the way to some destination, whose frames go one by one. Tried again after some thousand runs. */
  get gsoRefused(): boolean {
    return this.#gsoRefused
  }

  get datagramsLost(): number {
    if (!this.#open) return this.#lost
    const count = this.#native.udpLost(this.handle)
    this.#lost += (count - this.#lostCount) >>> 0
    this.#lostCount = count
    return this.#lost
  }

  /** errno of the last frame that failed in the last send; 0: none. */
  get lastError(): number {
    return this.#words[2]!
  }

  recvBatch(batch: DatagramBatch): number {
    batch.count = this.#native.udpReceive(this.handle, batch.data, batch.desc, batch.addresses)
    return batch.count
  }

  sendBatch(runs: FrameRuns, addressRecords: Uint8Array): SendResult {
    this.#native.udpSend(this.handle, runs.data, runs.desc, runs.count, addressRecords, this.#words)
    this.#result.sent = this.#words[0]!
    this.#result.failed = this.#words[1]!
    this.#gsoRefused = this.#words[3] === 2
    return this.#result
  }

  onReadable(callback: () => void): void {
    this.#native.watch(this.handle, callback)
  }

  /** What comes alone is tried by this express first, which sends by this socket too. The batch is the one that is received into. */
  express(express: NativeHandle, batch: DatagramBatch): void {
    const { data, desc, addresses } = batch
    this.#native.udpExpress(this.handle, express, encodeLocator(this.local), data, desc, addresses)
  }

  /** On hold, nobody is called back. */
  pause(on: boolean): void {
    this.#native.pause(this.handle, on)
  }

  /** The same socket, for another thread. */
  share(): SharedUdp {
    const { local, bufferSizes, gro } = this
    return { token: this.#native.share(this.handle), local, bufferSizes, gro, gso: this.#gso }
  }

  /** Closing twice is allowed. */
  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#native.close(this.handle)
  }
}

function openFailure(options: UdpOptions, error: unknown): CaracalError {
  const reason = nativeReason(error)
  const where = `UDP ${options.address.includes(':') ? `[${options.address}]` : options.address}:${options.port}`
  const next =
    reason === 'EADDRINUSE'
      ? 'another process has the port; choose one with --listen ADDR:PORT'
      : reason === 'EADDRNOTAVAIL'
        ? 'this host does not have that address; choose one with --listen ADDR:PORT'
        : reason === 'EACCES'
          ? 'ports below 1024 need root; choose one with --listen ADDR:PORT'
          : undefined
  const what = reason === undefined || next === undefined ? messageOf(error) : `cannot listen on ${where}`
  return new CaracalError('CARACAL_E_LISTEN', what, next, { cause: error })
}
