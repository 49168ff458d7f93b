// The addon, typed. It is built by daemon/native/build.sh and loaded once. Its functions check every argument and throw an Error whose `code` is
// CARACAL_E_ARGUMENT (wrong type), CARACAL_E_RANGE (outside what is allowed or there), CARACAL_E_CLOSED (handle not open), CARACAL_E_GONE (the
// device was removed), CARACAL_E_WATCHED (second watch), CARACAL_E_LIMIT (4,096 descriptors), CARACAL_E_TUN, CARACAL_E_UDP, CARACAL_E_POLL,
// CARACAL_E_SOCKETS, CARACAL_E_NETLINK, CARACAL_E_KEEPER, CARACAL_E_MEMORY, CARACAL_E_NOTIFY, CARACAL_E_SPAWN or CARACAL_E_LOG (a system call failed: `reason` is the errno's name, `syscall` what failed). They never retain an array beyond the call.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { ExpressMemory } from '../lib/host/express.js'
import { CaracalError, messageOf } from './errors.js'
import { projectRoot } from './our-files.js'

/** Names an open queue or socket of this environment. */
export type NativeHandle = number

export const TunFlag = { multiQueue: 1, noVnetHeader: 2 } as const
/** What opening a TUN queue, or taking one over, gives. */
export interface OpenedTun {
  readonly handle: NativeHandle
  readonly name: string
  readonly vnetHeader: boolean
  /** The device may have further queues. */
  readonly multiQueue: boolean
  readonly offload: number
}
/** What opening a UDP socket, or taking one over, gives. */
export interface OpenedUdp {
  readonly handle: NativeHandle
  /** Address record. */
  readonly local: Uint8Array
  readonly receiveBuffer: number
  readonly sendBuffer: number
  readonly gro: boolean
  readonly gso: boolean
}
/** What the kernel may leave to the other side of a TUN; each includes those before it. */
export const TunOffload = { none: 0, checksum: 1, tso: 2, uso: 3 } as const
export const UdpFlag = { noGro: 1, noGso: 2 } as const

export interface Native {
  tunOpen(name: string, flags: number, offload: number): OpenedTun
  /** The queue that a keeper has held; the handle given stays open. */
  tunTake(held: NativeHandle, offload: number): OpenedTun
  /** Packets between two addresses, of TCP of one connection, come by one queue of the device from now on; false: the kernel does not let us. */
  tunSteer(handle: NativeHandle): boolean
  tunPersist(handle: NativeHandle, on: boolean): void
  /** MTU in bytes (68 to 65,535), then up or down. */
  tunConfigure(handle: NativeHandle, mtu: number, up: boolean): void
  /** Fills a PacketBatch's arrays; returns the number of packets. */
  tunRead(handle: NativeHandle, data: Uint8Array, desc: Int32Array): number
  /** Returns the number of packets that the kernel took. */
  tunWrite(handle: NativeHandle, data: Uint8Array, desc: Int32Array, count: number): number

  udpOpen(address: string, port: number, bufferBytes: number, flags: number): OpenedUdp
  /** The socket that a keeper has held; the handle given stays open. */
  udpTake(held: NativeHandle, bufferBytes: number, flags: number): OpenedUdp
  /** Fills a DatagramBatch's arrays; returns the number of datagrams. */
  udpReceive(handle: NativeHandle, data: Uint8Array, desc: Int32Array, addresses: Uint8Array): number
  /** Datagrams that the kernel has dropped before they were read, modulo 2^32, since the socket is there. */
  udpLost(handle: NativeHandle): number
  /** MTU of the link by which this host reaches the address, or less where the route says so, whatever routers have said; 0: not known; -1: there is no route. */
  routeMtu(record: Uint8Array): number
  /** Sends the runs; `result` becomes frames sent, frames failed, last errno (0: none), and 0 without GSO, 1 with it, 2 with it but to some destinations. */
  udpSend(
    handle: NativeHandle,
    data: Uint8Array,
    desc: Int32Array,
    count: number,
    records: Uint8Array,
    result: Int32Array,
  ): void

