// The daemon's settings: command line over environment over file over default. The file is YAML; a key that is not known is refused,
// so that a slip of the pen is not silently a default.

import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import type { AeadName } from '../lib/crypto/codec.js'
import { parseLocator, type Locator } from '../lib/path/locator.js'
import { parseProof } from '../lib/service/name-proof.js'
import { LANES_MAX } from '../lib/session/payload.js'
import { RANK_MAX } from '../lib/wire/constants.js'
import { labelProblem, parseServiceName } from '../lib/service/service-id.js'
import { TUN_MTU, UDP_PORT } from '../lib/wire/constants.js'
import { ConfigDocument, nearest } from './config-document.js'
import { DEFAULT_SOCKET } from './control/line.js'
import { PRIORITY_MAX, WEIGHT_MAX, moveKinds, type ExposeRequest } from './control/protocol.js'
import { HEALTH_FORM, PORT_FORM, parseHealth, parsePortSpec } from './control/spec.js'
import { parseDnsMode, type DnsMode } from './dns/resolver-settings.js'
import { CaracalError, messageOf, systemCode } from './errors.js'
import { AFTER_MAX } from './keeper/keeper-wire.js'
import { logLevels, type LogLevel } from './log.js'
import type { AeadSetting } from './native-codec.js'
import { BUFFER_BYTES } from './udp.js'

export const DEFAULT_STATE = '/var/lib/caracal'
const FILE_MAX = 1024 * 1024
/** As memberships and tokens carry it. */
const ZONE_MAX = 120
/** Best first. */
const aeadNames = ['aes-256-gcm', 'chacha20-poly1305'] as const satisfies readonly AeadName[]
/** That any two hosts have in common. */
const COMMON_AEAD: AeadName = 'chacha20-poly1305'
/** Room for one message of the largest size. */
export const BUFFER_MIN = 1 << 16
const BUFFER_MAX = 1 << 29
/** Rows of a flow table. */
/** Addresses to listen on; the keeper (kHeldMax in daemon/native/keeper/keeper.cc) has room for a socket of each lane at each. */
export const LISTEN_MAX = 32
export const FLOWS = 262_144
export const FLOWS_MIN = 16
const FLOWS_MAX = 1 << 24
/** Seconds without a daemon. */
export const WITHDRAW_AFTER = 30
export const GIVE_UP_AFTER = 600

/** What the kernel is asked to do for many packets at once; it may give less. */
export interface OffloadSetting {
  /** Best that the TUN device is asked for; each includes those after it. */
  readonly tun: 'uso' | 'tso' | 'checksum' | 'none'
  /** false: packets of the TUN device come and go without virtio_net_hdr, so without any offload. */
  readonly vnetHeader: boolean
  /** false: the UDP sockets send one frame a message. */
  readonly gso: boolean
  /** false: the UDP sockets receive one frame a buffer. */
  readonly gro: boolean
  /** Of each UDP socket, to receive and to send. */
  readonly bufferBytes: number
}

/** How packets are moved. */
export interface LoopSetting {
  /** own: by a thread that does nothing else; main: by the one that also serves programs and people, which saves some memory. */
  readonly thread: 'own' | 'main'
  /** Of a session, each with a thread of its own, a queue of the TUN device and a UDP port. */
  readonly lanes: number | 'auto'
  /** Packets of open connections that come alone pass by native code. */
  readonly express: boolean
  /** real-time: the threads that move packets run before all other programs. */
  readonly priority: 'normal' | 'real-time'
}

/** What becomes of the device, the sockets and the flows while no daemon runs. */
export interface KeeperSetting {
  /** A keeper holds them for the next daemon; false: they end with this one. */
  readonly on: boolean
  /** So many seconds without a daemon, and this host's programs do not ask for our zone any more. */
  readonly withdrawAfter: number
  /** So many, and everything is taken back. */
  readonly giveUpAfter: number
}

/** What the daemon may take of this host. */
export interface LimitsSetting {
  /** Rows of the flow table, both roles; a new flow beyond them is refused. */
  readonly flows: number
}

