// Packed values: the encoding of the control plane's small structured things (certificates, records, control messages). MessagePack restricted to
// null, booleans, numbers, strings, byte arrays, arrays and maps with string keys; the schema then says what is wanted. Readers ignore array
// elements and map keys they do not know, which is how later versions add optional fields.

import { Packr } from 'msgpackr/pack'
import { z } from 'zod'

export type Packable =
  null | boolean | number | string | Uint8Array | readonly Packable[] | { readonly [key: string]: Packable }

/** Levels of arrays and maps within each other. */
export const PACK_DEPTH_MAX = 12

const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: 'number' })

/** The value's bytes, fresh. Throws RangeError for a value nested too deeply. */
export function pack(value: Packable): Uint8Array {
  const bytes = new Uint8Array(packr.pack(value))
  if (!isPlain(bytes)) throw new RangeError('value cannot be packed')
  return bytes
}

/**
 * The value in `bytes`, or undefined when there are more than `max` bytes, they are no packed value, or the schema refuses it. Nothing throws,
 * and no more memory is taken than some tens of times the bytes' length. Byte arrays in the value are copies.
 */
export function unpack<T>(bytes: Uint8Array, max: number, schema: z.ZodType<T>): T | undefined {
  const parsed = schema.safeParse(read(bytes, max))
  return parsed.success ? parsed.data : undefined
}

/** As {@link unpack}, an array of one of several shapes, told apart by the number that it begins with: the other shapes are not tried. */
export function unpackTagged<T extends Readonly<Record<number, z.ZodType>>>(
  bytes: Uint8Array,
  max: number,
  schemas: T,
): z.infer<T[keyof T]> | undefined {
  const value = read(bytes, max)
  const tag: unknown = Array.isArray(value) ? value[0] : undefined
  const schema = typeof tag === 'number' && Object.hasOwn(schemas, tag) ? schemas[tag] : undefined
  const parsed = schema?.safeParse(value)
  return parsed?.success === true ? (parsed.data as z.infer<T[keyof T]>) : undefined
}

/** undefined, which no value is: not one value of the subset, or longer than `max`. */
function read(bytes: Uint8Array, max: number): unknown {
  if (bytes.length > max || !isPlain(bytes)) return undefined
  try {
    // A copy: the library leaves a property on what it reads, and its byte arrays are views of it.
    return packr.unpack(new Uint8Array(bytes))
  } catch {
    return undefined
  }
}

/** Schema of exactly `length` bytes. */
export const bytesOf = (length: number) => bytesUpTo(length, length)
/** Schema of `min`..`max` bytes. */
export const bytesUpTo = (max: number, min = 0) =>
  z.custom<Uint8Array>((value) => value instanceof Uint8Array && value.length >= min && value.length <= max)
/** Schema of an array whose first elements are these; further ones are later versions' and ignored. */
export const fields = <T extends [z.ZodType, ...z.ZodType[]]>(first: T) => z.tuple(first).rest(z.unknown())

/**
 * Whether the bytes are exactly one value out of the subset above. Checked before the library sees them: extension types would let strangers make
 * it build regular expressions, errors or record readers, and counts beyond the bytes that are there would make it allocate.
 */
function isPlain(bytes: Uint8Array): boolean {
  return skip(bytes, 0, 0, false) === bytes.length
}

/** Position after the value at `at`, or -1. */
function skip(bytes: Uint8Array, at: number, depth: number, key: boolean): number {
  if (at >= bytes.length) return -1
  const token = bytes[at]!
  at++
  if (token >= 0xa0 && token < 0xc0) return within(bytes, at + (token & 0x1f))
  if (token >= 0xd9 && token <= 0xdb) return skipSized(bytes, at, 1 << (token - 0xd9))
  if (key) return -1
  if (token < 0x80 || token >= 0xe0) return at
  if (token < 0x90) return skipItems(bytes, at, token & 0x0f, depth, true)
  if (token < 0xa0) return skipItems(bytes, at, token & 0x0f, depth, false)
  switch (token) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return at
    case 0xc4: // byte arrays
    case 0xc5:
    case 0xc6:
      return skipSized(bytes, at, 1 << (token - 0xc4))
    case 0xcc: // 8 bits
    case 0xd0:
      return within(bytes, at + 1)
    case 0xcd: // 16 bits
    case 0xd1:
      return within(bytes, at + 2)
    case 0xca: // 32 bits
    case 0xce:
    case 0xd2:
      return within(bytes, at + 4)
    case 0xcb: // 64 bits
    case 0xcf:
    case 0xd3:
      return within(bytes, at + 8)
    case 0xdc: // arrays
    case 0xdd:
    case 0xde: // maps
    case 0xdf: {
      const width = token % 2 === 0 ? 2 : 4
      const count = readSize(bytes, at, width)
      return count < 0 ? -1 : skipItems(bytes, at + width, count, depth, token >= 0xde)
    }
    default:
      return -1
  }
}

function skipItems(bytes: Uint8Array, at: number, count: number, depth: number, map: boolean): number {
  if (depth >= PACK_DEPTH_MAX) return -1
  for (let i = 0; i < count && at >= 0; i++) {
    if (map) at = skip(bytes, at, depth + 1, true)
    if (at >= 0) at = skip(bytes, at, depth + 1, false)
  }
  return at
}

function skipSized(bytes: Uint8Array, at: number, width: number): number {
  const size = readSize(bytes, at, width)
  return size < 0 ? -1 : within(bytes, at + width + size)
}

/** Big-endian number of 1, 2 or 4 bytes; -1: not all there. */
function readSize(bytes: Uint8Array, at: number, width: number): number {
  if (at + width > bytes.length) return -1
  let size = 0
  for (let i = 0; i < width; i++) size = size * 256 + bytes[at + i]!
  return size
}

function within(bytes: Uint8Array, at: number): number {
  return at <= bytes.length ? at : -1
}
