// What hosts publish about themselves: registrations of instances, claims of names and addresses, locators. These are the values; how they are
// signed and carried is record.ts.

import { z } from 'zod'
import { STAMP_MAX } from '../crypto/stamp.js'
import type { Locator } from '../path/locator.js'
import { HOST_ID_LENGTH, LABEL_LENGTH_MAX, NAME_LENGTH_MAX, RANK_MAX, SERVICE_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, serviceId, type HostId, type ServiceId } from '../wire/ids.js'
import { bytesOf, bytesUpTo, fields, type Packable } from '../wire/pack.js'

export interface PortMapping {
  readonly protocol: 'tcp' | 'udp'
  /** As dialled. */
  readonly port: number
  /** Of the server, on its host. */
  readonly localPort: number
}

const states = ['up', 'draining', 'unhealthy'] as const
export type InstanceState = (typeof states)[number]
const moves = ['drain', 'redirect', 'rehome', 'handoff', 'checkpoint'] as const
export type MoveKind = (typeof moves)[number]
const roles = ['dialled', 'served', 'peer'] as const
export type ClaimRole = (typeof roles)[number]

/** One instance: this host offers the service. */
export interface Registration {
  readonly kind: 'registration'
  readonly service: ServiceId
  /** Canonical text; its ID must be `service`. */
  readonly name: string
  readonly ports: readonly PortMapping[]
  /** 0..65535, the lowest is used first. */
  readonly priority: number
  /** 0..65535, share of new flows among instances of the same priority. */
  readonly weight: number
  readonly state: InstanceState
  /** Goes up when the instance moves. */
  readonly epoch: number
  readonly move: MoveKind
  /** What the instance carries besides what its clients see themselves, in open flows. */
  readonly load: number
  /** Self-certifying names: signature of the name's key, see name-proof.ts. */
  readonly proof?: Uint8Array
}

/** The host wants the IPv4 address with this index in the role's part of the pool for `id` (a service ID; role peer: the host ID). */
export interface AddressClaim {
  readonly role: ClaimRole
  readonly id: string
  readonly index: number
  /** Wall time of the claim, s since the epoch. */
  readonly since: number
}
export interface AddressClaims {
  readonly kind: 'claims'
  readonly claims: readonly AddressClaim[]
}

/** Where the host can be reached: directly, or through relays. */
export interface Locators {
  readonly kind: 'locators'
  readonly locators: readonly (Locator & {
    /** Where other hosts see it, behind a NAT. */
    readonly reflexive?: boolean
  })[]
  readonly relays: readonly HostId[]
}

/** First claim of a name. It belongs to hosts with one of the tags and to these hosts; both empty: to every member. */
export interface NameClaim {
  readonly kind: 'name'
  readonly service: ServiceId
  readonly name: string
  /** Wall time of the claim, s since the epoch. */
  readonly since: number
  readonly tags: readonly string[]
  readonly hosts: readonly HostId[]
  /** An issuer's word on when it saw the claim (lib/crypto/stamp.ts). */
  readonly stamp?: Uint8Array
}

/** What a withdrawn record holds. */
export interface Withdrawn {
  readonly kind: 'withdrawn'
}

export type RecordPayload = Registration | AddressClaims | Locators | NameClaim | Withdrawn

export const PORTS_MAX = 32
export const CLAIMS_MAX = 8
export const LOCATORS_MAX = 12
export const RELAYS_MAX = 4
export const TAGS_MAX = 8

/** The one key under which a host may publish the payload; claims come in several records, numbered. */
export function recordKey(payload: RecordPayload, number = 0): string {
  switch (payload.kind) {
    case 'registration':
      return `service/${payload.service}`
    case 'name':
      return `name/${payload.service}`
    case 'claims':
      return `address/${number}`
    case 'locators':
      return 'locators'
    case 'withdrawn':
      throw new RangeError('a withdrawal keeps the key of what it withdraws')
  }
}

const kinds = { withdrawn: 0, registration: 1, claims: 2, locators: 3, name: 4 } as const

const whole = (max: number) => z.number().int().min(0).max(max)
const port = z.number().int().min(1).max(65_535)
const anyWhole = whole(Number.MAX_SAFE_INTEGER)
const id = bytesOf(SERVICE_ID_LENGTH)
const host = bytesOf(HOST_ID_LENGTH)
const name = z.string().min(1).max(NAME_LENGTH_MAX)
const tag = z.string().min(1).max(LABEL_LENGTH_MAX)
const oneOf = (values: readonly string[]) => whole(values.length - 1)