/** What one rule of the policy allows. */
export interface PolicySetting {
  /** Tags of the asking host; empty: any member. */
  readonly from: readonly string[]
  /** Services, each with all names below it; empty: every service. */
  readonly to: readonly string[]
  /** `tcp`, `udp`, `icmp`, `tcp/80`; empty: all. */
  readonly ports: readonly { readonly protocol: 'tcp' | 'udp' | 'icmp'; readonly port: number | undefined }[]
}

/** What is done with first packets to a name, see lib/service/local-rules.ts for which rule decides. */
export interface RuleSetting {
  /** Canonical; `*`: every name. */
  readonly name: string
  /** Names below it too. */
  readonly below: boolean
  readonly action: 'drop' | 'delay' | 'resolver'
  /** Of a resolver: name or host ID. */
  readonly host: string | undefined
  readonly priority: number
  readonly weight: number
}

/** Everything that `caracal up` needs to know, checked. */
export interface Config {
  /** Folder of keys, memberships and claims; absolute. */
  readonly state: string
  /** Control socket; absolute. */
  readonly socket: string
  /** Who may use the control socket besides root; undefined: group `caracal` where there is one. */
  readonly group: string | undefined
  /** One label. */
  readonly name: string
  /** Underlay UDP addresses. */
  readonly listen: readonly Locator[]
  /** ChaCha20-Poly1305 is always offered. */
  readonly aead: AeadSetting
  readonly offload: OffloadSetting
  readonly loop: LoopSetting
  readonly limits: LimitsSetting
  readonly keeper: KeeperSetting
  readonly tun: { readonly name: string; readonly mtu: number }
  /** IPv4 network of dialled, served, peer and self addresses, `ADDR/BITS`. */
  readonly pool: string
  /** Lower case, without dots at its ends. */
  readonly zone: string
  readonly dns: DnsMode
  readonly discovery: {
    readonly mdns: boolean
    /** Interfaces for mDNS; empty: all. */
    readonly interfaces: readonly string[]
    /** Tried for every known host, besides where it says it is. */
    readonly peers: readonly Locator[]
  }
  /** Exposed from the start. Reloadable. */
  readonly services: readonly ExposeRequest[]
  /** What is allowed; undefined: every member may reach every service. Reloadable. */
  readonly policy: readonly PolicySetting[] | undefined
  /** Reloadable. */
  readonly rules: readonly RuleSetting[]
  /** Reloadable. */
  readonly log: LogLevel
  /** TCP address of /metrics; undefined: none. */
  readonly metrics: Locator | undefined
}

/** Settings that SIGHUP and `caracal reload` put in force; all others need a restart. */
export const reloadableSettings = ['services', 'policy', 'rules', 'log'] as const satisfies readonly (keyof Config)[]

/** As the command line has them; undefined: not given. */
export interface ConfigOptions {
  readonly state?: string | undefined
  readonly socket?: string | undefined
  readonly name?: string | undefined
  readonly listen?: readonly string[] | undefined
  readonly tun?: string | undefined
  readonly dns?: string | undefined
  readonly log?: string | undefined
}

export interface ConfigSources {
  /** Path of the YAML file. */
  readonly file?: string | undefined
  readonly options: ConfigOptions
  readonly environment: { readonly CARACAL_SOCKET?: string | undefined; readonly CARACAL_STATE?: string | undefined }
}

/** What `caracal up` asks for. Plain data. */
export interface UpRequest {
  /** Where the configuration comes from; also at a reload. */
  readonly sources: ConfigSources
  /** Name of the network to create. */
  readonly create: string | undefined
  /** Token to join with. Never to be logged. */
  readonly join: string | undefined
  /** Take over from the daemon that runs, if one does. */
  readonly replace: boolean
}

export interface DaemonOptions extends UpRequest {
  /** As {@link loadConfig} has read it from the sources. */
  readonly config: Config
}

