// Questions between neighbours: who knows instances of this service? They go from host to host, a few hops; answers come back the way the question went.

import { z } from 'zod'
import { SERVICE_ID_LENGTH } from './constants.js'
import { fromHex, serviceId, type ServiceId } from './ids.js'
import { HINT_MAX } from './open.js'
import { bytesOf, bytesUpTo, fields, pack, unpack } from './pack.js'

export const QUERY_ID_LENGTH = 8
/** Hosts that a question may pass, the first one asked included. */
export const QUERY_HOPS_MAX = 4

export interface Question {
  readonly kind: 'question'
  /** Random, of the host that asks first. */
  readonly id: Uint8Array
  readonly service: ServiceId
  /** As in IP (echo: 1), and the port as dialled. */
  readonly protocol: number
  readonly port: number
  /** 1..QUERY_HOPS_MAX; 1: not to be passed on. */
  readonly hops: number
}

export interface QueryAnswer {
  readonly kind: 'answer'
  readonly id: Uint8Array
  /** See lib/path/hint.ts. */
  readonly hint: Uint8Array
}

export type QueryMessage = Question | QueryAnswer

const VERSION = 1
const kinds = { question: 0, answer: 1 } as const
const MESSAGE_MAX = HINT_MAX + 128
const id = bytesOf(QUERY_ID_LENGTH)
const questionShape = fields([
  z.literal(VERSION),
  z.literal(kinds.question),
  id,
  bytesOf(SERVICE_ID_LENGTH),
  z.number().int().min(0).max(255),
  z.number().int().min(0).max(65_535),
  z.number().int().min(1).max(QUERY_HOPS_MAX),
])
const answerShape = fields([z.literal(VERSION), z.literal(kinds.answer), id, bytesUpTo(HINT_MAX)])
const messageShape = z.union([questionShape, answerShape])

export function encodeQuery(message: QueryMessage): Uint8Array {
  if (message.kind === 'answer') return pack([VERSION, kinds.answer, message.id, message.hint])
  const { service, protocol, port, hops } = message
  return pack([VERSION, kinds.question, message.id, fromHex(service), protocol, port, hops])
}

/** Total: undefined for anything that is no message of this version. */
export function decodeQuery(bytes: Uint8Array): QueryMessage | undefined {
  const message = unpack(bytes, MESSAGE_MAX, messageShape)
  if (message === undefined) return undefined
  if (message[1] === kinds.answer) return { kind: 'answer', id: message[2], hint: message[3] }
  const [, , , service, protocol, port, hops] = message
  return { kind: 'question', id: message[2], service: serviceId(service), protocol, port, hops }
}
