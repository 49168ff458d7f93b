import type { DoctorCheck } from './control/shapes.js'
import type { Daemon } from './daemon.js'

/** Every check of `caracal doctor`, on a running daemon. */
export async function doctorChecks(_daemon: Daemon): Promise<DoctorCheck[]> {
  return []
}
