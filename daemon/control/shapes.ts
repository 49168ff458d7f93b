// What the daemon tells about itself: the shapes in responses of the control socket and in the output of `--json`. Field names are
// stable: append, never rename. Units are in the names (Ms, bytes); instants are seconds since the epoch and end in At; null: unknown
// or none. Lists are in a stable order that the daemon chooses (by name, own host first).

import { z } from 'zod'
import { pathReasons } from '../../lib/path/path.js'

const count = z.number().nonnegative()

export const addressPairShape = z.object({ v4: z.string().nullable(), v6: z.string().nullable() })
/** An address in each family. */
export type AddressPair = z.infer<typeof addressPairShape>

export const statusShape = z.object({
  state: z.enum(['starting', 'ready', 'closing']),
  version: z.string(),
  pid: z.number(),
  uptimeMs: count,
  network: z.object({ name: z.string(), id: z.string() }),
  host: z.object({
    name: z.string(),
    id: z.string(),
    tags: z.array(z.string()),
    membershipExpiresAt: z.number().nullable(),
    /** May invite. */
    issuer: z.boolean(),
    /** The self-certifying name of its host key, which it may register without a proof. */
    ownName: z.string(),
    /** When and by whom this host was revoked; null: it was not. */
    revoked: z.string().nullable(),
  }),
  zone: z.string(),
  addresses: z.object({ self: addressPairShape, dns: addressPairShape, pool: z.string(), prefix: z.string() }),
  tun: z.object({ name: z.string(), mtu: z.number(), up: z.boolean() }),
  /** Underlay UDP addresses that are open, `ADDR:PORT`. */
  listen: z.array(z.string()),
  /** `ports`, `framesOut`: of the lanes above the first. */
  lanes: z.object({ count, ports: z.array(count), framesOut: count }),
  /** Who holds device and sockets while no daemon runs (`pid` null: nobody), and how often a daemon went on with what another one had left. */
  keeper: z.object({ on: z.boolean(), pid: z.number().nullable(), descriptors: count, takeovers: count }),
  /** Packets of open connections that come alone pass by native code: it is switched on, and no dump is open. */
  express: z.boolean(),
  /** Underlay addresses that others are told. */
  locators: z.array(z.string()),
  /** Where several other hosts see this one, and its own addresses are not: outside a NAT. Others are told these, too. */
  seenAt: z.array(z.string()),
  dns: z.object({ mode: z.string(), detail: z.string() }),
  sessions: z.object({ up: count, known: count }),
  services: z.object({ local: count, known: count }),
  flows: z.object({ open: count, tcp: count, udp: count, icmp: count, capacity: count }),
  /** Monotonic counts since the start: `tunPacketsIn`, `tunBytesIn`, `wireFramesOut`… */
  counters: z.record(z.string(), z.number()),
  /** Drop reason → packets; every reason of lib/wire/drop.ts. */
  drops: z.record(z.string(), z.number()),
  /** Ciphers offered to other hosts, best first, and the library that does each. */
  sealing: z.array(z.object({ aead: z.string(), by: z.string() })),
})
export type StatusResponse = z.infer<typeof statusShape>

export const sessionShape = z.object({
  upMs: count,
  aead: z.string(),
  lanes: count,
  /** Of them those that frames can go by. */
  lanesWorking: count,
  /** The path in use. */
  local: z.string().nullable(),
  remote: z.string().nullable(),
  /** Of packets of flows with the host: those that are there, and those that have ended since the daemon started. */
  bytesIn: count,
  bytesOut: count,
  lastHeardMs: count,
})

export const hostShape = z.object({
  name: z.string(),
  id: z.string(),
  /** The host whose daemon answers. */
  self: z.boolean(),
  tags: z.array(z.string()),
  state: z.enum(['self', 'up', 'connecting', 'suspect', 'down', 'revoked']),
  locators: z.array(z.string()),
  session: sessionShape.nullable(),
  rttMs: z.number().nullable(),
  membershipExpiresAt: z.number().nullable(),
})
export type HostInfo = z.infer<typeof hostShape>
export const hostsShape = z.object({ hosts: z.array(hostShape) })
export type HostsResponse = z.infer<typeof hostsShape>

export const transportShape = z.enum(['tcp', 'udp'])
export const portShape = z.object({
  protocol: transportShape,
  /** As dialled. */
  port: z.number(),
  /** The server's own port on its host; null: not told (another host's). */
  local: z.number().nullable(),
})
export type PortInfo = z.infer<typeof portShape>