const labels = (text: string) => text.split('.')
const address = (text: string, ctx: z.RefinementCtx, defaultPort?: number): Locator => {
  const locator = parseLocator(text, defaultPort)
  if (locator !== undefined) return locator
  ctx.addIssue(`"${text}" is no address: expected ADDR:PORT such as 0.0.0.0:7474 or [::]:7474`)
  return z.NEVER
}
const underlayAddress = z.string().transform((text, ctx) => address(text, ctx, UDP_PORT))
const tcpAddress = z.string().transform((text, ctx) => address(text, ctx))

const hostName = z.string().transform((text, ctx) => {
  const name = text.toLowerCase()
  const problem = labelProblem(name)
  if (problem !== undefined) ctx.addIssue(`"${text}" is no host name: ${problem}`)
  return name
})
const zoneName = z.string().transform((text, ctx) => {
  const zone = text.toLowerCase().replace(/^\.|\.$/g, '')
  const problem =
    zone.length > ZONE_MAX ? `longer than ${ZONE_MAX} characters` : labels(zone).map(labelProblem).find(Boolean)
  if (problem !== undefined) ctx.addIssue(`"${text}" is no zone: ${problem}`)
  return zone
})
const tunName = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9_.-]{0,14}$/,
    'a device name has up to 15 letters, digits, "_", "." or "-", a letter first',
  )
const pool = z.string().transform((text, ctx) => {
  const [ip = '', bits = ''] = text.split('/')
  const valid =
    ipaddr.IPv4.isValidFourPartDecimal(ip) && /^\d{1,2}$/.test(bits) && Number(bits) >= 8 && Number(bits) <= 20
  if (!valid) {
    ctx.addIssue(`"${text}" is no IPv4 pool: expected ADDR/BITS with 8 to 20 bits, such as 198.18.0.0/15`)
    return z.NEVER
  }
  return `${ipaddr.IPv4.networkAddressFromCIDR(text).toString()}/${Number(bits)}`
})
const dns = z.string().transform((text, ctx) => {
  const mode = parseDnsMode(text)
  if (mode !== undefined) return mode
  ctx.addIssue(`"${text}" is no DNS mode: expected auto, resolved, none or file:/PATH`)
  return z.NEVER
})
const health = z.string().transform((text, ctx) => {
  const spec = parseHealth(text)
  if (spec !== undefined) return spec
  ctx.addIssue(`"${text}" is no health check: expected ${HEALTH_FORM}`)
  return z.NEVER
})
const proof = z.string().refine((text) => parseProof(text) !== undefined, {
  error: 'no proof: expected the last line of `caracal key proof`',
})
const serviceName = z.string().transform((text, ctx) => {
  const name = parseServiceName(text)
  if ('text' in name) return name.text
  ctx.addIssue(name.problem)
  return z.NEVER
})

const portList = (protocol: 'tcp' | 'udp') => {
  const one = z.union([z.number(), z.string()])
  return z.union([one, z.array(one)]).transform((value, ctx) =>
    (Array.isArray(value) ? value : [value]).map((text, i, all) => {
      const spec = parsePortSpec(protocol, String(text))
      const twice =
        spec !== undefined &&
        all.slice(0, i).some((other) => parsePortSpec(protocol, String(other))?.port === spec.port)
      if (spec !== undefined && !twice) return spec
      ctx.addIssue(twice ? `port ${spec.port} is given twice` : `"${text}" is no port: expected ${PORT_FORM}`)
      return z.NEVER
    }),
  )
}

const allowedPort = z.string().transform((text, ctx) => {
  const match = /^(?:(tcp|udp)(?:\/(\d{1,5}))?|(icmp))$/.exec(text)
  const port = match?.[2] === undefined ? undefined : Number(match[2])
  const protocol = match?.[1] === 'tcp' ? 'tcp' : match?.[1] === 'udp' ? 'udp' : match === null ? undefined : 'icmp'
  if (protocol !== undefined && (port === undefined || (port >= 1 && port <= 65_535)))
    return { protocol, port } as const
  ctx.addIssue(`"${text}" is no port of a policy: expected tcp, udp, icmp or such as tcp/80`)
  return z.NEVER
})

