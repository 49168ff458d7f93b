// The control socket's language, shared by daemon and command line. A connection carries JSON lines both ways:
//
//   → {"v":1,"id":7,"op":"hosts","args":{}}           a request; ids are the client's, unique among its running requests
//   ← {"id":7,"result":{…}}                           its only answer, or
//   ← {"id":7,"error":{"code":…,"what":…,"next":…}}   why not
//   ← {"id":7,"event":{…}}                            one of many (dump, watch), closed by a result or an error
//   ← {"id":7,"lost":12}                              so many events of this stream were not sent: the reader is slow
//   → {"v":1,"id":8,"op":"cancel","args":{"id":7}}    ends a stream; both requests get a result
//
// Unknown fields are ignored on both sides. A line that is no request gets an error with id null, and the connection is closed when it is
// longer than REQUEST_LINE_MAX or when it is not JSON.

import { z } from 'zod'
import type { TapEvent } from '../../lib/host/tap.js'
import { RANK_MAX, TOKEN_USES_MAX } from '../../lib/wire/constants.js'
import { FLOWS_MAX, SERVICES_MAX } from './line.js'
import type * as shapes from './shapes.js'
import {
  doctorShape,
  downShape,
  exposeShape,
  flowShape,
  flowsShape,
  handoverShape,
  hostsShape,
  inviteShape,
  namesShape,
  ownShape,
  pathsShape,
  pingShape,
  reloadShape,
  resolveShape,
  revokeShape,
  rulesShape,
  servicesShape,
  statusShape,
  transportShape,
  unexposeShape,
} from './shapes.js'

export * from './shapes.js'
export { CONTROL_VERSION, FLOWS_MAX, REQUEST_LINE_MAX, SERVICES_MAX } from './line.js'

/** Longest line a client accepts. */
export const RESPONSE_LINE_MAX = 64 * 1024 * 1024

const name = z.string().min(1).max(256)
const port = z.number().int().min(1).max(65_535)
const none = z.object({})

/** How an instance may leave or move. Only what exists is accepted; later kinds are appended. */
export const moveKinds = ['drain'] as const
export type MoveKind = (typeof moveKinds)[number]

export const healthSpecShape = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('none') }),
  z.object({ kind: z.literal('tcp') }),
  z.object({ kind: z.literal('http'), path: z.string().startsWith('/').max(1024) }),
])
/** How an instance's daemon learns whether its server is well. `none`: taken as well while something listens. */
export type HealthSpec = z.infer<typeof healthSpecShape>

export const portSpecShape = z.object({ protocol: transportShape, port, local: port })
/** A port as dialled, and the server's own. */
export type PortSpec = z.infer<typeof portSpecShape>

export const WEIGHT_MAX = 1000
export const PRIORITY_MAX = 255
export const exposeRequestShape = z.object({
  name,
  ports: z.array(portSpecShape).min(1).max(64),
  /** Share among instances of one priority. 0: only when there is no other. */
  weight: z.number().int().min(0).max(WEIGHT_MAX).default(1),
  /** Lower is asked first. */
  priority: z.number().int().min(0).max(PRIORITY_MAX).default(0),
  health: healthSpecShape.default({ kind: 'none' }),
  move: z.enum(moveKinds).default('drain'),
  /** For self-certifying names: what `caracal key proof` printed for this host. */
  proof: z.string().max(1_024).optional(),
})
export type ExposeRequest = z.output<typeof exposeRequestShape>

const inviteRequestShape = z.object({
  tags: z.array(name).max(32).default([]),
  expiresMs: z
    .number()
    .int()
    .min(1000)
    .max(366 * 86_400_000)
    .default(3_600_000),
  uses: z.number().int().min(1).max(TOKEN_USES_MAX).default(1),
})

const nameRank = z.number().int().min(0).max(RANK_MAX)
const ownRequestShape = z.object({
  /** A service's name, for itself and all names below it, or `*`. */
  name,
  tags: z.array(name).max(32).default([]),
  /** By name or ID. */
  hosts: z.array(name).max(32).default([]),
  minPriority: nameRank.default(0),
  maxWeight: nameRank.default(RANK_MAX),
  /** Take the rule back; the rest does not count. */
  free: z.boolean().default(false),
})

const flowFilter = {
  service: name.optional(),
  host: name.optional(),
  protocol: z.enum(['tcp', 'udp', 'icmp']).optional(),
}
const flowsRequestShape = z.object({ ...flowFilter, limit: z.number().int().min(1).max(FLOWS_MAX).default(1000) })

const servicesRequestShape = z.object({
  name: name.optional(),
  limit: z.number().int().min(1).max(SERVICES_MAX).default(1000),
})
export type ServicesRequest = z.output<typeof servicesRequestShape>

