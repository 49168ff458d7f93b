// Service names and service IDs.
//
// A name is one to four labels, the most general last: `web`, `api.shop`, `x.api.shop`. Its ID, 256 bits:
//
//   0        64       96      128      160      192                 256
//   | network | top    | second | third  | fourth | hash of the name |
//             '------- label hashes, 0: none -----'
//
// Every label has a level of its own, so the prefix of 64 + 32n bits that `shop` gives covers `shop` and all below it. The first bit after the
// network tells the two kinds of names apart: 0 for labels, 1 for self-certifying names, whose other 191 bits are the key's hash.

import type { Primitives } from '../crypto/primitives.js'
import { concat, utf8 } from '../wire/bytes.js'
import { LABEL_LENGTH_MAX, NAME_LENGTH_MAX } from '../wire/constants.js'
import { fromHex, serviceId, type NetworkId, type ServiceId } from '../wire/ids.js'

export type Hasher = Pick<Primitives, 'blake2b'>

/** A valid name in its canonical (lower-case) text. */
export type ServiceName =
  | {
      readonly kind: 'labels'
      readonly text: string
      /** As written: the most general last. */ readonly labels: readonly string[]
    }
  | {
      readonly kind: 'key'
      readonly text: string
      /** Ed25519 public key of whoever may register it. */ readonly key: Uint8Array
    }

export interface NameProblem {
  /** One sentence for the user, naming what is wrong with what. */
  readonly problem: string
}

/** The first `length` bits of `id`; the rest of `id` is zero. */
export interface ServicePrefix {
  readonly id: ServiceId
  readonly length: number
}

export const LEVELS_MAX = 4
export const NETWORK_BITS = 64
export const LEVEL_BITS = 32
export const SERVICE_ID_BITS = 256

/** Labels with a meaning of their own in the naming zone: `web.at.h2`, `h2.host`. */
const RESERVED_LABELS: readonly string[] = ['at', 'host']
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567'
const KEY_DIGITS = 52
/** In front of a key's digits instead of "~", for programs that know host names by letters, digits and "-" only. */
const KEY_LABEL = /^k--([a-z2-7]{52})$/

/** The name in `text` (upper case is accepted, and `k--` for the `~` of a self-certifying name), or what is wrong with it. Total. */
export function parseServiceName(text: string): ServiceName | NameProblem {
  const quoted = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
  if (text === '') return { problem: 'a service name must not be empty' }
  if (text.length > NAME_LENGTH_MAX) {
    return { problem: `service name ${quoted} has ${text.length} characters, at most ${NAME_LENGTH_MAX} are allowed` }
  }
  const lower = text.toLowerCase()
  const digits = KEY_LABEL.exec(lower)?.[1]
  if (digits !== undefined) return parseKeyName(`~${digits}`, quoted)
  if (lower.startsWith('~')) return parseKeyName(lower, quoted)
  const labels = lower.split('.')
  if (labels.length > LEVELS_MAX) {
    return { problem: `service name ${quoted} has ${labels.length} labels, at most ${LEVELS_MAX} are allowed` }
  }
  for (const label of labels) {
    const problem = labelProblem(label)
    if (problem !== undefined) return { problem: `service name ${quoted}: ${problem}` }
    if (RESERVED_LABELS.includes(label)) return { problem: `service name ${quoted}: the label "${label}" is reserved` }
  }
  return { kind: 'labels', text: lower, labels }
}

/** What is wrong with one label (also of host names), or undefined. */
export function labelProblem(label: string): string | undefined {
  if (label === '') return 'a label is empty (two dots in a row, or one at an end)'
  if (label.length > LABEL_LENGTH_MAX)
    return `a label has ${label.length} characters, at most ${LABEL_LENGTH_MAX} are allowed`
  const bad = /[^a-z0-9-]/u.exec(label)
  if (bad !== null) return `${JSON.stringify(bad[0])} is not allowed, labels are made of a-z, 0-9 and "-"`
  if (label.startsWith('-') || label.endsWith('-')) return `label "${label}" begins or ends with "-"`
  return undefined
}

