// ICMP (RFC 792) and ICMPv6 (RFC 4443): types, and the table between their errors and ours, which know no family.

export const ICMP_HEADER = 8
export const IcmpType = { echoReply: 0, unreachable: 3, echoRequest: 8, timeExceeded: 11 } as const
export const Icmp6Type = {
  unreachable: 1,
  tooBig: 2,
  timeExceeded: 3,
  parameterProblem: 4,
  echoRequest: 128,
  echoReply: 129,
} as const

/** ICMP errors independent of family, as they stand in frames. Append only. */
export const IcmpKind = {
  portUnreachable: 1,
  /** IPv4 host unreachable, IPv6 no route: RFC 7915 translates one to the other. */
  hostUnreachable: 2,
  networkUnreachable: 3,
  /** IPv6 address unreachable. */
  addressUnreachable: 4,
  prohibited: 5,
  protocolUnreachable: 6,
  /** Has an MTU. */
  tooBig: 7,
  hopLimit: 8,
  reassemblyTime: 9,
} as const
export type IcmpKind = (typeof IcmpKind)[keyof typeof IcmpKind]

/** Type and code of a kind: [IPv4 type, code, IPv6 type, code], after RFC 7915 sections 4.2 and 5.2. */
const codes: ReadonlyMap<number, readonly [number, number, number, number]> = new Map([
  [IcmpKind.portUnreachable, [3, 3, 1, 4]],
  [IcmpKind.hostUnreachable, [3, 1, 1, 0]],
  [IcmpKind.networkUnreachable, [3, 0, 1, 0]],
  [IcmpKind.addressUnreachable, [3, 1, 1, 3]],
  [IcmpKind.prohibited, [3, 10, 1, 1]],
  [IcmpKind.protocolUnreachable, [3, 2, 4, 1]],
  [IcmpKind.tooBig, [3, 4, 2, 0]],
  [IcmpKind.hopLimit, [11, 0, 3, 0]],
  [IcmpKind.reassemblyTime, [11, 1, 3, 1]],
])

/** Whether a number from a frame is a kind that we know. */
export function isIcmpKind(value: number): value is IcmpKind {
  return codes.has(value)
}

/** [IPv4 type, code, IPv6 type, code] of a kind; undefined: not a kind. */
export function icmpCodes(kind: number): readonly [number, number, number, number] | undefined {
  return codes.get(kind)
}

/** The kind of an ICMPv4 error; undefined: not carried (RFC 7915 section 4.2 drops it too, or it points into a header we do not carry). */
export function icmp4Kind(type: number, code: number): IcmpKind | undefined {
  if (type === IcmpType.timeExceeded) {
    return code === 0 ? IcmpKind.hopLimit : code === 1 ? IcmpKind.reassemblyTime : undefined
  }
  if (type !== IcmpType.unreachable) return undefined
  switch (code) {
    case 0:
    case 6:
    case 11:
      return IcmpKind.networkUnreachable
    case 1:
    case 5:
    case 7:
    case 8:
    case 12:
      return IcmpKind.hostUnreachable
    case 2:
      return IcmpKind.protocolUnreachable
    case 3:
      return IcmpKind.portUnreachable
    case 4:
      return IcmpKind.tooBig
    case 9:
    case 10:
    case 13:
    case 15:
      return IcmpKind.prohibited
    default:
      return undefined
  }
}

/** The kind of an ICMPv6 error; undefined: not carried (RFC 7915 section 5.2). */
export function icmp6Kind(type: number, code: number): IcmpKind | undefined {
  switch (type) {
    case Icmp6Type.unreachable:
      switch (code) {
        case 0:
        case 2:
          return IcmpKind.hostUnreachable
        case 3:
          return IcmpKind.addressUnreachable
        case 4:
          return IcmpKind.portUnreachable
        // RFC 4443 section 3.1: codes 5 and 6 are special cases of 1.
        case 1:
        case 5:
        case 6:
          return IcmpKind.prohibited
        default:
          return undefined
      }
    case Icmp6Type.tooBig:
      return IcmpKind.tooBig
    case Icmp6Type.timeExceeded:
      return code === 0 ? IcmpKind.hopLimit : code === 1 ? IcmpKind.reassemblyTime : undefined
    case Icmp6Type.parameterProblem:
      return code === 1 ? IcmpKind.protocolUnreachable : undefined
    default:
      return undefined
  }
}