export const instanceShape = z.object({
  host: z.string(),
  hostId: z.string(),
  /** On the host whose daemon answers. */
  self: z.boolean(),
  ports: z.array(portShape),
  priority: z.number(),
  weight: z.number(),
  state: z.enum(['up', 'unhealthy', 'suspect', 'draining', 'down']),
  health: z.object({ kind: z.enum(['none', 'tcp', 'http']), detail: z.string() }),
  rttMs: z.number().nullable(),
  /** Open flows that the answering daemon knows of. */
  flows: count,
})
export type InstanceInfo = z.infer<typeof instanceShape>

export const serviceShape = z.object({
  /** Without the zone; `~…` for a self-certifying name. */
  name: z.string(),
  id: z.string(),
  dialled: addressPairShape,
  served: addressPairShape,
  /** IPv4 claims are settled, so that its sockets may move over IPv4 too. */
  movable: z.boolean(),
  instances: z.array(instanceShape),
})
export type ServiceInfo = z.infer<typeof serviceShape>
/** `total`: that there are, listed or not. */
export const servicesShape = z.object({ services: z.array(serviceShape), total: count })
export type ServicesResponse = z.infer<typeof servicesShape>

export const resolveShape = z.object({
  /** The name asked for, with the zone. */
  name: z.string(),
  kind: z.enum(['service', 'host']),
  /** Service ID or host ID. */
  id: z.string(),
  /** What DNS answers. */
  addresses: addressPairShape,
  /** The host in `web.at.h2`, else null. */
  pinned: z.string().nullable(),
  /** In the order in which a new flow would try them now; empty for a host. */
  instances: z.array(instanceShape),
  /** Why a new flow would fail, null when it would not. */
  obstacle: z.string().nullable(),
})
export type ResolveResponse = z.infer<typeof resolveShape>

export const ruleShape = z.object({
  /** `*`: every name; null: a name that is not known. */
  name: z.string().nullable(),
  /** Bits of the service ID that count, as hex digits, and their number. */
  prefix: z.string(),
  length: z.number(),
  /** instance: to that host's instance; deliver: to the one on this host. */
  action: z.enum(['deliver', 'instance', 'resolver', 'delay', 'drop']),
  host: z.string().nullable(),
  hostId: z.string().nullable(),
  /** Lowest first. */
  priority: z.number(),
  weight: z.number(),
  /** Flows it decided about. */
  hits: count,
  lastHitMs: z.number().nullable(),
  /** settings: set by people; registration: an instance made it; daemon: it holds what may still come after a start. */
  by: z.enum(['settings', 'registration', 'daemon']),
})
export type RuleInfo = z.infer<typeof ruleShape>
export const rulesShape = z.object({ rules: z.array(ruleShape) })
export type RulesResponse = z.infer<typeof rulesShape>

export const flowShape = z.object({
  /** Our flow ID, 16 hex digits. */
  id: z.string(),
  protocol: z.enum(['tcp', 'udp', 'icmp']),
  /** Of the answering host in this flow. */
  role: z.enum(['client', 'server']),
  /** Name of the client's host. */
  client: z.string(),
  /** null: the host itself (echo). */
  service: z.string().nullable(),
  /** Name of the instance's host; null: not bound yet. */
  instance: z.string().nullable(),
  state: z.string(),
  ageMs: count,
  idleMs: count,
  bytesIn: count,
  bytesOut: count,
  packetsIn: count,
  packetsOut: count,
  /** As the own kernel sees it, `ADDR:PORT`. */
  source: z.string(),
  destination: z.string(),
  /** Underlay address that its frames go to, and for how long they have; null: none, or the other end is this host, too. */
  path: z.string().nullable(),
  pathMs: z.number().nullable(),
})
export type FlowInfo = z.infer<typeof flowShape>
export const flowsShape = z.object({
  flows: z.array(flowShape),
  /** Those that fit the request, listed or not. */
  total: count,
})
export type FlowsResponse = z.infer<typeof flowsShape>

export const pathShape = z.object({
  host: z.string(),
  hostId: z.string(),
  local: z.string(),
  remote: z.string(),
  state: z.enum(['unproven', 'proven', 'suspect', 'dead']),
  inUse: z.boolean(),
  rttMs: z.number().nullable(),
  /** Mean deviation of the round trip. */
  rttVarMs: z.number().nullable(),
  /** Of the last probes, at most 32. */
  lossPercent: z.number().nullable(),
  /** Largest IP packet, as far as found out; null: it was not in use lately. */
  mtu: z.number().nullable(),
  lastHeardMs: z.number().nullable(),
  /** How long it has been in use; null: it is not. */
  usedMs: z.number().nullable(),
  /** Why it was last taken into use, or its state changed; how long ago; and how often that has happened. */
  reason: z.enum(pathReasons),
  changedMs: z.number(),
  changes: z.number(),
})
export type PathInfo = z.infer<typeof pathShape>
export const pathsShape = z.object({ paths: z.array(pathShape) })
export type PathsResponse = z.infer<typeof pathsShape>

