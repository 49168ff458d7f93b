// The datagrams of the handshakes, between members (init, response) and of a joining host (join, joined), and the cookie reply.
//
//   init, response, join, joined             cookie
//    0  type 1, version 1, reserved 2          0  type 1, version 1, reserved 2
//    4  sender's handshake index (LE)          4  receiver's handshake index (LE)
//    8  receiver's handshake index (LE),       8  nonce 24
//       0 in init and join                    32  sealed cookie 16 + tag 16
//   12  Noise message
//   -32 MAC1: keyed with the receiver's static public key; over all before it
//   -16 MAC2: keyed with the cookie, zero without one; over all before it
//
// First messages are padded (inside their Noise payload) so that no answer is more than three times as long.
// Contract: `check` looks at lengths, type and version; after it no accessor throws. Reserved bytes are ignored.

import { FrameType, PROTOCOL_VERSION } from './constants.js'
import type { DropReason } from './drop.js'

export const HANDSHAKE_HEADER = 12
export const MAC_LENGTH = 16
export const COOKIE_LENGTH = 16
export const COOKIE_NONCE = 24
/** Longest datagram of a handshake: PATH_MTU_MIN less the headers of IPv6 and UDP. */
export const HANDSHAKE_MAX = 1232
/** Shortest init and join: a third of the longest answer. */
export const FIRST_MESSAGE_MIN = Math.ceil(HANDSHAKE_MAX / 3)
/** Header and MACs around a Noise message. */
export const HANDSHAKE_OVERHEAD = HANDSHAKE_HEADER + 2 * MAC_LENGTH
export const COOKIE_REPLY_LENGTH = 8 + COOKIE_NONCE + COOKIE_LENGTH + 16
/** Noise message 1: ephemeral key 32, sealed static key 48, tag 16. Message 2: ephemeral key 32, tag 16. */
const NOISE_MIN_1 = 96
const NOISE_MIN_2 = 48

export type HandshakeType =
  typeof FrameType.init | typeof FrameType.response | typeof FrameType.join | typeof FrameType.joined

/** Value form of an init, response, join or joined datagram; MACs are added afterwards, see {@link HandshakeView.mac1}. */
export interface HandshakeFrame {
  readonly type: HandshakeType
  /** u32. */
  readonly sender: number
  /** u32; 0 in init and join. */
  readonly receiver: number
  readonly noise: Uint8Array
}

/** Checked view of an init, response, join or joined datagram. The bytes stay the caller's; accessors return views of them. */
export class HandshakeView {
  private constructor(
    /** The whole datagram. */
    readonly bytes: Uint8Array,
    readonly type: HandshakeType,
  ) {}

  /** The datagram at `offset`, or why it is none of these four. */
  static check(bytes: Uint8Array, offset: number, length: number): HandshakeView | DropReason {
    const datagram = slice(bytes, offset, length)
    if (datagram.length < 2) return 'truncated'
    const type = datagram[0]!
    if (!isHandshake(type)) return 'bad-type'
    if (datagram[1] !== PROTOCOL_VERSION) return 'bad-version'
    const first = type === FrameType.init || type === FrameType.join
    const shortest = first ? FIRST_MESSAGE_MIN : HANDSHAKE_OVERHEAD + NOISE_MIN_2
    if (datagram.length < shortest) return 'truncated'
    if (datagram.length > HANDSHAKE_MAX) return 'bad-frame'
    return new HandshakeView(datagram, type)
  }

  get sender(): number {
    return readU32(this.bytes, 4)
  }
  get receiver(): number {
    return readU32(this.bytes, 8)
  }
  get noise(): Uint8Array {
    return this.bytes.subarray(HANDSHAKE_HEADER, this.bytes.length - 2 * MAC_LENGTH)
  }
  /** 16 bytes, writable. */
  get mac1(): Uint8Array {
    return this.bytes.subarray(this.bytes.length - 2 * MAC_LENGTH, this.bytes.length - MAC_LENGTH)
  }
  /** 16 bytes, writable. */
  get mac2(): Uint8Array {
    return this.bytes.subarray(this.bytes.length - MAC_LENGTH)
  }
  /** What MAC1 covers. */
  get beforeMac1(): Uint8Array {
    return this.bytes.subarray(0, this.bytes.length - 2 * MAC_LENGTH)
  }
  /** What MAC2 covers. */
  get beforeMac2(): Uint8Array {
    return this.bytes.subarray(0, this.bytes.length - MAC_LENGTH)
  }

