/** Limits and times of the flow layer. Milliseconds unless the name says otherwise. */
export interface FlowOptions {
  /** Candidates asked at the same time for one flow, at most 8. */
  readonly attemptsMax: number
  /** A doubtful candidate gets this long before the next one is asked too. */
  readonly hedgeAfter: number
  /** Silence of a candidate before the next one is asked: 4 round trips plus this, within the two bounds below. */
  readonly silenceBase: number
  readonly silenceMin: number
  readonly silenceMax: number
  /** Openings under way at the same time. */
  readonly openingsMax: number
  /** An opening that nobody answered is given up. */
  readonly openingTimeout: number
  /** When one candidate refused and the others have been silent for this long, the client is shown the refusal. */
  readonly silenceFinal: number
  /** An acceptor's flow that its server has not answered. */
  readonly halfOpenTimeout: number
  /** An acceptor's TCP flow whose server has answered and whose client has not. */
  readonly unconfirmedTimeout: number
  /** Half-open flows that one peer may have here. */
  readonly halfOpenPerPeer: number
  /** Part of the table that flows begun by one peer may take. */
  readonly acceptedShare: number
  /** Bytes of what waits for a way to its peer, per peer and in all, with what it takes to keep it, and how long it may. */
  readonly waitingBytes: number
  readonly waitingBytesTotal: number
  readonly waitingTimeout: number
  /** First packets held by DELAY rules, and for how long. */
  readonly heldPackets: number
  readonly heldBytes: number
  readonly heldTimeout: number
  /** A candidate that is loading is asked again after this time, then after twice as long, up to the second; given up after `heldTimeout`. */
  readonly againMin: number
  readonly againMax: number
  /** Candidates that hints may lead to one after the other, and in all for one flow. */
  readonly hopsMax: number
  readonly followedMax: number
  /** After both FINs: longer than Linux keeps a port in TIME-WAIT, 60 s and an eighth for its timers' grain, because its port is taken meanwhile. After a reset. */
  readonly lingerFin: number
  readonly lingerReset: number
  readonly udpIdle: number
  readonly echoIdle: number
  /** Idle TCP: the other end is asked this often, and the flow ends when nothing confirmed it for `tcpUnconfirmed`. */
  readonly tcpConfirmEvery: number
  readonly tcpUnconfirmed: number
  /** How long, and for how many, the choice of an idle UDP or echo flow is remembered. */
  readonly affinityTimeout: number
  readonly affinityMax: number
  /** NOT-HERE, resets and other answers to packets that fit nothing: per second and in a burst. */
  readonly answersPerSecond: number
  readonly answersBurst: number
}

export const defaultFlowOptions: FlowOptions = {
  attemptsMax: 3,
  hedgeAfter: 60,
  silenceBase: 50,
  silenceMin: 60,
  silenceMax: 300,
  openingsMax: 65_536,
  openingTimeout: 30_000,
  silenceFinal: 3_000,
  halfOpenTimeout: 30_000,
  unconfirmedTimeout: 120_000,
  halfOpenPerPeer: 16_384,
  acceptedShare: 0.5,
  waitingBytes: 2 * 1024 * 1024,
  waitingBytesTotal: 32 * 1024 * 1024,
  waitingTimeout: 5_000,
  heldPackets: 256,
  heldBytes: 512 * 1024,
  heldTimeout: 3_000,
  againMin: 100,
  againMax: 800,
  hopsMax: 8,
  followedMax: 16,
  lingerFin: 70_000,
  lingerReset: 5_000,
  udpIdle: 300_000,
  echoIdle: 30_000,
  tcpConfirmEvery: 600_000,
  tcpUnconfirmed: (2 * 60 + 4) * 60_000,
  affinityTimeout: 3_600_000,
  affinityMax: 65_536,
  answersPerSecond: 1000,
  answersBurst: 200,
}