const registrationShape = fields([
  id,
  name,
  z.array(fields([oneOf(['tcp', 'udp']), port, port])).max(PORTS_MAX),
  whole(RANK_MAX),
  whole(RANK_MAX),
  oneOf(states),
  anyWhole,
  oneOf(moves),
  whole(1e9),
  bytesOf(64).nullable(),
])
const claimsShape = fields([z.array(fields([oneOf(roles), id, whole(2 ** 24 - 1), anyWhole])).max(CLAIMS_MAX)])
const locatorsShape = fields([
  z.array(z.tuple([z.string().min(1).max(64), port], z.unknown())).max(LOCATORS_MAX),
  z.array(host).max(RELAYS_MAX),
])
const nameShape = fields([
  id,
  name,
  anyWhole,
  z.array(tag).max(TAGS_MAX),
  z.array(host).max(TAGS_MAX),
  // A stamp of a later version is none for us, and the claim one without.
  bytesUpTo(STAMP_MAX, 1).optional().catch(undefined),
])

/** Kind number and packable fields. */
export function packPayload(payload: RecordPayload): [number, Packable] {
  const number = kinds[payload.kind]
  switch (payload.kind) {
    case 'withdrawn':
      return [number, null]
    case 'registration': {
      const ports = payload.ports.map((p) => [p.protocol === 'tcp' ? 0 : 1, p.port, p.localPort])
      const { priority, weight, epoch, load } = payload
      const state = states.indexOf(payload.state)
      const move = moves.indexOf(payload.move)
      return [
        number,
        [
          fromHex(payload.service),
          payload.name,
          ports,
          priority,
          weight,
          state,
          epoch,
          move,
          load,
          payload.proof ?? null,
        ],
      ]
    }
    case 'claims':
      return [number, [payload.claims.map((c) => [roles.indexOf(c.role), fromHex(c.id), c.index, c.since])]]
    case 'locators':
      return [
        number,
        [
          payload.locators.map((l) => (l.reflexive === true ? [l.address, l.port, 1] : [l.address, l.port])),
          payload.relays.map((r) => fromHex(r)),
        ],
      ]
    case 'name':
      return [
        number,
        [
          fromHex(payload.service),
          payload.name,
          payload.since,
          [...payload.tags],
          payload.hosts.map((h) => fromHex(h)),
          ...(payload.stamp === undefined ? [] : [payload.stamp]),
        ],
      ]
  }
}

/** undefined: malformed, or of a kind this version does not know. */
export function unpackPayload(kind: number, value: unknown): RecordPayload | undefined {
  switch (kind) {
    case kinds.withdrawn:
      return { kind: 'withdrawn' }
    case kinds.registration: {
      const parsed = registrationShape.safeParse(value)
      if (!parsed.success) return undefined
      const [service, text, ports, priority, weight, state, epoch, move, load, proof] = parsed.data
      return {
        kind: 'registration',
        service: serviceId(service),
        name: text,
        ports: ports.map(([protocol, p, localPort]) => ({
          protocol: protocol === 0 ? 'tcp' : 'udp',
          port: p,
          localPort,
        })),
        priority,
        weight,
        state: states[state]!,
        epoch,
        move: moves[move]!,
        load,
        ...(proof === null ? {} : { proof }),
      }
    }
    case kinds.claims: {
      const parsed = claimsShape.safeParse(value)
      if (!parsed.success) return undefined
      return {
        kind: 'claims',
        claims: parsed.data[0].map(([role, owner, index, since]) => ({
          role: roles[role]!,
          id: serviceId(owner),
          index,
          since,
        })),
      }
    }
    case kinds.locators: {
      const parsed = locatorsShape.safeParse(value)
      if (!parsed.success) return undefined
      const [locators, relays] = parsed.data
      return {
        kind: 'locators',
        locators: locators.map(([address, p, mark]) => ({
          address,
          port: p,
          ...(mark === 1 ? { reflexive: true } : {}),
        })),
        relays: relays.map((r) => hostId(r)),
      }
    }
    case kinds.name: {
      const parsed = nameShape.safeParse(value)
      if (!parsed.success) return undefined
      const [service, text, since, tags, hosts, stamp] = parsed.data
      return {
        ...{ kind: 'name', service: serviceId(service), name: text, since, tags, hosts: hosts.map((h) => hostId(h)) },
        ...(stamp === undefined ? {} : { stamp }),
      }
    }
    default:
      return undefined
  }
}