const tunShape = z.strictObject({
  name: tunName.default('caracal0'),
  mtu: z.number().int().min(1280).max(65_535).default(TUN_MTU),
})
const aeadShape = z.strictObject({
  offer: z
    .array(z.enum(aeadNames))
    .refine((list) => list.includes(COMMON_AEAD), `${COMMON_AEAD} is needed, so that any two hosts have one in common`)
    .default([...aeadNames]),
  implementation: z.enum(['auto', 'openssl', 'ipsec-mb']).default('auto'),
})
const offloadShape = z.strictObject({
  tun: z.enum(['uso', 'tso', 'checksum', 'none']).default('uso'),
  'vnet-header': z.boolean().default(true),
  gso: z.boolean().default(true),
  gro: z.boolean().default(true),
  buffers: z.number().int().min(BUFFER_MIN).max(BUFFER_MAX).default(BUFFER_BYTES),
})
const loopShape = z.strictObject({
  thread: z.enum(['own', 'main']).default('own'),
  lanes: z.union([z.literal('auto'), z.number().int().min(1).max(LANES_MAX)]).default('auto'),
  express: z.boolean().default(true),
  priority: z.enum(['normal', 'real-time']).default('normal'),
})
const limitsShape = z.strictObject({ flows: z.number().int().min(FLOWS_MIN).max(FLOWS_MAX).default(FLOWS) })
const afterSeconds = z.number().int().min(0).max(AFTER_MAX)
const keeperShape = z
  .strictObject({
    on: z.boolean().default(true),
    'withdraw-after': afterSeconds.default(WITHDRAW_AFTER),
    'give-up-after': afterSeconds.default(GIVE_UP_AFTER),
  })
  .refine((keeper) => keeper['withdraw-after'] <= keeper['give-up-after'], {
    path: ['withdraw-after'],
    error: 'must not be longer than `give-up-after`',
  })
const discoveryShape = z.strictObject({
  mdns: z.boolean().default(true),
  interfaces: z.array(tunName).default([]),
  peers: z.array(underlayAddress).default([]),
})
const serviceShape = z.strictObject({
  tcp: portList('tcp').default([]),
  udp: portList('udp').default([]),
  weight: z.number().int().min(0).max(WEIGHT_MAX).default(1),
  priority: z.number().int().min(0).max(PRIORITY_MAX).default(0),
  health: health.default({ kind: 'none' }),
  move: z.enum(moveKinds).default('drain'),
  proof: proof.optional(),
})
const policyShape = z.strictObject({
  from: z.array(z.string().min(1).max(64)).default([]),
  to: z.array(serviceName).default([]),
  ports: z.array(allowedPort).default([]),
})
const nameOfRule = z.string().transform((text, ctx) => {
  if (text === '*') return text
  const name = parseServiceName(text)
  if ('text' in name) return name.text
  ctx.addIssue(name.problem)
  return z.NEVER
})
const hostNameOrId = z.string().transform((text, ctx) => {
  const host = text.toLowerCase()
  const problem = /^[0-9a-f]{64}$/.test(host) ? undefined : labelProblem(host)
  if (problem !== undefined) ctx.addIssue(`"${text}" is neither a host's name nor its ID: ${problem}`)
  return host
})
const ruleShape = z
  .strictObject({
    name: nameOfRule,
    below: z.boolean().default(true),
    action: z.enum(['drop', 'delay', 'resolver']),
    host: hostNameOrId.optional(),
    priority: z.number().int().min(0).max(RANK_MAX).optional(),
    weight: z.number().int().min(0).max(RANK_MAX).default(1),
  })
  .superRefine(({ action, host }, ctx) => {
    if (action === 'resolver' && host === undefined) ctx.addIssue('a resolver is a host: give its name with `host:`')
    if (action !== 'resolver' && host !== undefined)
      ctx.addIssue({ code: 'custom', path: ['host'], message: `\`${action}\` has no host, only \`resolver\` has one` })
  })
