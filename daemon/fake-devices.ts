// Devices in memory, for tests and the simulator: no kernel, no timers, no clock. What is sent waits until `FakeNetwork.deliver()` moves it, so
// that a run is the same every time.

import { decodeLocator, encodeLocator, formatLocator, type Locator } from '../lib/path/locator.js'
import {
  ADDRESS_LOCAL,
  ADDRESS_RECORD,
  DATAGRAM_WORDS,
  PACKET_WORDS,
  RUN_WORDS,
  type DatagramBatch,
  type FrameRuns,
  type PacketBatch,
} from '../lib/wire/batch.js'
import { PACKET_MAX, VNET_HEADER } from '../lib/wire/constants.js'
import { CaracalError } from './errors.js'
import type { TunDevice, TunOffloads } from './tun.js'
import type { BufferSizes, SendResult, UdpSocket } from './udp.js'

const DATAGRAM_BUFFER = 65_536
const RECEIVE_BATCH = 8
const READ_BATCH = 64
/** Position in an address record. */
const ADDRESS = 8

/** A TUN whose kernel is the test: `fromKernel` puts packets in, `toKernel` has what was written. */
export class FakeTun implements TunDevice {
  readonly offloads: TunOffloads
  packetsLost = 0
  /** Packets written, vnet header in front, oldest first. The test takes them out. */
  readonly toKernel: Uint8Array[] = []
  readonly #waiting: Uint8Array[] = []
  #callback: (() => void) | undefined
  #open = true

  constructor(
    readonly name = 'fake0',
    readonly mtu = 1420,
    offloads: Partial<TunOffloads> = {},
  ) {
    this.offloads = { vnetHeader: true, checksum: true, tso: true, uso: true, ...offloads }
  }

  /** Hands over one IP packet (copied) with this vnet header, or a zero one, and calls the reader. */
  fromKernel(packet: Uint8Array, vnetHeader = new Uint8Array(VNET_HEADER)): void {
    if (vnetHeader.length !== VNET_HEADER || packet.length === 0 || packet.length > PACKET_MAX) {
      throw new RangeError('not a packet with its vnet header')
    }
    const bytes = new Uint8Array(VNET_HEADER + packet.length)
    bytes.set(vnetHeader)
    bytes.set(packet, VNET_HEADER)
    this.#waiting.push(bytes)
    this.#callback?.()
  }

  readBatch(batch: PacketBatch): number {
    this.#check()
    batch.count = 0
    batch.used = 0
    let offset = 2
    const limit = Math.min(READ_BATCH, Math.floor(batch.desc.length / PACKET_WORDS))
    while (batch.count < limit && offset + VNET_HEADER + PACKET_MAX <= batch.data.length) {
      const bytes = this.#waiting.shift()
      if (bytes === undefined) break
      batch.data.set(bytes, offset)
      batch.desc[batch.count * PACKET_WORDS] = offset
      batch.desc[batch.count * PACKET_WORDS + 1] = bytes.length
      batch.count++
      batch.used = offset + bytes.length
      offset = ((offset + bytes.length + 1) & ~3) + 2
    }
    return batch.count
  }

  writeBatch(batch: PacketBatch): number {
    this.#check()
    let written = 0
    for (let i = 0; i < batch.count; i++) {
      const offset = batch.desc[i * PACKET_WORDS]!
      const length = batch.desc[i * PACKET_WORDS + 1]!
      if (length < 0) continue
      if (offset < 0 || offset + length > batch.data.length) throw new RangeError(`packet ${i} lies outside its buffer`)
      if (length <= VNET_HEADER) continue
      this.toKernel.push(batch.data.slice(offset, offset + length))
      written++
    }
    return written
  }

