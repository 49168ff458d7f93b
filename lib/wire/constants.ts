// Every constant of the protocol. First part: the specification, which both ends must agree on.
// Second part: this implementation's own choices, which may differ from host to host.

// ---- Specification ----

export const PROTOCOL_VERSION = 1
/** Mixed into the Noise prologue together with the network ID. */
export const PROTOCOL_NAME = 'caracal/1'
export const NOISE_NAME = 'Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b'

/** First byte of every datagram. */
export const FrameType = { init: 1, response: 2, cookie: 3, join: 4, joined: 5, transport: 6, relay: 7 } as const
export type FrameType = (typeof FrameType)[keyof typeof FrameType]

/** Clear header of a transport frame: type 1, version 1, reserved 2, lane index 4 (LE), counter 8 (LE). It is the AAD. */
export const CLEAR_HEADER = 16
export const TAG_LENGTH = 16
/** Sealed header: flow ID 8 (slot u32 LE, generation u32 LE), kind|flags 1, traffic class 1, hop limit 1, IP protocol 1. */
export const INNER_HEADER = 12
export const INNER_KIND = 8
export const INNER_CLASS = 9
export const INNER_HOPS = 10
export const INNER_PROTOCOL = 11

/** Low four bits of the kind byte. */
export const Kind = {
  /** Nothing inside: keepalive, and the frame that proves an initiator alive. */
  empty: 0,
  /** A transport segment of an established flow: transport header without ports, payload. */
  data: 1,
  /** First packet of a flow: see lib/wire/open.ts. */
  open: 2,
  /** As data, preceded by the acceptor's flow ID (8); sent until the initiator uses that ID. */
  accept: 3,
  /** Answer to a frame whose flow is not here: see lib/wire/open.ts. */
  notHere: 4,
  /** The flow is over; the receiver resets its own kernel's connection when it is still open. */
  close: 5,
  /** An ICMP error about the flow: see lib/wire/open.ts. */
  icmpError: 6,
  /** A piece of a datagram too large for the path: see lib/flow/pieces.ts. */
  piece: 7,
  /** A control message: see lib/wire/control.ts. */
  control: 8,
  /** Path probe: token 16, flags 1 (0 where it is left out), with PROBE_HEARD milliseconds 2 (LE), padded. And its echo: token 16, where the probe came from (family 1: 4, 6, or 0 where it is left out; port 2; address 4 or 16), padded. */
  probe: 9,
  probeEcho: 10,
  /** Which of these flows are still there? And the answer. See lib/flow/confirmation.ts. */
  confirm: 11,
  confirmed: 12,
  /** The sender's addresses have changed, or the receipt of that: see lib/wire/move.ts. */
  move: 13,
} as const
export type Kind = (typeof Kind)[keyof typeof Kind]
/** High four bits of the kind byte. */
export const KindFlag = {
  /** The checksum field holds nothing: the receiver lets its kernel complete it. The tag protects the packet. */
  checksumPartial: 0x10,
  /** The checksum field covers all but addresses and ports ("family-free"): the receiver adds its own. Neither flag: as is (ICMP). */
  checksumFree: 0x20,
} as const

export const PROBE_TOKEN = 16
/** Flag of a probe: it goes the way that its sender's frames to the receiver go. */
export const PROBE_IN_USE = 1
/** And: it says how long ago its sender last heard the receiver by the way that it leaves for this one, which works. */
export const PROBE_HEARD = 2

export const Protocol = { icmp: 1, tcp: 6, udp: 17, icmp6: 58 } as const

/** Lane index: low 16 bits slot in the receiver's table, high 16 bits random. */
export const LANE_SLOT_BITS = 16
export const REPLAY_WINDOW = 8192
export const REKEY_AFTER_MS = 120_000
export const REKEY_AFTER_FRAMES = 2 ** 26
export const REJECT_AFTER_MS = 180_000
export const HANDSHAKE_RETRY_MS = 250
export const HANDSHAKE_GIVE_UP_MS = 5_000
/** A host that is restarted may ask its peers to hold what goes to it for so long. */
export const PAUSE_MAX_MS = 5_000
export const HANDSHAKES_PER_SECOND = 20
export const HANDSHAKE_BURST = 5

export const SERVICE_ID_LENGTH = 32
export const HOST_ID_LENGTH = 32
export const NETWORK_ID_LENGTH = 32
export const LABEL_LENGTH_MAX = 63
export const NAME_LENGTH_MAX = 200
/** Highest priority and weight of an instance. */
export const RANK_MAX = 65_535

// ---- Implementation ----

/** struct virtio_net_hdr in front of each packet of the TUN. */
export const VNET_HEADER = 10
export const PACKET_MAX = 65_535
/** UDP payload that one GSO send may carry, and the number of its segments. */
export const GSO_BYTES_MAX = 65_507
export const GSO_SEGMENTS_MAX = 64
/** Bytes in front of each opened packet that belong to it: room for vnet + IPv6 header + ports, less the inner header. */
export const HEADROOM = 64
export const UDP_PORT = 7474
export const TUN_MTU = 1420
/** Underlay MTU assumed until a path has been probed. */
export const PATH_MTU = 1500
/** Smallest datagram every path is expected to carry. */
export const PATH_MTU_MIN = 1280
/** Path MTU discovery, by the names of RFC 8899 section 5.1.2, as sizes of IP packets. */
export const MIN_PLPMTU_IPV4 = 576
export const MIN_PLPMTU_IPV6 = 1280
export const BASE_PLPMTU = 1280
export const MAX_PLPMTU = 9000
export const CONTROL_MESSAGE_MAX = 1100
/** Hosts that may join with one token, at most. */
export const TOKEN_USES_MAX = 1_000
