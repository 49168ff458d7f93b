import { readdirSync, readFileSync } from 'node:fs'
import { setPriority } from 'node:os'

const HIGHEST = -20
/** USER_HZ is 100 wherever Linux runs Node. */
const TICK_US = 10_000
/** Words before those of a program that other programs of the machine are to disturb less; without the right to it, it runs like the rest. */
export const FIRST = ['nice', '-n', String(HIGHEST)] as const

export interface Used {
  /** Processor time, ns. */
  readonly time: number
  /** How often a thread was woken. */
  readonly wakes: number
}

/** What all threads of a process have used, as the scheduler has it. */
export function used(pid: number): Used {
  let [time, wakes] = [0, 0]
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    time += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    wakes += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1])
  }
  return { time, wakes }
}

/** As {@link FIRST}, of a process that runs: all threads that it has. */
export function putFirst(pid: number): void {
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      setPriority(Number(thread), HIGHEST)
    } catch {
      return
    }
  }
}

/** µs; clock ticks, so only of use for much. */
export function userAndSystem(pid: number): readonly [user: number, system: number] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return [Number(fields[11]) * TICK_US, Number(fields[12]) * TICK_US]
}