/** The name that only the holder of this Ed25519 key (32 bytes) can register. */
export function keyName(key: Uint8Array): ServiceName {
  let text = '~'
  let bits = 0
  let held = 0
  for (const byte of key) {
    held = ((held << 8) | byte) & 0xffff
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text += BASE32[(held >> bits) & 31]
    }
  }
  if (bits > 0) text += BASE32[(held << (5 - bits)) & 31]
  return { kind: 'key', text, key }
}

/** The name as a host name that every program takes: `k--…` for `~…`. */
export function plainLabels(name: string): string {
  return name.startsWith('~') ? `k--${name.slice(1)}` : name
}

function parseKeyName(text: string, quoted: string): ServiceName | NameProblem {
  if (text.length !== KEY_DIGITS + 1) {
    return { problem: `self-certifying name ${quoted} must be "~" and ${KEY_DIGITS} base32 digits` }
  }
  const key = new Uint8Array(32)
  let bits = 0
  let held = 0
  let at = 0
  for (const character of text.slice(1)) {
    const digit = BASE32.indexOf(character)
    if (digit < 0) return { problem: `self-certifying name ${quoted}: ${JSON.stringify(character)} is no base32 digit` }
    held = ((held << 5) | digit) & 0xffff
    bits += 5
    if (bits >= 8) {
      bits -= 8
      key[at++] = (held >> bits) & 0xff
    }
  }
  if ((held & ((1 << bits) - 1)) !== 0) return { problem: `self-certifying name ${quoted}: the last digit is wrong` }
  return { kind: 'key', text, key }
}

/** The ID of a name in a network. Costs up to five hashes: remember the result. */
export function serviceIdOf(name: ServiceName, network: NetworkId, hasher: Hasher): ServiceId {
  const bytes = new Uint8Array(32)
  bytes.set(fromHex(network.slice(0, NETWORK_BITS / 4)))
  if (name.kind === 'key') {
    bytes.set(labelled(hasher, 'key', name.key).subarray(0, 24), 8)
    bytes[8] = bytes[8]! | 0x80
  } else {
    setLevels(bytes, name.labels, hasher)
    bytes.set(labelled(hasher, 'name', utf8(name.text)).subarray(0, 8), 24)
  }
  return serviceId(bytes)
}

/** What a rule for the domain covers: the name itself and every name that ends in it. A self-certifying name covers only itself. */
export function domainPrefix(name: ServiceName, network: NetworkId, hasher: Hasher): ServicePrefix {
  if (name.kind === 'key') return { id: serviceIdOf(name, network, hasher), length: SERVICE_ID_BITS }
  const bytes = new Uint8Array(32)
  bytes.set(fromHex(network.slice(0, NETWORK_BITS / 4)))
  setLevels(bytes, name.labels, hasher)
  return { id: serviceId(bytes), length: NETWORK_BITS + LEVEL_BITS * name.labels.length }
}

/** Covers every service of the network. */
export function networkPrefix(network: NetworkId): ServicePrefix {
  return { id: serviceId(network.slice(0, NETWORK_BITS / 4).padEnd(64, '0')), length: NETWORK_BITS }
}

/** Covers exactly one service. */
export function exactPrefix(id: ServiceId): ServicePrefix {
  return { id, length: SERVICE_ID_BITS }
}

/** Whether the prefix covers the service. */
export function coversService({ id, length }: ServicePrefix, service: ServiceId): boolean {
  // Our prefixes end at bytes.
  return service.startsWith(id.slice(0, length / 4))
}

/** Whether the ID belongs to the network. */
export function isOfNetwork(id: ServiceId, network: NetworkId): boolean {
  return id.startsWith(network.slice(0, NETWORK_BITS / 4))
}

function setLevels(bytes: Uint8Array, labels: readonly string[], hasher: Hasher): void {
  labels.toReversed().forEach((label, level) => {
    const hash = labelled(hasher, 'label', utf8(label)).subarray(0, 4)
    if (level === 0) hash[0] = hash[0]! & 0x7f
    // All zero means "no label".
    if (hash.every((byte) => byte === 0)) hash[3] = 1
    bytes.set(hash, 8 + 4 * level)
  })
}

function labelled(hasher: Hasher, what: string, message: Uint8Array): Uint8Array {
  return hasher.blake2b(concat([utf8(`caracal/1 service ${what}\0`), message]), 32)
}