const ruleList = z.array(ruleShape).superRefine((rules, ctx) => {
  rules.forEach(({ name, below, action, host }, i) => {
    const same = (other: (typeof rules)[number]) =>
      other.name === name && other.below === below && other.action === action && other.host === host
    if (rules.slice(0, i).some(same)) ctx.addIssue({ code: 'custom', path: [i], message: 'the same rule stands above' })
  })
})
const fileShape = z.strictObject({
  state: z.string().min(1).default(DEFAULT_STATE),
  socket: z.string().min(1).default(DEFAULT_SOCKET),
  group: z.string().min(1).optional(),
  name: hostName.optional(),
  listen: z
    .array(underlayAddress)
    .min(1)
    .max(LISTEN_MAX)
    .default([
      { address: '0.0.0.0', port: UDP_PORT },
      { address: '::', port: UDP_PORT },
    ]),
  aead: aeadShape.prefault({}),
  offload: offloadShape.prefault({}),
  loop: loopShape.prefault({}),
  limits: limitsShape.prefault({}),
  keeper: keeperShape.prefault({}),
  tun: tunShape.prefault({}),
  pool: pool.default('198.18.0.0/15'),
  zone: zoneName.default('svc.internal'),
  dns: dns.default({ kind: 'auto' }),
  discovery: discoveryShape.prefault({}),
  services: z.record(z.string(), serviceShape).default({}),
  policy: z.array(policyShape).optional(),
  rules: ruleList.default([]),
  log: z.enum(logLevels).default('info'),
  metrics: tcpAddress.optional(),
})

/** Keys that the file may have at a path. */
function keysAt(path: readonly PropertyKey[]): readonly string[] {
  if (path.length === 0) return Object.keys(fileShape.shape)
  const shapes = {
    aead: aeadShape,
    tun: tunShape,
    offload: offloadShape,
    loop: loopShape,
    limits: limitsShape,
    keeper: keeperShape,
    discovery: discoveryShape,
    services: serviceShape,
    policy: policyShape,
    rules: ruleShape,
  }
  const found = Object.entries(shapes).find(([key]) => key === path[0])?.[1]
  return found === undefined ? [] : Object.keys(found.shape)
}

/**
 * Reads and checks all settings.
 * @throws CaracalError CARACAL_E_CONFIG: for the file with line and column, for an option with its name
 */
export function loadConfig(sources: ConfigSources): Config {
  const file = sources.file === undefined ? undefined : readFile(sources.file)
  const settings = file === undefined ? fileShape.parse({}) : parseFile(file)
  const { options, environment } = sources
  const { 'vnet-header': vnetHeader, buffers: bufferBytes, ...offload } = settings.offload
  const services = Object.entries(settings.services).map(([key, service]): ExposeRequest => {
    const { tcp, udp, ...rest } = service
    const name = parseServiceName(key)
    if (!('text' in name)) throw place(file, ['services'], name.problem, 'rename it', key)
    const ports = [...tcp, ...udp]
    if (rest.proof !== undefined && name.kind !== 'key')
      throw place(file, ['services'], `${key} is no self-certifying name`, 'take its `proof:` out', key)
    if (ports.length === 0)
      throw place(file, ['services'], `service ${key} has no port`, 'give it `tcp:` or `udp:`', key)
    return { name: name.text, ports, ...rest }
  })
  return {
    state: resolve(options.state ?? given(environment.CARACAL_STATE) ?? settings.state),
    socket: resolve(options.socket ?? given(environment.CARACAL_SOCKET) ?? settings.socket),
    group: settings.group,
    name: option('--name', hostName, options.name) ?? settings.name ?? ownName(),
    listen: option('--listen', z.array(underlayAddress).min(1).max(LISTEN_MAX), options.listen) ?? settings.listen,
    aead: settings.aead,
    offload: { ...offload, vnetHeader, bufferBytes },
    loop: settings.loop,
    limits: settings.limits,
    keeper: {
      on: settings.keeper.on,
      withdrawAfter: settings.keeper['withdraw-after'],
      giveUpAfter: settings.keeper['give-up-after'],
    },
    tun: { ...settings.tun, name: option('--tun', tunName, options.tun) ?? settings.tun.name },
    pool: settings.pool,
    zone: settings.zone,
    dns: option('--dns', dns, options.dns) ?? settings.dns,
    discovery: settings.discovery,
    services,
    policy: settings.policy,
    rules: settings.rules.map(({ host, priority, ...rule }) => ({
      ...rule,
      host,
      // What is dropped is dropped whatever is known of it; the others are for what no instance is known of.
      priority: priority ?? (rule.action === 'drop' ? 0 : RANK_MAX),
    })),
    log: option('--log', z.enum(logLevels), options.log) ?? settings.log,
    metrics: settings.metrics,
  }
}