  /**
   * Lets packets of established flows that come alone pass without JavaScript, from devices given by tunExpress and udpExpress on, and as long as it is open. Readable when `memory` is to be settled.
   * `codec`: a token of NativeCodec.share; `now`: ms of {@link monotonicNow}.
   */
  expressOpen(codec: number, memory: ExpressMemory, now: number): NativeHandle
  /** It is noticed from now on when a peer in `memory.attended` falls silent. */
  expressWatch(express: NativeHandle): void
  /** A PacketBatch's arrays, into which it is read from now on: tunRead must be called with them. */
  tunExpress(handle: NativeHandle, express: NativeHandle, data: Uint8Array, desc: Int32Array): void
  /** A DatagramBatch's arrays, as for tunExpress. `local`: the socket's own address record. */
  udpExpress(
    handle: NativeHandle,
    express: NativeHandle,
    local: Uint8Array,
    data: Uint8Array,
    desc: Int32Array,
    addresses: Uint8Array,
  ): void
  /** Tries one packet or datagram, which is in `data`, at `now` and without a device; returns the bytes that would have gone out, put into `out`; 0: it does not pass. For tests. */
  expressTry(
    express: NativeHandle,
    outward: boolean,
    data: Uint8Array,
    length: number,
    record: Uint8Array,
    trafficClass: number,
    out: Uint8Array,
    now: number,
  ): number

  /** A socket that hears of changes of links, addresses and routes in this network namespace. */
  netlinkOpen(): NativeHandle
  /** Asks for everything of a kind (NetlinkAsk in netlink-messages.ts); the answer's last message has the sequence number (32 bits). One at a time. */
  netlinkAsk(handle: NativeHandle, type: number, sequence: number): void
  /** Bytes of the next datagram, at most 32,768; 0: nothing waits; -1: messages were lost. Never waits. */
  netlinkRead(handle: NativeHandle, data: Uint8Array): number

  /** A connection to the keeper that listens in the directory; reason ENOENT or ECONNREFUSED: there is none. */
  keeperConnect(directory: string): NativeHandle
  /** One message (at most 65,536 bytes) with copies of up to 8 descriptors. Never waits. */
  keeperSend(handle: NativeHandle, message: Uint8Array, handles: Int32Array): void
  /** Bytes of the next message, put into `data` (65,536); 0: the keeper is gone; -1: nothing waits. `handles` (9): those that came with it, then -1. Never waits. */
  keeperReceive(handle: NativeHandle, data: Uint8Array, handles: Int32Array): number

  /** Calls back from the event loop whenever the descriptor is readable or broken; one watch a descriptor. */
  watch(handle: NativeHandle, callback: () => void): void
  unwatch(handle: NativeHandle): void
  /** A watch on hold calls nobody; what is readable then is told when it is taken up again. */
  pause(handle: NativeHandle, on: boolean): void
  /** Ends the watch and closes the descriptor. */
  close(handle: NativeHandle): void

  /** A token with which another thread may {@link adopt} a descriptor of the same queue, socket or event, once. */
  share(handle: NativeHandle): number
  adopt(token: number): NativeHandle

  /** Readable once, so many microseconds (0: never; a day at most) after it was last set. */
  timerOpen(): NativeHandle
  timerSet(handle: NativeHandle, microseconds: number): void

  /** What one thread wakes another with: readable from a signal on until it is cleared. */
  eventOpen(): NativeHandle
  eventSignal(handle: NativeHandle): void
  eventClear(handle: NativeHandle): void

  /** Sends `text` (1 to 4,096 bytes) as one datagram to the unix socket `/path` or, abstract, `@name`. Never waits: EAGAIN when its queue is full. */
  notify(path: string, text: string): void

  /**
   * Ports and addresses on which sockets of this network namespace listen: 18 bytes each, port and address in network order, an IPv4 address in the
   * first four of its 16. Returns their number, at most as many as there is room for. Never waits.
   */
  listeningSockets(udp: boolean, v6: boolean, into: Uint8Array): number

  /** This thread runs before all that is not real-time itself, or no more. Throws CARACAL_E_PRIORITY when the system does not allow it. */
  setRealTime(on: boolean): void
  isRealTime(): boolean

