import { encodeLocator, type Locator } from '../lib/path/locator.js'
import {
  ADDRESS_LOCAL,
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  frameRuns,
  RUN_WORDS,
  type DatagramBatch,
  type FrameRuns,
} from '../lib/wire/batch.js'
import { nativeReason, type NativeHandle } from './native.js'
import { NativeUdp, type BufferSizes, type SocketSettings, type UdpSocket } from './udp.js'

const RUNS_MAX = 1024
const ADDRESS_SLOT = 3
/** Position in an address record. */
const ADDRESS = 8

/** All UDP sockets of the daemon; each run goes out on the socket that is bound to its own address, or on the first one of its destination's family. */
export class Underlay {
  framesFailed = 0
  readonly #byFamily = new Map<number, UdpSocket[]>()
  /** Of the sockets that are bound to one address: the address as records have it. */
  readonly #bound = new Map<UdpSocket, Uint8Array>()
  /** Runs of one family, over the bytes of the batch being sent. */
  readonly #rows = new Int32Array(RUNS_MAX * RUN_WORDS)
  readonly #single = frameRuns(2048, 1)
  readonly #record = new Uint8Array(ADDRESS_RECORD)

  constructor(readonly sockets: readonly UdpSocket[]) {
    for (const socket of sockets) {
      const record = encodeLocator(socket.local)
      const address = record.subarray(ADDRESS, ADDRESS_LOCAL)
      this.#byFamily.set(record[0]!, [...(this.#byFamily.get(record[0]!) ?? []), socket])
      if (address.some((byte) => byte !== 0)) this.#bound.set(socket, address)
    }
  }

  /** Opens a socket for each address; where the kernel has no IPv6, its wildcard is left out. Throws CARACAL_E_LISTEN. */
  static open(addresses: readonly Locator[], settings: SocketSettings = {}): Underlay {
    const sockets: UdpSocket[] = []
    try {
      for (const { address, port } of addresses) {
        try {
          sockets.push(new NativeUdp({ ...settings, address, port }))
        } catch (error) {
          if (address !== '::' || sockets.length === 0 || !isMissing(error)) throw error
        }
      }
    } catch (error) {
      for (const socket of sockets) socket.close()
      throw error
    }
    return new Underlay(sockets)
  }

  /** Of sockets that a keeper has held. */
  static take(held: readonly NativeHandle[], settings: SocketSettings = {}): Underlay {
    const sockets: NativeUdp[] = []
    try {
      for (const one of held) sockets.push(new NativeUdp({ ...settings, held: one }))
    } catch (error) {
      for (const socket of sockets) socket.close()
      throw error
    }
    return new Underlay(sockets)
  }

  /** Those that can be handed over. */
  get handles(): NativeHandle[] {
    return this.sockets.flatMap((socket) => (socket instanceof NativeUdp ? [socket.handle] : []))
  }
  get locals(): Locator[] {
    return this.sockets.map((socket) => socket.local)
  }
  get bufferSizes(): BufferSizes[] {
    return this.sockets.map((socket) => socket.bufferSizes)
  }

  get datagramsLost(): number {
    return this.sockets.reduce((sum, socket) => sum + socket.datagramsLost, 0)
  }

  send(runs: FrameRuns, records: Uint8Array): void {
    let taken = 0
    for (const socket of this.sockets) {
      let count = 0
      for (let i = 0; i < runs.count; i++) {
        const base = i * RUN_WORDS
        if (this.#socketFor(records, runs.desc[base + ADDRESS_SLOT]! * ADDRESS_RECORD) !== socket) continue
        for (let w = 0; w < RUN_WORDS; w++) this.#rows[count * RUN_WORDS + w] = runs.desc[base + w]!
        count++
      }
      if (count === 0) continue
      taken += count
      const result =
        count === runs.count
          ? socket.sendBatch(runs, records)
          : socket.sendBatch({ data: runs.data, desc: this.#rows, count, used: runs.used }, records)
      this.framesFailed += result.failed
      if (taken === runs.count) return
    }
    this.#countHomeless(runs, records)
  }

  #socketFor(records: Uint8Array, at: number): UdpSocket | undefined {
    const sockets = this.#byFamily.get(records[at]!)
    if (sockets === undefined || sockets.length === 1) return sockets?.[0]
    return sockets.find((socket) => isLocal(this.#bound.get(socket), records, at)) ?? sockets[0]
  }

  /** Frames to addresses of a family that this host has no socket of. */
  #countHomeless({ desc, count }: FrameRuns, records: Uint8Array): void {
    for (let i = 0; i < count; i++) {
      const base = i * RUN_WORDS
      if (this.#byFamily.has(records[desc[base + ADDRESS_SLOT]! * ADDRESS_RECORD]!)) continue
      this.framesFailed += Math.ceil(desc[base + 1]! / Math.max(desc[base + 2]!, 1))
    }
  }

  /** One datagram, outside the data path (joining). */
  sendOne(bytes: Uint8Array, record: Uint8Array): void {
    this.#single.data.set(bytes)
    this.#single.desc.set([0, bytes.length, bytes.length, 0, 0, 0])
    this.#single.count = 1
    this.#single.used = bytes.length
    this.#record.set(record.subarray(0, ADDRESS_RECORD))
    this.send(this.#single, this.#record)
  }

  /** Calls back with each socket's batches as they come, at most `rounds` before others get their turn. */
  onReadable(batch: DatagramBatch, received: () => void, rounds = 8): void {
    for (const socket of this.sockets) socket.onReadable(() => receiveFrom(socket, batch, received, rounds))
  }

  /** Calls back with each socket's batches that have come by now. */
  receive(batch: DatagramBatch, received: () => void, rounds: number): void {
    for (const socket of this.sockets) receiveFrom(socket, batch, received, rounds)
  }

  close(): void {
    for (const socket of this.sockets) socket.close()
  }
}

function receiveFrom(socket: UdpSocket, batch: DatagramBatch, received: () => void, rounds: number): void {
  // A batch that has room left was the last for now.
  const full = batch.desc.length / DATAGRAM_WORDS
  for (let i = 0, count = full; i < rounds && count === full; i++) {
    count = socket.recvBatch(batch)
    if (count > 0) received()
  }
}

function isLocal(address: Uint8Array | undefined, records: Uint8Array, at: number): boolean {
  return address?.every((byte, i) => byte === records[at + ADDRESS_LOCAL + i]) === true
}

/** The kernel has no such family, or none of its addresses. */
function isMissing(error: unknown): boolean {
  const reason = nativeReason(error instanceof Error ? error.cause : undefined)
  return reason === 'EAFNOSUPPORT' || reason === 'EADDRNOTAVAIL'
}
