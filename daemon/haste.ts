// A thread that programs wait for goes before others of the machine, where this process may ask for that.

import { getPriority, setPriority } from 'node:os'

/** As the kernel counts: -20 goes first, 0 is usual. */
const HASTE = -10
/** The thread that calls; Linux counts by thread. */
const SELF = 0

/** Goes first from now on; the function that it returns ends that. */
export function hurry(): () => void {
  try {
    const usual = getPriority(SELF)
    if (usual <= HASTE) return () => undefined
    setPriority(SELF, HASTE)
    return () => setPriority(SELF, usual)
  } catch {
    // Without CAP_SYS_NICE it takes the time that it takes.
    return () => undefined
  }
}