  /** Gives memory that this thread's objects no longer need, and what all threads have freed, back to the system. Takes some tens of milliseconds. */
  trimMemory(): void
  /** Asks for large pages behind the array, which are given when it is first touched: fewer misses where it is read at random. */
  adviseHugePages(bytes: Uint8Array): void
  /**
   * Memory that is the content of a file of this user's alone, on a tmpfs: whoever maps it next finds what was written, also after a kill -9. Zeroed, but where `keep` is set and the file is there with
   * that size (`kept`). All of its room is taken at once, or ENOSPC thrown.
   */
  mapFile(path: string, bytes: number, keep: boolean): { readonly memory: ArrayBuffer; readonly kept: boolean }
  /** Runs the program of the path words[0] without forking this process; resolves when it has ended. Rejects with CARACAL_E_SPAWN. */
  runProgram(
    words: readonly string[],
    environment: readonly string[],
    input: Uint8Array,
    limitMs: number,
    outputMax: number,
  ): Promise<EndedProgram>

  /** How many of the bytes (1 or more) the file, terminal, pipe or stream socket has taken; 0: it has no room. Never waits. Throws CARACAL_E_LOG when it takes nothing any more. */
  writeNow(fd: number, bytes: Uint8Array): number
}

export interface EndedProgram {
  /** -1: `signal` has ended it. */
  readonly status: number
  readonly signal: number
  /** It was ended: it took longer than the limit, or wrote more. */
  readonly late: boolean
  readonly tooMuch: boolean
  /** What it wrote to stdout and stderr. */
  readonly output: string
  readonly complaint: string
}

const functions = [
  'tunOpen',
  'tunTake',
  'tunSteer',
  'tunPersist',
  'tunConfigure',
  'tunRead',
  'tunWrite',
  'udpOpen',
  'udpTake',
  'udpReceive',
  'udpLost',
  'routeMtu',
  'udpSend',
  'expressOpen',
  'tunExpress',
  'udpExpress',
  'expressTry',
  'expressWatch',
  'netlinkOpen',
  'netlinkAsk',
  'netlinkRead',
  'keeperConnect',
  'keeperSend',
  'keeperReceive',
  'watch',
  'unwatch',
  'pause',
  'close',
  'share',
  'adopt',
  'timerOpen',
  'timerSet',
  'eventOpen',
  'eventSignal',
  'eventClear',
  'notify',
  'setRealTime',
  'isRealTime',
  'trimMemory',
  'adviseHugePages',
  'mapFile',
  'listeningSockets',
  'runProgram',
  'writeNow',
] as const satisfies readonly (keyof Native)[]

const require = createRequire(import.meta.url)

let loaded: unknown

/** The addon with everything that it exports. Throws CARACAL_E_NATIVE when it is not built or does not load. */
export function loadAddon(): unknown {
  if (loaded !== undefined) return loaded
  try {
    const load: unknown = require('node-gyp-build')
    if (typeof load !== 'function') throw new TypeError('node-gyp-build exports no function')
    loaded = load(projectRoot())
    return loaded
  } catch (error) {
    throw new CaracalError(
      'CARACAL_E_NATIVE',
      `the native part does not load (${messageOf(error)})`,
      `type: sh ${join(projectRoot(), 'daemon/native/build.sh')}`,
      { cause: error },
    )
  }
}

/** Devices, sockets and readiness of the addon; throws as {@link loadAddon}. */
export function native(): Native {
  return (checked ??= checkedAddon())
}

let checked: Native | undefined

function checkedAddon(): Native {
  const addon = loadAddon()
  if (!isNative(addon)) {
    throw new CaracalError(
      'CARACAL_E_NATIVE',
      'the native part is of another version',
      `type: sh ${join(projectRoot(), 'daemon/native/build.sh')}`,
    )
  }
  return addon
}

function isNative(addon: unknown): addon is Native {
  if (typeof addon !== 'object' || addon === null) return false
  const exported = new Map(Object.entries(addon))
  return functions.every((name) => typeof exported.get(name) === 'function')
}

/** What the addon says of a failed system call: the errno's name, such as EPERM. */
export function nativeReason(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('reason' in error)) return undefined
  return typeof error.reason === 'string' ? error.reason : undefined
}
