import { readFileSync } from 'node:fs'

/** Whether a process runs. One that has ended may stay in the list of processes until its parent has asked for it: it does not. */
export function runs(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
