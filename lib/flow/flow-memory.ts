// What a process leaves of its flows to the next one, in memory that outlives it: a header, the flow table, and what the numbers in its rows stand for.
//
//   header 64 B │ rows, index (flow-table.ts) │ host IDs by peer index │ service IDs by number
//
// The table itself lies there, so nothing is written twice, and a process that is killed loses nothing. What another version, layout, size or host has left is not read: the table
// begins empty, and says why. Time in rows is that of the machine's monotonic clock, which all processes of one boot share.

import { fromHex, type HostId } from '../wire/ids.js'
import type { Generations } from './flow-id.js'
import { Count, FlowFlag, FlowState, FlowTable, ROW_WORDS, Row } from './flow-table.js'
import { mixed, SavedNames } from './saved-names.js'

const MAGIC = 0x776c6663
/** Raised with every change of what the words of a row mean that their positions do not tell. */
const VERSION = 1
const HEADER_WORDS = 16
const Header = { magic: 0, version: 1, layout: 2, flows: 3, peers: 4, services: 5, owner: 6, checksum: 14 } as const
const OWNER_WORDS = 8
/** Services that flows may refer to and be restored. */
const SERVICES_MAX = 65_536

export interface FlowMemoryShape {
  readonly flows: number
  readonly peers: number
  /** Whose flows they are. */
  readonly host: HostId
}

export class FlowMemory {
  readonly table: FlowTable
  readonly peers: SavedNames
  readonly services: SavedNames
  readonly #buffer: ArrayBufferLike
  readonly #shape: FlowMemoryShape
  #found: 'rows' | string | undefined

  /** Bytes that a table of so many flows, with so many peers, takes. */
  static bytesFor(flows: number, peers: number): number {
    return namesAt(flows) + SavedNames.bytesFor(peers) + SavedNames.bytesFor(servicesFor(flows))
  }

  /**
   * Lies in `buffer`, of at least `bytesFor` bytes; throws RangeError when it has not so many. It may be another process's still: nothing in it is read or written before {@link open}.
   */
  constructor(buffer: ArrayBufferLike, shape: FlowMemoryShape, generations: Generations) {
    const { flows, peers } = shape
    this.#buffer = buffer
    this.#shape = shape
    this.table = new FlowTable(buffer, flows, generations, 4 * HEADER_WORDS)
    if (buffer.byteLength < FlowMemory.bytesFor(flows, peers)) throw new RangeError('flow memory too small')
    const at = namesAt(flows)
    this.peers = new SavedNames(buffer, at, peers)
    this.services = new SavedNames(buffer, at + SavedNames.bytesFor(peers), servicesFor(flows))
  }

  /** Whether there are rows of a former process, or why not; undefined: the memory was said to be new. */
  get found(): 'rows' | string | undefined {
    return this.#found
  }

  /** The memory is this process's from now on. Once, before anything else. `restore`: it is what a former process has left, if it fits; else it must be zeroed. */
  open(restore: boolean): void {
    const header = new Int32Array(this.#buffer, 0, HEADER_WORDS)
    const wanted = headerOf(this.#shape)
    const misfit = restore ? misfitOf(header, wanted) : undefined
    this.#found = restore ? (misfit ?? 'rows') : undefined
    if (misfit !== undefined) new Uint8Array(this.#buffer).fill(0)
    if (this.#found === 'rows') return
    if (misfit !== undefined) this.table.rebuild(() => false)
    // The magic number last: what is not whole is no header.
    header.set(wanted.subarray(1), 1)
    header[Header.magic] = MAGIC
  }
}

function servicesFor(flows: number): number {
  return Math.min(flows, SERVICES_MAX)
}

function namesAt(flows: number): number {
  return 4 * HEADER_WORDS + FlowTable.bytesFor(flows)
}

function headerOf({ flows, peers, host }: FlowMemoryShape): Int32Array {
  const header = new Int32Array(HEADER_WORDS)
  header[Header.magic] = MAGIC
  header[Header.version] = VERSION
  header[Header.layout] = layoutHash()
  header[Header.flows] = flows
  header[Header.peers] = peers
  header[Header.services] = servicesFor(flows)
  new Uint8Array(header.buffer, 4 * Header.owner).set(fromHex(host).subarray(0, 4 * OWNER_WORDS))
  let sum = 0
  for (let i = 0; i < Header.checksum; i++) sum = mixed(sum, header[i]!)
  header[Header.checksum] = sum
  return header
}

/** Why what is there is not what is wanted, as a clause; undefined: it is. */
function misfitOf(found: Int32Array, wanted: Int32Array): string | undefined {
  const differs = (field: number) => found[field] !== wanted[field]
  if (differs(Header.magic)) return 'there is no flow table'
  if (differs(Header.version) || differs(Header.layout)) return 'another version wrote it'
  if (differs(Header.flows) || differs(Header.peers) || differs(Header.services)) return 'it is of another size'
  for (let i = 0; i < OWNER_WORDS; i++) if (differs(Header.owner + i)) return 'another host wrote it'
  return differs(Header.checksum) ? 'its header is damaged' : undefined
}

/** Changes whenever a word of a row, or what is written into it, has another place or number. */
function layoutHash(): number {
  let sum = mixed(ROW_WORDS, HEADER_WORDS)
  for (const part of [Row, Count, FlowState, FlowFlag]) {
    for (const [name, value] of Object.entries(part)) {
      for (const char of name) sum = mixed(sum, char.charCodeAt(0))
      sum = mixed(sum, value)
    }
  }
  return sum
}
