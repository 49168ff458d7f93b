import { z } from 'zod'

/** A span of wall time, seconds since the epoch, both ends included. */
export interface Validity {
  readonly notBefore: number
  readonly notAfter: number
}

/** How far two hosts' clocks may differ. */
export const SKEW_SECONDS = 300

/** Up to the year 9999, so that every time has a text. */
export const WALL_MAX = 253_402_300_799
export const WallSeconds = z.number().int().min(0).max(WALL_MAX)

/** `2026-01-02T03:04:05Z` */
export function wallText(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`
}

export interface ValidityProblem {
  readonly problem: 'not-yet-valid' | 'expired'
  /** Says both times, so that a wrong clock shows. */
  readonly detail: string
}

/** undefined: valid, or past its end by no more than the grace. `what` begins the text. */
export function checkValidity(
  what: string,
  validity: Validity,
  wallNow: number,
  skewSeconds: number,
  graceSeconds = 0,
): ValidityProblem | undefined {
  const clock = () => `this host's clock says ${wallText(wallNow)}`
  if (wallNow < validity.notBefore - skewSeconds)
    return {
      problem: 'not-yet-valid',
      detail: `${what} is not valid before ${wallText(validity.notBefore)} (${clock()})`,
    }
  if (wallNow > validity.notAfter + skewSeconds + graceSeconds)
    return { problem: 'expired', detail: `${what} expired at ${wallText(validity.notAfter)} (${clock()})` }
  return undefined
}
