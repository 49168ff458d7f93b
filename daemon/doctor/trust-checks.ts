// The clock and what depends on it.

import { checkValidity, wallText, type Validity } from '../../lib/crypto/validity.js'
import type { DoctorCheck } from '../control/shapes.js'
import { rejoin } from '../identity.js'
import { fail, ok, warn } from './finding.js'

export interface TrustInputs {
  /** Seconds since the epoch, as this host's clock says. */
  readonly wallNow: number
  /** Wall time known to have passed (TrustStore), seconds since the epoch. */
  readonly wallFloor: number
  readonly skewSeconds: number
  /** This host's own. */
  readonly membership: Validity
  /** When and by whom this host was revoked; undefined: it was not. */
  readonly revoked?: string | undefined
}

const SOON_SECONDS = 14 * 86_400
const setClock = "set this host's clock: sudo timedatectl set-ntp true"

export function checkClock({ wallNow, wallFloor, skewSeconds, membership }: TrustInputs): DoctorCheck {
  const name = 'clock'
  const now = wallText(Math.floor(wallNow))
  if (wallNow < wallFloor - skewSeconds) {
    const detail = `${now} is before ${wallText(wallFloor)}, which it was already: the later one is used for certificates`
    return warn(name, detail, setClock)
  }
  if (wallNow < membership.notBefore - skewSeconds) {
    const detail = `${now} is before this host became a member (${wallText(membership.notBefore)})`
    return fail(name, `${detail}: no host believes the other`, setClock)
  }
  return ok(name, now)
}

export function checkMembership(inputs: TrustInputs): DoctorCheck {
  const { wallNow, wallFloor, skewSeconds, membership, revoked } = inputs
  const name = 'membership'
  if (revoked !== undefined) return fail(name, `this host was revoked: ${revoked}`, rejoin)
  const now = Math.max(Math.floor(wallNow), wallFloor)
  const problem = checkValidity("this host's membership", membership, now, skewSeconds)
  if (problem !== undefined) {
    const remedy = problem.problem === 'expired' ? `if this host's clock is right, ${rejoin}` : setClock
    return fail(name, `${problem.detail}: other hosts refuse this one`, remedy)
  }
  const rest = membership.notAfter - now
  const soon = Math.min(SOON_SECONDS, (membership.notAfter - membership.notBefore) / 10)
  const until = `until ${wallText(membership.notAfter)}`
  if (rest < soon) {
    const detail = `only ${until}, ${span(rest)} from now; no issuer has renewed it, and then other hosts refuse this one`
    return warn(name, detail, `let the issuer run, see \`caracal hosts\`; or ${rejoin}`)
  }
  return ok(name, until)
}

function span(seconds: number): string {
  if (seconds <= 0) return 'no time'
  if (seconds < 7_200) return `${Math.ceil(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} days`
}
