import { GRACE_SECONDS, MEMBERSHIP_SECONDS } from '../crypto/membership.js'

export interface IssuingOptions {
  /** Validity of memberships that are renewed here. */
  readonly membershipSeconds: number
  /** Validity of this host's own issuer certificate, where the authority's key is here. */
  readonly certificateSeconds: number
  /** How long what is open goes on after a membership has expired. */
  readonly graceSeconds: number
  /** Between looks for hosts whose grace is over. */
  readonly graceLookMs: number
  /** An issuer that has not answered after this is asked no more for a while. */
  readonly answerWithinMs: number
  readonly avoidMs: number
  readonly stampRetryMinMs: number
  readonly stampRetryMaxMs: number
  /** From the start until it is looked for the first time whether anything is to be renewed: sessions come up meanwhile. */
  readonly firstLookMs: number
  /** Between requests to renew, and when less than `urgentSeconds` are left. */
  readonly renewRetryMs: number
  readonly renewUrgentMs: number
  readonly urgentSeconds: number
  /** Between looks at the clock for what is to be renewed, at most. */
  readonly lookMs: number
  /** How long an issuer remembers who claimed a name first, after the claim has expired. */
  readonly rememberMs: number
}

export const issuingDefaults: IssuingOptions = {
  membershipSeconds: MEMBERSHIP_SECONDS,
  certificateSeconds: 20 * MEMBERSHIP_SECONDS,
  graceSeconds: GRACE_SECONDS,
  graceLookMs: 60_000,
  answerWithinMs: 5_000,
  avoidMs: 60_000,
  stampRetryMinMs: 1_000,
  stampRetryMaxMs: 3_600_000,
  firstLookMs: 10_000,
  renewRetryMs: 86_400_000,
  renewUrgentMs: 3_600_000,
  urgentSeconds: 14 * 86_400,
  lookMs: 3_600_000,
  rememberMs: 86_400_000,
}
