import { DIGEST_BYTES, DIGEST_GROUPS } from '../wire/directory-message.js'
import type { HostId } from '../wire/ids.js'

/** One 64-bit hash for each group of hosts over (host, version of its records), kept up to date by exclusive or: order does not matter, changes cost nothing. */
export class DirectoryDigest {
  readonly #words = new Uint32Array(DIGEST_GROUPS * 2)

  /** Group of a host: the first six bits of its ID. */
  static group(host: HostId): number {
    return Number.parseInt(host.slice(0, 2), 16) >> 2
  }

  /** The version of the host's records (HostRecords.version) has changed; 0: not there. */
  change(host: HostId, from: number, to: number): void {
    this.#toggle(host, from)
    this.#toggle(host, to)
  }

  bytes(): Uint8Array {
    const bytes = new Uint8Array(DIGEST_BYTES)
    const view = new DataView(bytes.buffer)
    this.#words.forEach((word, i) => view.setUint32(4 * i, word))
    return bytes
  }

  /** Groups in which another's digest differs. */
  differing(other: Uint8Array): Set<number> {
    const view = new DataView(other.buffer, other.byteOffset, other.byteLength)
    const groups = new Set<number>()
    this.#words.forEach((word, i) => {
      if (view.getUint32(4 * i) !== word) groups.add(i >> 1)
    })
    return groups
  }

  #toggle(host: HostId, version: number): void {
    if (version === 0) return
    const at = 2 * DirectoryDigest.group(host)
    const low = version >>> 0
    const high = Math.floor(version / 2 ** 32)
    const a = Number.parseInt(host.slice(2, 10), 16)
    const b = Number.parseInt(host.slice(10, 18), 16)
    this.#words[at]! ^= mix(mix(a ^ low) ^ high)
    this.#words[at + 1]! ^= mix(mix(b ^ high) ^ Math.imul(low, 0x9e3779b1))
  }
}

function mix(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35)
  return word ^ (word >>> 16)
}