export const inviteShape = z.object({
  token: z.string(),
  network: z.string(),
  tags: z.array(z.string()),
  uses: count,
  expiresAt: z.number(),
})
export type InviteResponse = z.infer<typeof inviteShape>

export const exposeShape = z.object({
  name: z.string(),
  id: z.string(),
  /** The name that programs use, with the zone. */
  domain: z.string(),
  dialled: addressPairShape,
  ports: z.array(portShape),
  /** Such as "nothing listens on TCP port 80: registered as unhealthy". */
  warnings: z.array(z.string()),
})
export type ExposeResponse = z.infer<typeof exposeShape>

export const unexposeShape = z.object({
  name: z.string(),
  /** Flows that were open, and end by themselves. */
  flows: count,
})
export type UnexposeResponse = z.infer<typeof unexposeShape>

export const pingShape = z.object({
  target: z.string(),
  kind: z.enum(['service', 'host']),
  sequence: z.number(),
  /** The host that answered, or was asked; null: none could be chosen. */
  host: z.string().nullable(),
  /** Underlay addresses that it went from and to. */
  local: z.string().nullable(),
  remote: z.string().nullable(),
  /** Why that path was last taken into use, or its state changed. */
  reason: z.enum(pathReasons).nullable(),
  /** null: no answer. */
  rttMs: z.number().nullable(),
  /** Why there is no answer, empty when there is. */
  detail: z.string(),
})
export type PingResponse = z.infer<typeof pingShape>

export const doctorCheckShape = z.object({
  name: z.string(),
  result: z.enum(['ok', 'warn', 'fail']),
  detail: z.string(),
  /** What to do, empty when nothing. */
  remedy: z.string(),
})
export type DoctorCheck = z.infer<typeof doctorCheckShape>
export const doctorShape = z.object({ checks: z.array(doctorCheckShape) })
export type DoctorResponse = z.infer<typeof doctorShape>

export const revokeShape = z.object({
  name: z.string(),
  id: z.string(),
  /** Hosts that have been told so far. */
  told: count,
})
export type RevokeResponse = z.infer<typeof revokeShape>

export const ownShape = z.object({
  name: z.string(),
  /** The signer's rule for the name is taken back. */
  free: z.boolean(),
  by: z.enum(['authority', 'issuer']),
  tags: z.array(z.string()),
  /** Names of hosts. */
  hosts: z.array(z.string()),
  minPriority: z.number(),
  maxWeight: z.number(),
  /** Wall ms. */
  serial: z.number(),
  /** Hosts that have been told so far. */
  told: count,
})
export type OwnResponse = z.infer<typeof ownShape>

export const nameShape = z.object({
  /** A service's name, or `*` for all. */
  name: z.string(),
  /** Who says whose it is: a rule of the authority or of an issuer, the first claim, or the name's own key. */
  by: z.enum(['authority', 'issuer', 'claim', 'key', 'nobody']),
  /** Name of the rule that counts: this one, or a domain above it. */
  rule: z.string().nullable(),
  /** The issuer's, or the claimant's, name. */
  signer: z.string().nullable(),
  /** It belongs to hosts with one of the tags and to these hosts; both empty: to every member (not where `by` is key). */
  tags: z.array(z.string()),
  hosts: z.array(z.string()),
  minPriority: z.number().nullable(),
  maxWeight: z.number().nullable(),
  /** Of the rule. */
  serial: z.number().nullable(),
  /** When the rule was signed, or the name claimed. */
  sinceAt: z.number().nullable(),
  /** Registrations of it that do not count, and why. */
  ignored: z.array(z.object({ host: z.string(), hostId: z.string(), reason: z.string(), detail: z.string() })),
})
export type NameInfo = z.infer<typeof nameShape>
export const namesShape = z.object({ names: z.array(nameShape) })
export type NamesResponse = z.infer<typeof namesShape>

export const downShape = z.object({ pid: z.number(), flows: count })
export type DownResponse = z.infer<typeof downShape>

export const handoverShape = z.object({
  pid: z.number(),
  /** First numbers of the state directory's counters that were not given out. */
  counters: z.object({ stamps: z.number(), sequences: z.number() }),
})
export type HandoverResponse = z.infer<typeof handoverShape>

export const reloadShape = z.object({
  /** Settings that changed and are in force. */
  changed: z.array(z.string()),
  /** Settings that changed in the file and need a restart. */
  restart: z.array(z.string()),
})
export type ReloadResponse = z.infer<typeof reloadShape>
