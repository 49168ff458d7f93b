import type { AeadName } from '../crypto/codec.js'
import { isMembershipProblem, type Membership } from '../crypto/membership.js'
import { Handshake, NO_PSK, type NoiseOptions } from '../crypto/noise.js'
import type { Primitives } from '../crypto/primitives.js'
import { FrameType } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import { HandshakeView } from '../wire/handshake.js'
import { verifyPeer, type MembershipVerifier } from './identity.js'
import { HandshakeMacs } from './macs.js'
import { decodeInit, decodeResponse, encodeResponse, type InitPayload, type ResponsePayload } from './payload.js'

/** An init whose sender is a member. It may still be a replay. */
export interface SessionRequest {
  readonly handshake: Handshake
  /** The initiator's handshake index. */
  readonly sender: number
  /** The initiator's X25519 public key. */
  readonly staticKey: Uint8Array
  readonly membership: Membership
  readonly payload: InitPayload
}

/** The responder's end of handshakes between members; keeps nothing between its calls. */
export class Responder {
  constructor(
    readonly primitives: Primitives,
    readonly noise: NoiseOptions,
    readonly trust: MembershipVerifier,
  ) {}

  /** Reads an init that has passed the guard. */
  read(view: HandshakeView, wallNow: number): SessionRequest | DropReason {
    const handshake = Handshake.respond(this.noise)
    const message = handshake.readMessage1(view.noise)
    if (message === undefined) return 'handshake-failed'
    const payload = decodeInit(message.payload)
    if (payload === undefined) return 'handshake-failed'
    const staticKey = message.remoteStatic
    const membership = verifyPeer(this.primitives, this.trust, payload.membership, staticKey, wallNow)
    if (isMembershipProblem(membership)) return membership.reason
    return { handshake, sender: view.sender, staticKey, membership, payload }
  }

  /** The response's datagram and the exporter of the new session's keys. Each request is answered once. `sender`: our handshake index. */
  answer(
    request: SessionRequest,
    sender: number,
    payload: ResponsePayload,
  ): { readonly datagram: Uint8Array; readonly exporter: Uint8Array } | undefined {
    const noise = request.handshake.writeMessage2(encodeResponse(payload), NO_PSK)
    const result = request.handshake.split()
    if (noise === undefined || result === undefined) return undefined
    const view = HandshakeView.encode({ type: FrameType.response, sender, receiver: request.sender, noise })
    new HandshakeMacs(this.primitives, request.staticKey).sign(view)
    return { datagram: view.bytes, exporter: result.exporter }
  }
}

/** The first of `preferred` that the other end has too. */
export function chooseAead(preferred: readonly AeadName[], offered: readonly AeadName[]): AeadName | undefined {
  return preferred.find((aead) => offered.includes(aead))
}

/**
 * The initiator's reading of a response: undefined when it is not the responder's answer to this handshake, which then may go on. payload undefined: it is,
 * but says nothing this version understands.
 */
export function readResponse(
  handshake: Handshake,
  noise: Uint8Array,
): { readonly payload: ResponsePayload | undefined; readonly exporter: Uint8Array } | undefined {
  const bytes = handshake.readMessage2(noise)
  const result = bytes && handshake.split()
  return bytes && result && { payload: decodeResponse(bytes), exporter: result.exporter }
}