export const tapPoints = ['tun', 'wire', 'drop'] as const

/** Requests with one answer: what comes in and what goes out. */
export const requestShapes = {
  status: none,
  invite: inviteRequestShape,
  expose: exposeRequestShape,
  unexpose: z.object({ name }),
  services: servicesRequestShape,
  resolve: z.object({ name }),
  rules: z.object({ name: name.optional() }),
  hosts: none,
  flows: flowsRequestShape,
  paths: z.object({ host: name.optional() }),
  ping: z.object({
    target: name,
    sequence: z.number().int().min(0).default(0),
    timeoutMs: z.number().int().min(1).max(60_000).default(2000),
  }),
  doctor: none,
  revoke: z.object({ host: name }),
  own: ownRequestShape,
  names: none,
  reload: none,
  down: z.object({ keep: z.boolean().default(false) }),
  handover: z.object({ state: z.string().min(1).max(4096) }),
} as const
export type Operation = keyof typeof requestShapes
export type RequestOf<O extends Operation> = z.output<(typeof requestShapes)[O]>
/** As a client writes it: what has a default may be left out. */
export type RequestInput<O extends Operation> = z.input<(typeof requestShapes)[O]>

export const responseShapes = {
  status: statusShape,
  invite: inviteShape,
  expose: exposeShape,
  unexpose: unexposeShape,
  services: servicesShape,
  resolve: resolveShape,
  rules: rulesShape,
  hosts: hostsShape,
  flows: flowsShape,
  paths: pathsShape,
  ping: pingShape,
  doctor: doctorShape,
  revoke: revokeShape,
  own: ownShape,
  names: namesShape,
  reload: reloadShape,
  down: downShape,
  handover: handoverShape,
} as const satisfies Record<Operation, z.ZodType>
export type ResponseOf<O extends Operation> = z.output<(typeof responseShapes)[O]>

export const dumpRequestShape = z.object({
  points: z.array(z.enum(tapPoints)).min(1).max(3).default(['tun', 'wire', 'drop']),
  /** Bytes kept of each packet. */
  snapLength: z.number().int().min(16).max(65_575).default(65_575),
  /** See filter.ts; empty: everything. */
  filter: z.string().max(4096).default(''),
})
export type DumpRequest = z.output<typeof dumpRequestShape>

export const watchRequestShape = z.object({
  ...flowFilter,
  intervalMs: z.number().int().min(100).max(60_000).default(1000),
})
export type WatchRequest = z.output<typeof watchRequestShape>

/** A TapEvent with its bytes in base64. */
export const dumpEventShape = z.object({
  point: z.enum(tapPoints),
  direction: z.enum(['in', 'out']),
  time: z.number(),
  bytes: z.string(),
  length: z.number(),
  local: z.string().optional(),
  remote: z.string().optional(),
  peer: z.string().optional(),
  service: z.string().optional(),
  flow: z.string().optional(),
  frame: z.string().optional(),
  protocol: z.enum(['tcp', 'udp', 'icmp']).optional(),
  sourcePort: z.number().optional(),
  destinationPort: z.number().optional(),
  verdict: z.string(),
})
export type DumpEvent = z.infer<typeof dumpEventShape>

/** A TapEvent as it comes out at the reader: a newer daemon may know more verdicts. Every TapEvent is one. */
export type DumpPacket = Omit<DumpEvent, 'bytes'> & { readonly bytes: Uint8Array }

/** From the socket. */
export function decodePacket(event: DumpEvent): DumpPacket {
  return { ...event, bytes: Buffer.from(event.bytes, 'base64') }
}

/** A part of the list of flows. Never on the wire. */
export interface FlowPage {
  readonly flows: readonly shapes.FlowInfo[]
  /** Flows of this part that fit the request, listed or not. */
  readonly matched: number
  /** Where the next part begins; undefined: this was the last. */
  readonly next: number | undefined
  /** How many flows of later parts may be listed. */
  readonly left: number
  /** How many fit in all, where that is known without looking at each. */
  readonly total: number | undefined
}
export type FlowsRequest = RequestOf<'flows'>

/** A part of the list of services. Never on the wire. */
export interface ServicePage {
  readonly services: readonly shapes.ServiceInfo[]
  /** Where to go on; undefined: this was the last. */
  readonly next: number | undefined
  /** How many services of later parts may be listed. */
  readonly left: number
  /** How many there are in all. */
  readonly total: number
}

export const watchEventShape = z.object({
  /** `open` also for each flow that was there at the start. `move`: its frames go to another address, or it has another instance. */
  change: z.enum(['open', 'update', 'move', 'close']),
  /** ms since the epoch. */
  time: z.number(),
  flow: flowShape,
  /** Of a `move`: what was before. */
  from: z.object({ instance: z.string().nullable(), path: z.string().nullable() }).optional(),
})
export type WatchEvent = z.infer<typeof watchEventShape>

