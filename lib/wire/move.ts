// What a host tells its peers when its addresses change: one message a peer moves all flows. Inside a frame of Kind.move.
//
//   MOVE          [version, 0, host ID 32, sequence, [[address 4 or 16, port, standing]…]]     packed
//   its receipt   [version, 1, sequence]

import { z } from 'zod'
import { HOST_ID_LENGTH } from './constants.js'
import { fromHex, hostId, type HostId } from './ids.js'
import { bytesOf, fields, pack, unpack } from './pack.js'

export const standings = ['usable', 'deprecated', 'gone'] as const
/** Of an address: in use, about to go, gone. */
export type Standing = (typeof standings)[number]

export interface MovedAddress {
  /** 4 or 16 bytes, network order. */
  readonly address: Uint8Array
  readonly port: number
  readonly standing: Standing
}

export type MoveMessage =
  | {
      readonly kind: 'move'
      /** Whose addresses these are: nobody moves another host. */
      readonly host: HostId
      /** Above all that the host has sent before; lower ones are old. */
      readonly sequence: number
      /** Best first. */
      readonly addresses: readonly MovedAddress[]
    }
  | { readonly kind: 'receipt'; readonly sequence: number }

export const MOVE_ADDRESSES_MAX = 16
const VERSION = 1
const LENGTH_MAX = 1_024
/** Behind a byte for the array and one for the version. */
const KIND_AT = 2
const sequence = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const addressShape = fields([
  z.union([bytesOf(4), bytesOf(16)]),
  z.number().int().min(1).max(65_535),
  z.number().int().min(0),
])
const moveShape = fields([
  z.literal(VERSION),
  z.literal(0),
  bytesOf(HOST_ID_LENGTH),
  sequence,
  z.array(addressShape).max(MOVE_ADDRESSES_MAX),
])
const receiptShape = fields([z.literal(VERSION), z.literal(1), sequence])
const shape = z.union([moveShape, receiptShape])

/** Addresses beyond MOVE_ADDRESSES_MAX are left out. */
export function encodeMove(message: MoveMessage): Uint8Array {
  if (message.kind === 'receipt') return pack([VERSION, 1, message.sequence])
  const { host, sequence, addresses } = message
  return pack([
    VERSION,
    0,
    fromHex(host),
    sequence,
    addresses
      .slice(0, MOVE_ADDRESSES_MAX)
      .map(({ address, port, standing }) => [address, port, standings.indexOf(standing)]),
  ])
}

/** Whether a packed message is a receipt, if it is any good. */
export function isReceipt(bytes: Uint8Array): boolean {
  return bytes[KIND_AT] === 1
}

/** Total: undefined for anything that is no message of this version. Addresses of a standing that a later version knows are left out. */
export function decodeMove(bytes: Uint8Array): MoveMessage | undefined {
  const parsed = unpack(bytes, LENGTH_MAX, shape)
  if (parsed === undefined) return undefined
  if (parsed[1] === 1) return { kind: 'receipt', sequence: parsed[2] }
  const [, , host, sequence, list] = parsed
  const addresses = list.flatMap(([address, port, number]) => {
    const standing = standings[number]
    return standing === undefined ? [] : { address, port, standing }
  })
  return { kind: 'move', host: hostId(host), sequence, addresses }
}