  onReadable(callback: () => void): void {
    this.#check()
    if (this.#callback !== undefined) throw new Error('the device has a reader already')
    this.#callback = callback
    if (this.#waiting.length > 0) callback()
  }

  close(): void {
    this.#open = false
    this.#callback = undefined
    this.#waiting.length = 0
  }

  #check(): void {
    if (!this.#open) throw new Error('the device is closed')
  }
}

/** One send as it travels: a single datagram, or a GSO run that arrives as a GRO'd one. */
export interface FakeDatagram {
  readonly from: Locator
  readonly to: Locator
  readonly bytes: Uint8Array
  /** 0: one datagram. */
  readonly segmentSize: number
  readonly trafficClass: number
}

/** What a filter does with a datagram: itself (changed or not), others in its place, or nothing. */
export type FakeFilter = (datagram: FakeDatagram) => readonly FakeDatagram[]

/** An underlay of fake sockets: reliable and in order unless `filter` says otherwise. */
export class FakeNetwork {
  /** Sees each datagram on delivery; loses, doubles, changes or re-addresses it. */
  filter: FakeFilter | undefined
  readonly #sockets = new Map<string, FakeUdp>()
  #flying: FakeDatagram[] = []

  /** A socket at this address, which no other may have (CARACAL_E_LISTEN). */
  open(local: Locator): FakeUdp {
    const key = formatLocator(local)
    if (this.#sockets.has(key)) throw new CaracalError('CARACAL_E_LISTEN', `${key} is taken`)
    const socket = new FakeUdp(this, local)
    this.#sockets.set(key, socket)
    return socket
  }

  /** Datagrams sent and not yet delivered. */
  get flying(): number {
    return this.#flying.length
  }

  /** Delivers what was sent before the call (not what its receivers send meanwhile); returns how many datagrams reached a socket. */
  deliver(): number {
    const now = this.#flying
    this.#flying = []
    let reached = 0
    for (const datagram of now) {
      for (const one of this.filter?.(datagram) ?? [datagram]) {
        const socket = this.#sockets.get(formatLocator(one.to))
        if (socket === undefined) continue
        socket.accept(one)
        reached++
      }
    }
    return reached
  }

  /** Delivers until nothing flies, at most `rounds` times; returns whether it came to rest. */
  settle(rounds = 1000): boolean {
    for (let i = 0; i < rounds && this.#flying.length > 0; i++) this.deliver()
    return this.#flying.length === 0
  }

  /** Puts a datagram on the way as if `from` had sent it. */
  send(datagram: FakeDatagram): void {
    this.#flying.push(datagram)
  }

  /** The socket has closed. */
  remove(local: Locator): void {
    this.#sockets.delete(formatLocator(local))
  }
}

/** A socket of a FakeNetwork. */
export class FakeUdp implements UdpSocket {
  readonly bufferSizes: BufferSizes = { receive: 1 << 24, send: 1 << 24 }
  datagramsLost = 0
  readonly #waiting: FakeDatagram[] = []
  readonly #result = { sent: 0, failed: 0 }
  readonly #network: FakeNetwork
  /** Its address as records have it. */
  readonly #own: Uint8Array
  #callback: (() => void) | undefined
  #open = true

  constructor(
    network: FakeNetwork,
    readonly local: Locator,
  ) {
    this.#network = network
    this.#own = encodeLocator(local).subarray(ADDRESS, ADDRESS_LOCAL)
  }

  /** A datagram arrives. */
  accept(datagram: FakeDatagram): void {
    this.#waiting.push(datagram)
    this.#callback?.()
  }

  recvBatch(batch: DatagramBatch): number {
    this.#check()
    const room = Math.min(
      RECEIVE_BATCH,
      Math.floor(batch.data.length / DATAGRAM_BUFFER),
      Math.floor(batch.desc.length / DATAGRAM_WORDS),
      Math.floor(batch.addresses.length / ADDRESS_RECORD),
    )
    batch.count = 0
    while (batch.count < room) {
      const datagram = this.#waiting.shift()
      if (datagram === undefined) break
      const offset = batch.count * DATAGRAM_BUFFER
      const word = batch.count * DATAGRAM_WORDS
      batch.data.set(datagram.bytes, offset)
      batch.desc[word] = offset
      batch.desc[word + 1] = datagram.bytes.length
      batch.desc[word + 2] = datagram.segmentSize
      batch.desc[word + 3] = datagram.trafficClass
      batch.addresses.set(encodeLocator(datagram.from), batch.count * ADDRESS_RECORD)
      batch.addresses.set(this.#own, batch.count * ADDRESS_RECORD + ADDRESS_LOCAL)
      batch.count++
    }
    return batch.count
  }

  sendBatch(runs: FrameRuns, addressRecords: Uint8Array): SendResult {
    this.#check()
    this.#result.sent = 0
    this.#result.failed = 0
    for (let i = 0; i < runs.count; i++) {
      const word = i * RUN_WORDS
      const offset = runs.desc[word]!
      const length = runs.desc[word + 1]!
      const stride = runs.desc[word + 2]!
      const slot = runs.desc[word + 3]!
      if (offset < 0 || length < 0 || offset + length > runs.data.length || (length > 0 && stride <= 0)) {
        throw new RangeError(`run ${i} lies outside its buffer`)
      }
      if (slot < 0 || (slot + 1) * ADDRESS_RECORD > addressRecords.length) {
        throw new RangeError(`run ${i}: no such address`)
      }
      const frames = Math.ceil(length / Math.max(stride, 1))
      const to = decodeLocator(addressRecords, slot * ADDRESS_RECORD)
      if (to === undefined || to.address.includes(':') !== this.local.address.includes(':')) {
        this.#result.failed += frames
        continue
      }
      if (frames === 0) continue
      this.#network.send({
        from: this.local,
        to,
        bytes: runs.data.slice(offset, offset + length),
        segmentSize: frames > 1 ? stride : 0,
        trafficClass: runs.desc[word + 4]!,
      })
      this.#result.sent += frames
    }
    return this.#result
  }

  onReadable(callback: () => void): void {
    this.#check()
    if (this.#callback !== undefined) throw new Error('the socket has a reader already')
    this.#callback = callback
    if (this.#waiting.length > 0) callback()
  }

  close(): void {
    this.#open = false
    this.#callback = undefined
    this.#waiting.length = 0
    this.#network.remove(this.local)
  }

  #check(): void {
    if (!this.#open) throw new Error('the socket is closed')
  }
}
