import { createHash } from 'node:crypto'
import { statSync, unlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { messageOf, systemCode } from '../errors.js'
import { native, nativeReason } from '../native.js'

/** Where a tmpfs is that a daemon may write to: the first that has room. */
function folders(): string[] {
  const runtime = process.env.XDG_RUNTIME_DIR
  return ['/dev/shm', ...(runtime === undefined || runtime === '' ? [] : [runtime]), '/run']
}

/**
 * Memory of the flow table that outlives the process: a file on a tmpfs, mapped. What the daemon writes is there for the next one, whatever ends it; nothing is written twice, and nothing to a disk. Its room
 * is taken at once, so that none is missing later. No key is ever in it.
 */
export class FlowFile {
  readonly #inode: number

  private constructor(
    readonly path: string,
    readonly memory: ArrayBuffer,
    /** It is what another process has left; else it is zeroed. */
    readonly kept: boolean,
  ) {
    this.#inode = statSync(path).ino
  }

  /** What another process has there with this size, and may still write to: the memory is only to be looked at until that has ended. undefined: there is none. */
  static peek(owner: string, bytes: number): FlowFile | undefined {
    const path = pathsOf(owner).find((path) => statSync(path, { throwIfNoEntry: false })?.size === bytes)
    return path === undefined ? undefined : FlowFile.#map(path, bytes, true)
  }

  static #map(path: string, bytes: number, keep: boolean): FlowFile {
    const { memory, kept } = native().mapFile(path, bytes, keep)
    // Large pages, where the system gives them to a tmpfs.
    native().adviseHugePages(new Uint8Array(memory))
    return new FlowFile(path, memory, kept)
  }

  /**
   * @param owner whose flows they are: network and host
   * @param keep what is there already with this size is taken as it is
   * @param failed a folder could not be used, why, and what helps
   * @returns undefined: there is no tmpfs for it
   */
  static open(owner: string, bytes: number, keep: boolean, failed: (why: string) => void): FlowFile | undefined {
    const paths = pathsOf(owner)
    // One that is there goes before one that could be made.
    const there = paths.filter((path) => statSync(path, { throwIfNoEntry: false }) !== undefined)
    for (const path of new Set([...there, ...paths])) {
      try {
        return FlowFile.#map(path, bytes, keep)
      } catch (error) {
        failed(messageOf(error) + remedyOf(error, path, bytes))
        remove(path)
      }
    }
    return undefined
  }

  /** Removes what a daemon with other settings has left. */
  static forget(owner: string): void {
    for (const path of pathsOf(owner)) remove(path)
  }

  /** Whether the memory is still that of the file. */
  get isThere(): boolean {
    return statSync(this.path, { throwIfNoEntry: false })?.ino === this.#inode
  }

  /** The memory stays until this process ends. */
  remove(): void {
    remove(this.path)
  }
}

/** Where the flows of that owner may be. */
function pathsOf(owner: string): string[] {
  return folders().map((folder) => join(folder, nameOf(owner)))
}

function nameOf(owner: string): string {
  return `caracal-flows-${createHash('sha256').update(owner).digest('hex').slice(0, 32)}`
}

/** What helps; empty: nothing is known. */
function remedyOf(error: unknown, path: string, bytes: number): string {
  if (nativeReason(error) !== 'ENOSPC') return ''
  return `: make ${Math.ceil(bytes / 2 ** 20)} MiB free in ${dirname(path)}, or set limits.flows lower, and start the daemon again`
}

function remove(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    // Somebody else's is not ours to remove.
    if (!['ENOENT', 'EPERM', 'EACCES', 'ENOTDIR'].includes(systemCode(error) ?? '')) throw error
  }
}