/** Settings that differ: those that a reload puts in force, and those that need a restart. */
export function compareConfigs(
  before: Config,
  after: Config,
): { readonly changed: string[]; readonly restart: string[] } {
  const reloadable: readonly string[] = reloadableSettings
  const changed: string[] = []
  const restart: string[] = []
  const old = new Map<string, unknown>(Object.entries(before))
  for (const [key, value] of Object.entries(after)) {
    if (JSON.stringify(value) === JSON.stringify(old.get(key))) continue
    if (reloadable.includes(key)) changed.push(key)
    else restart.push(key)
  }
  return { changed, restart }
}

function readFile(path: string): ConfigDocument {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const why = systemCode(error) === 'ENOENT' ? 'there is no such file' : messageOf(error)
    const what = `the configuration ${path} cannot be read (${why})`
    throw new CaracalError('CARACAL_E_CONFIG', what, 'give another with --config, or none', { cause: error })
  }
  if (text.length > FILE_MAX)
    throw new CaracalError('CARACAL_E_CONFIG', `${path} is larger than 1 MB`, 'is it the right file?')
  return new ConfigDocument(text, path)
}

function parseFile(file: ConfigDocument): z.output<typeof fileShape> {
  const parsed = fileShape.safeParse(file.value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  if (issue?.code !== 'unrecognized_keys') {
    const setting = issue?.path.join('.') ?? ''
    const message = issue?.message ?? 'not a configuration'
    throw file.error(issue?.path ?? [], setting === '' ? message : `${setting}: ${message}`, 'correct it')
  }
  const [key = ''] = issue.keys
  const keys = keysAt(issue.path)
  const near = nearest(key, keys)
  const next = near === undefined ? `known are ${keys.join(', ')}` : `did you mean "${near}"?`
  throw file.error(issue.path, `unknown setting "${key}"`, next, key)
}

function place(
  file: ConfigDocument | undefined,
  path: readonly string[],
  message: string,
  next: string,
  key: string,
): CaracalError {
  return file?.error(path, message, next, key) ?? new CaracalError('CARACAL_E_CONFIG', message, next)
}

function option<T>(flag: string, shape: z.ZodType<T>, value: unknown): T | undefined {
  if (value === undefined) return undefined
  const parsed = shape.safeParse(value)
  if (parsed.success) return parsed.data
  throw new CaracalError(
    'CARACAL_E_USAGE',
    `${flag}: ${parsed.error.issues[0]?.message ?? 'bad value'}`,
    'see `caracal up --help`',
  )
}

/** A variable that is set but empty is not set. */
function given(value: string | undefined): string | undefined {
  return value === '' ? undefined : value
}

/** This machine's name as a label. */
function ownName(): string {
  const name = (hostname().split('.')[0] ?? '').toLowerCase().replace(/[^a-z0-9-]+/g, '-')
  const label = name.slice(0, 63).replace(/^-+|-+$/g, '')
  return label === '' ? 'host' : label
}
