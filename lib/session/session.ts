import type { AeadName } from '../crypto/codec.js'
import type { Membership } from '../crypto/membership.js'
import { REJECT_AFTER_MS } from '../wire/constants.js'
import { laneSlot, type LaneRole, type LaneTable } from './lanes.js'

export interface SessionParameters {
  readonly peer: number
  /** Whether we were the handshake's initiator. */
  readonly initiator: boolean
  readonly aead: AeadName
  readonly generation: number
  readonly createdAt: number
  /** Our lane indexes and the other end's, in the same order. */
  readonly ownLanes: readonly number[]
  readonly remoteLanes: readonly number[]
  /** UDP ports of the other end's lanes above the first, as far as it has said them. */
  readonly remotePorts: readonly number[]
  readonly membership: Membership
  /** Address record that the handshake's message came from. */
  readonly address: Uint8Array
  /** The other end did not know of the session before. */
  readonly afresh: boolean
}

/** The outcome of one handshake: keys in the codec, lanes in the table. It dies REJECT_AFTER_MS after it was made, at the latest. */
export class Session {
  /** Whether both ends are known to have it. */
  confirmed = false
  /** When its keys are forgotten. */
  retireAt: number

  /** Installs the keys. `exporter` is the handshake's; it is not kept. */
  constructor(
    readonly parameters: SessionParameters,
    exporter: Uint8Array,
    readonly lanes: LaneTable,
    role: LaneRole,
  ) {
    const { aead, initiator, ownLanes, remoteLanes } = parameters
    this.retireAt = parameters.createdAt + REJECT_AFTER_MS
    ownLanes.forEach((lane, i) => lanes.install(lane, aead, exporter, initiator, remoteLanes[i]!))
    this.setRole(role)
  }

  get peer(): number {
    return this.parameters.peer
  }
  get initiator(): boolean {
    return this.parameters.initiator
  }
  get generation(): number {
    return this.parameters.generation
  }
  get createdAt(): number {
    return this.parameters.createdAt
  }
  /** Codec seal slot of the first lane. */
  get sealSlot(): number {
    return laneSlot(this.parameters.ownLanes[0]!)
  }

  /** Codec seal slots of all lanes, in their order. */
  get sealSlots(): readonly number[] {
    return this.parameters.ownLanes.map(laneSlot)
  }

  hasSlot(slot: number): boolean {
    return this.parameters.ownLanes.some((lane) => laneSlot(lane) === slot)
  }

  setRole(role: LaneRole): void {
    for (const lane of this.parameters.ownLanes) this.lanes.role[laneSlot(lane)] = role
  }

  /** Frames sealed so far, over all lanes. */
  get sealed(): number {
    return this.parameters.ownLanes.reduce((sum, lane) => sum + this.lanes.sealed(lane), 0)
  }

  /** Entries opened so far, over all lanes. */
  get opened(): number {
    return this.parameters.ownLanes.reduce((sum, lane) => sum + this.lanes.opened[laneSlot(lane)]!, 0)
  }

  close(): void {
    for (const lane of this.parameters.ownLanes) this.lanes.free(lane)
  }
}
