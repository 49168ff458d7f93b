import { isStaticKeyOf, type HostKey } from '../crypto/host-key.js'
import { isMembershipProblem, type Membership, type MembershipProblem } from '../crypto/membership.js'
import type { NoiseOptions } from '../crypto/noise.js'
import type { Primitives } from '../crypto/primitives.js'
import { concat, utf8 } from '../wire/bytes.js'
import { PROTOCOL_NAME, PROTOCOL_VERSION } from '../wire/constants.js'
import { fromHex, type NetworkId } from '../wire/ids.js'

/** Decides about memberships: lib/crypto/trust.ts. */
export interface MembershipVerifier {
  /** Any bytes give a membership or why they are none. `wallNow`: seconds since the epoch. */
  verify(bytes: Uint8Array, wallNow: number): Membership | MembershipProblem
}

/** What a handshake is for; the transcripts of the two never match. */
export type HandshakePurpose = 'session' | 'join'

/** Noise prologue: protocol name, version, network ID, purpose. */
export function prologueOf(network: NetworkId, purpose: HandshakePurpose): Uint8Array {
  return concat([utf8(PROTOCOL_NAME), Uint8Array.of(0, PROTOCOL_VERSION), fromHex(network), utf8(purpose)])
}

/** What this host's end of a Noise handshake is made of. */
export function noiseOptions(
  primitives: Primitives,
  key: HostKey,
  network: NetworkId,
  purpose: HandshakePurpose,
): NoiseOptions {
  return { primitives, prologue: prologueOf(network, purpose), staticSecret: key.staticSecret() }
}

/** The membership of the host that has proven to own `staticKey`: verified, and its own. */
export function verifyPeer(
  primitives: Primitives,
  trust: MembershipVerifier,
  bytes: Uint8Array,
  staticKey: Uint8Array,
  wallNow: number,
): Membership | MembershipProblem {
  const membership = trust.verify(bytes, wallNow)
  if (isMembershipProblem(membership)) return membership
  if (isStaticKeyOf(primitives, membership.host, staticKey)) return membership
  return { reason: 'membership-invalid', problem: 'signature', detail: "the membership is not its sender's" }
}
