// Messages between a member and an issuer, over their session. Each is one control message.
//
//   stamp    member → issuer: stamp my claim of this name           → stamped or refused
//   renew    member → issuer: renew my membership                   → renewed or refused
//
// The number of a request comes back in its answer. Requests may be repeated: who has been given something is given the same again.

import { z } from 'zod'
import { CONTROL_MESSAGE_MAX, SERVICE_ID_LENGTH } from './constants.js'
import { fromHex, serviceId, type ServiceId } from './ids.js'
import { bytesOf, bytesUpTo, fields, pack, unpack, type Packable } from './pack.js'

export type IssuerRequest =
  | { readonly kind: 'stamp'; readonly request: number; readonly service: ServiceId }
  | { readonly kind: 'renew'; readonly request: number }

export type IssuerAnswer =
  | { readonly kind: 'stamped'; readonly request: number; /** lib/crypto/stamp.ts */ readonly stamp: Uint8Array }
  | { readonly kind: 'renewed'; readonly request: number; readonly membership: Uint8Array }
  | {
      readonly kind: 'refused'
      readonly request: number
      readonly reason: RefusalReason
      /** One sentence for people, without a full stop. */
      readonly detail: string
    }

export type IssuerMessage = IssuerRequest | IssuerAnswer

/** The position is the number on the wire; append only. */
const reasons = [
  /** For reasons of later versions. */
  'other',
  'not-issuer',
  'not-member',
  /** The issuer does not know yet what others have claimed. */
  'not-synced',
  /** Another host was first. */
  'claimed',
  /** Asked too often, or no room. */
  'busy',
  /** Most of the membership is still left. */
  'too-early',
  /** It has a tag that this issuer may not give, or the issuer's own certificate ends before. */
  'not-entitled',
] as const
export type RefusalReason = (typeof reasons)[number]

const VERSION = 1
const Type = { stamp: 1, renew: 2, stamped: 3, renewed: 4, refused: 5 } as const
const DETAIL_MAX = 200
const BYTES_MAX = 1_000

const request = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const bytes = bytesUpTo(BYTES_MAX, 1)
const version = z.literal(VERSION)
const shape = z.union([
  fields([version, z.literal(Type.stamp), request, bytesOf(SERVICE_ID_LENGTH)]),
  fields([version, z.literal(Type.renew), request]),
  fields([version, z.literal(Type.stamped), request, bytes]),
  fields([version, z.literal(Type.renewed), request, bytes]),
  fields([version, z.literal(Type.refused), request, z.number().int().min(0).max(255), z.string().max(DETAIL_MAX)]),
])

/** Throws RangeError for a message that does not fit into a control message. */
export function encodeIssuerMessage(message: IssuerMessage): Uint8Array {
  const packed = pack([VERSION, Type[message.kind], message.request, ...contentOf(message)])
  if (packed.length > CONTROL_MESSAGE_MAX) throw new RangeError(`${message.kind} of ${packed.length} bytes`)
  return packed
}

function contentOf(message: IssuerMessage): Packable[] {
  switch (message.kind) {
    case 'stamp':
      return [fromHex(message.service)]
    case 'renew':
      return []
    case 'stamped':
      return [message.stamp]
    case 'renewed':
      return [message.membership]
    case 'refused':
      return [reasons.indexOf(message.reason), message.detail.slice(0, DETAIL_MAX)]
  }
}

/** Total: undefined for anything that is no message of this version. Signatures are not checked here. */
export function decodeIssuerMessage(message: Uint8Array): IssuerMessage | undefined {
  const parsed = unpack(message, CONTROL_MESSAGE_MAX, shape)
  if (parsed === undefined) return undefined
  switch (parsed[1]) {
    case Type.stamp:
      return { kind: 'stamp', request: parsed[2], service: serviceId(parsed[3]) }
    case Type.renew:
      return { kind: 'renew', request: parsed[2] }
    case Type.stamped:
      return { kind: 'stamped', request: parsed[2], stamp: parsed[3] }
    case Type.renewed:
      return { kind: 'renewed', request: parsed[2], membership: parsed[3] }
    case Type.refused:
      return { kind: 'refused', request: parsed[2], reason: reasons[parsed[3]] ?? 'other', detail: parsed[4] }
  }
}