/** Requests with many answers. */
export const streamShapes = {
  dump: { request: dumpRequestShape, event: dumpEventShape },
  watch: { request: watchRequestShape, event: watchEventShape },
} as const
export type StreamOperation = keyof typeof streamShapes
export type StreamRequestInput<O extends StreamOperation> = z.input<(typeof streamShapes)[O]['request']>
export type StreamEvent<O extends StreamOperation> = z.output<(typeof streamShapes)[O]['event']>

/**
 * What the daemon does for its control socket; the daemon implements it, the server (server.ts) calls it with checked requests.
 * A method throws CaracalError for what cannot be done; anything else thrown is a fault, logged and told as CARACAL_E_INTERNAL.
 * Methods run concurrently and each finishes by itself, also when the client has gone.
 */
export interface ControlHandlers {
  status(request: RequestOf<'status'>): Promise<shapes.StatusResponse>
  /** Makes a token, after its use has been recorded durably. */
  invite(request: RequestOf<'invite'>): Promise<shapes.InviteResponse>
  /** Registers an instance here; once more for the same name replaces it. Returns when the registration is durable. */
  expose(request: ExposeRequest): Promise<shapes.ExposeResponse>
  unexpose(request: RequestOf<'unexpose'>): Promise<shapes.UnexposeResponse>
  /** At most `limit` services. */
  services(request: ServicesRequest): Promise<shapes.ServicesResponse>
  /** A part of them, from `from` on: undefined at first, then what the part before says. Little work. `request.limit` holds for this part. */
  servicePage(request: ServicesRequest, from: number | undefined): ServicePage
  resolve(request: RequestOf<'resolve'>): Promise<shapes.ResolveResponse>
  /** With a name: those that cover it, in the order in which they count. */
  rules(request: RequestOf<'rules'>): Promise<shapes.RulesResponse>
  hosts(request: RequestOf<'hosts'>): Promise<shapes.HostsResponse>
  /** At most `limit` flows. */
  flows(request: FlowsRequest): Promise<shapes.FlowsResponse>
  /** A part of them, from `from` on: 0 at first, then what the part before says. Little work. `request.limit` holds for this part. */
  flowPage(request: FlowsRequest, from: number): FlowPage
  paths(request: RequestOf<'paths'>): Promise<shapes.PathsResponse>
  /** One probe; the client repeats. Never waits longer than `timeoutMs`. */
  ping(request: RequestOf<'ping'>): Promise<shapes.PingResponse>
  doctor(request: RequestOf<'doctor'>): Promise<shapes.DoctorResponse>
  revoke(request: RequestOf<'revoke'>): Promise<shapes.RevokeResponse>
  /** Signs to whom a name belongs. Returns when it is durable. */
  own(request: RequestOf<'own'>): Promise<shapes.OwnResponse>
  /** Whose the names are. */
  names(request: RequestOf<'names'>): Promise<shapes.NamesResponse>
  /** What SIGHUP does. */
  reload(request: RequestOf<'reload'>): Promise<shapes.ReloadResponse>
  /** Resolves at once; the daemon ends after it, which closes the connection. `keep`: everything waits with the keeper for the next one. */
  down(request: RequestOf<'down'>): Promise<shapes.DownResponse>
  /** Resolves when another daemon with this state directory may have everything; this one ends after it. */
  handover(request: RequestOf<'handover'>): Promise<shapes.HandoverResponse>
  /**
   * Opens a tap at the points asked for and hands each event to `emit`, which neither throws nor blocks (a filter and a slow reader are
   * the server's business), until `signal` is aborted; resolves when the tap is closed. `request.filter` has been checked and is applied
   * by the server. `lost`: so many events could not be handed over.
   */
  dump(
    request: DumpRequest,
    emit: (event: TapEvent) => void,
    signal: AbortSignal,
    lost: (count: number) => void,
  ): Promise<void>
}

export const errorShape = z.object({ code: z.string(), what: z.string(), next: z.string().optional() })
export type ControlError = z.infer<typeof errorShape>

/** First look at a line of the daemon. */
export const responseLineShape = z.object({
  id: z.number().nullable(),
  result: z.unknown().optional(),
  error: errorShape.optional(),
  event: z.unknown().optional(),
  lost: z.number().optional(),
})

/** "ports.0.port: too big" of a zod error, on one line. */
export function issuesOf(error: z.ZodError): string {
  return error.issues
    .slice(0, 3)
    .map((issue) => (issue.path.length > 0 ? `${issue.path.join('.')}: ${issue.message}` : issue.message))
    .join('; ')
}