  value(): HandshakeFrame {
    return { type: this.type, sender: this.sender, receiver: this.receiver, noise: this.noise.slice() }
  }

  /** A fresh datagram with both MACs zero. Throws RangeError when it would be shorter or longer than its type allows. */
  static encode(frame: HandshakeFrame): HandshakeView {
    const bytes = new Uint8Array(HANDSHAKE_OVERHEAD + frame.noise.length)
    bytes[0] = frame.type
    bytes[1] = PROTOCOL_VERSION
    writeU32(bytes, 4, frame.sender)
    writeU32(bytes, 8, frame.receiver)
    bytes.set(frame.noise, HANDSHAKE_HEADER)
    const view = HandshakeView.check(bytes, 0, bytes.length)
    if (typeof view === 'string') throw new RangeError(`handshake message of ${frame.noise.length} bytes: ${view}`)
    return view
  }
}

/** Value form of a cookie reply. */
export interface CookieFrame {
  /** The handshake index that the answered message had as sender's. */
  readonly receiver: number
  /** COOKIE_NONCE bytes. */
  readonly nonce: Uint8Array
  /** COOKIE_LENGTH + 16 bytes. */
  readonly sealed: Uint8Array
}

/** Checked view of a cookie reply. */
export class CookieView {
  private constructor(readonly bytes: Uint8Array) {}

  static check(bytes: Uint8Array, offset: number, length: number): CookieView | DropReason {
    const datagram = slice(bytes, offset, length)
    if (datagram.length < 2) return 'truncated'
    if (datagram[0] !== FrameType.cookie) return 'bad-type'
    if (datagram[1] !== PROTOCOL_VERSION) return 'bad-version'
    if (datagram.length < COOKIE_REPLY_LENGTH) return 'truncated'
    return datagram.length === COOKIE_REPLY_LENGTH ? new CookieView(datagram) : 'bad-frame'
  }

  get receiver(): number {
    return readU32(this.bytes, 4)
  }
  get nonce(): Uint8Array {
    return this.bytes.subarray(8, 8 + COOKIE_NONCE)
  }
  get sealed(): Uint8Array {
    return this.bytes.subarray(8 + COOKIE_NONCE)
  }

  value(): CookieFrame {
    return { receiver: this.receiver, nonce: this.nonce.slice(), sealed: this.sealed.slice() }
  }

  /** A fresh datagram. Throws RangeError for fields of wrong length. */
  static encode(frame: CookieFrame): CookieView {
    if (frame.nonce.length !== COOKIE_NONCE || frame.sealed.length !== COOKIE_LENGTH + 16)
      throw new RangeError('cookie reply fields have the wrong length')
    const bytes = new Uint8Array(COOKIE_REPLY_LENGTH)
    bytes[0] = FrameType.cookie
    bytes[1] = PROTOCOL_VERSION
    writeU32(bytes, 4, frame.receiver)
    bytes.set(frame.nonce, 8)
    bytes.set(frame.sealed, 8 + COOKIE_NONCE)
    return new CookieView(bytes)
  }
}

/** Room for the payload inside a Noise message of this type. */
export function payloadRoom(type: HandshakeType): number {
  return HANDSHAKE_MAX - HANDSHAKE_OVERHEAD - noiseOverhead(type)
}

/** Shortest payload that makes a datagram of this type long enough. */
export function payloadMin(type: HandshakeType): number {
  const first = type === FrameType.init || type === FrameType.join
  return first ? FIRST_MESSAGE_MIN - HANDSHAKE_OVERHEAD - noiseOverhead(type) : 0
}

function noiseOverhead(type: HandshakeType): number {
  return type === FrameType.init || type === FrameType.join ? NOISE_MIN_1 : NOISE_MIN_2
}

function isHandshake(type: number): type is HandshakeType {
  return type === FrameType.init || type === FrameType.response || type === FrameType.join || type === FrameType.joined
}

/** Empty when the range is not inside `bytes`. */
function slice(bytes: Uint8Array, offset: number, length: number): Uint8Array {
  const valid = offset >= 0 && length >= 0 && offset + length <= bytes.length
  return valid ? bytes.subarray(offset, offset + length) : bytes.subarray(0, 0)
}

function readU32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
}

function writeU32(bytes: Uint8Array, at: number, value: number): void {
  for (let i = 0; i < 4; i++) bytes[at + i] = (value >>> (8 * i)) & 0xff
}
