/** What the flow layer has done since its start; drops are counted by the environment, by reason. */
export class FlowCounters {
  /** Flows this host's programs began, and those begun towards its services. */
  opened = 0
  accepted = 0
  /** Candidates asked after the first one: refused or silent ones before them. */
  retried = 0
  hedged = 0
  /** Candidates asked because another one's hint named them, and those asked again because they were loading. */
  followed = 0
  askedAgain = 0
  refused = 0
  reset = 0
  closed = 0
  aged = 0
  /** Packets from and to the own kernel that belonged to a flow; a super-packet counts once. */
  packetsOut = 0
  packetsIn = 0
  bytesOut = 0
  bytesIn = 0
  /** Frames of peers that became a packet of the own kernel, or a part of one; and those that were told to this host only. */
  framesDelivered = 0
  framesTaken = 0
  tooBig = 0
  piecesOut = 0
  notHereSent = 0
  notHereReceived = 0
  clashes = 0
  /** Packets and frames that had to wait for a way to their peer, and those of them that went on, maybe to wait again; the others are dropped, by reason. */
  held = 0
  heldSent = 0
  /** Flows whose waiting kernel was told to go on: see reunion.ts. */
  hastened = 0
  /** ICMP errors in answer to a SYN that were told once only, as there were too many. */
  refusalsOnce = 0
}
