// What goes on without a daemon.

import type { DoctorCheck } from '../control/shapes.js'
import type { KeeperReport } from '../keeper/keeping.js'
import { ok, several, warn } from './finding.js'

const COST = 'open connections end when the daemon is killed, restarted or replaced'

/** @param tun name of the device */
export function checkKeeper(report: KeeperReport | undefined, tun: string): DoctorCheck {
  const name = 'keeper'
  if (report === undefined) return warn(name, 'the daemon is starting', 'try again')
  const { on, pid, held, descriptors, flows, takeovers, failedCommands, problem } = report
  if (!on) {
    const remedy = 'take `keeper.on` out of the configuration, then start the daemon again'
    return warn(name, `there is none, as \`keeper.on: false\` switches it off: ${COST}`, remedy)
  }
  if (pid === null) {
    const why = problem === undefined ? '' : ` (${problem})`
    return warn(name, `there is none${why}: ${COST}`, 'see the log of the daemon, which tries again every minute')
  }
  const who = `process ${pid}`
  if (problem !== undefined) {
    return warn(name, `${who} does not answer (${problem})`, `sudo kill ${pid}; the daemon starts another one`)
  }
  if (held !== descriptors) {
    const what = `${who} is stale: it holds ${several(held, 'descriptor')} of ${tun} instead of ${descriptors}`
    return warn(name, `${what}: ${COST}`, `sudo kill ${pid}; the daemon starts another one`)
  }
  if (!flows) {
    const what = `${who} holds ${tun}, but no tmpfs has room for the table of flows: ${COST}`
    return warn(name, what, 'make room in /dev/shm or /run, or lower `limits.flows`, then start the daemon again')
  }
  if (failedCommands > 0) {
    const what = `${who} holds ${tun}; of what it did while no daemon ran, ${several(failedCommands, 'command')} failed`
    return warn(name, what, 'look whether programs of this host find our names, and other names too')
  }
  const times = takeovers === 0 ? '' : `, which was taken over ${several(takeovers, 'time')}`
  return ok(name, `${who} holds ${tun}${times}`)
}
