/** How often, and how patiently, paths are probed. All ms. */
export interface ProberOptions {
  /** Between probes of a peer that has flows or binds. */
  readonly activeIntervalMs: number
  /** A peer with flows or binds whose frames stop coming is probed after this and a quarter of a round trip. */
  readonly quietMs: number
  /** Between probes of an idle peer, at most: each wait is shorter by up to the share `idleJitter`, at random, so that a host's peers do not all look at it at the same moment. */
  readonly idleIntervalMs: number
  readonly idleJitter: number
  /** Between probes of a path beside the one in use, to a peer that has flows or binds, or ten round trips; and to an idle one. */
  readonly standbyActiveMs: number
  readonly standbyIdleMs: number
  /** A peer counts as active this long after its last flow or bind. */
  readonly activeForMs: number
  /** How long a probe is unanswered, with two round trips, until the peer is doubtful, and until it is dead; others follow the first ever since it was overdue. */
  readonly doubtfulAfterMs: number
  readonly deadAfterMs: number
  /** Paths remembered per peer. */
  readonly pathsMax: number
}

export const proberDefaults: ProberOptions = {
  activeIntervalMs: 200,
  quietMs: 50,
  idleIntervalMs: 15_000,
  idleJitter: 0.3,
  standbyActiveMs: 1_500,
  standbyIdleMs: 60_000,
  activeForMs: 60_000,
  doubtfulAfterMs: 300,
  deadAfterMs: 700,
  pathsMax: 8,
}
