import { native } from './native.js'

/**
 * Zeroed memory for a table that is read at random, on large pages where the system has them (transparent huge pages, `always` or `madvise`): a read of a table of many megabytes
 * then waits for the memory, and not for the page tables on top. Pages are taken as they are touched.
 */
export function tableMemory(bytes: number): ArrayBuffer {
  const memory = new ArrayBuffer(bytes)
  native().adviseHugePages(new Uint8Array(memory))
  return memory
}
