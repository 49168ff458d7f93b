import { z } from 'zod'
import type { LocalEndpoint } from '../lib/flow/environment.js'
import type { LocalEndpoints } from '../lib/host/host-environment.js'
import type { DropReason } from '../lib/wire/drop.js'
import type { ServiceId } from '../lib/wire/ids.js'
import { Protocol } from '../lib/wire/constants.js'
import { exposeRequestShape, type ExposeRequest, type PortSpec } from './control/protocol.js'
import { probeHealth } from './health.js'
import { readListeners, reachOf, type Listener } from './listeners.js'
import type { StateDirectory } from './state-files.js'

export type InstanceHealth = 'up' | 'unhealthy'

/** A service this host offers. */
export interface Instance {
  readonly service: ServiceId
  readonly request: ExposeRequest
  /** From the configuration: not written to the state directory. */
  readonly configured: boolean
  health: InstanceHealth
  /** Why it is unhealthy, for people. */
  detail: string
  /** By `tcp/80`: where the server is. */
  readonly endpoints: Map<string, LocalEndpoint>
  probing: boolean
  probedAt: number
}

export interface InstancesComponents {
  readonly state: StateDirectory
  /** Served address of a service. */
  readonly served: (service: ServiceId, family: 4 | 6) => Uint8Array
  /** The instance's health is another one now: to be published. */
  readonly changed: (instance: Instance) => void
  readonly now: () => number
}

const FILE = 'services'
const SCAN_MS = 200
const PROBE_MS = 2_000
/** Between looks that a packet asks for. */
const LOOK_AGAIN_MS = 10
const saved = z.array(exposeRequestShape)
const LOOPBACK = Uint8Array.of(127, 0, 0, 1)

/**
 * The services of this host: what is exposed, where each server listens and whether it is well. What listens is read from the kernel several times a second without contacting
 * anybody; a TCP or HTTP probe comes on top where it was asked for.
 */
export class Instances implements LocalEndpoints {
  readonly #instances = new Map<ServiceId, Instance>()
  #timer: NodeJS.Timeout | undefined
  #lookedAt = -Infinity

  constructor(private readonly components: InstancesComponents) {}

  /** What was exposed before a restart. */
  async restored(): Promise<ExposeRequest[]> {
    const { state } = this.components
    return (await state.read(FILE, (bytes) => saved.safeParse(parseJson(bytes)).data)) ?? []
  }

  start(): void {
    this.#timer = setInterval(() => this.scan(), SCAN_MS)
    this.#timer.unref()
  }
  stop(): void {
    clearInterval(this.#timer)
  }

  all(): IterableIterator<Instance> {
    return this.#instances.values()
  }
  get(service: ServiceId): Instance | undefined {
    return this.#instances.get(service)
  }

  /** Adds or replaces; the instance's health is known when this resolves. Not saved, see {@link save}. */
  async add(service: ServiceId, request: ExposeRequest, configured: boolean): Promise<Instance> {
    const instance: Instance = {
      service,
      request,
      configured,
      health: 'unhealthy',
      detail: 'not looked at yet',
      endpoints: new Map(),
      probing: false,
      probedAt: -Infinity,
    }
    this.#locate(instance, readListeners())
    if (instance.health === 'up' && request.health.kind !== 'none') await this.#probe(instance)
    this.#instances.set(service, instance)
    return instance
  }

  remove(service: ServiceId): boolean {
    return this.#instances.delete(service)
  }

  /** Writes down what was exposed by hand. */
  save(): Promise<void> {
    const requests = [...this.#instances.values()].filter((i) => !i.configured).map((i) => i.request)
    return this.components.state.write(FILE, Buffer.from(JSON.stringify(requests)))
  }

  find(service: ServiceId, protocol: number, port: number): LocalEndpoint | DropReason {
    const instance = this.#instances.get(service)
    if (instance === undefined) return 'no-instance'
    if (protocol === Protocol.icmp) return { family: 4, address: this.components.served(service, 4), port: 0 }
    const key = `${protocol === Protocol.tcp ? 'tcp' : 'udp'}/${port}`
    if (!instance.request.ports.some((spec) => keyOf(spec) === key)) return 'refused'
    const known = instance.endpoints.get(key)
    if (known !== undefined) return known
    // The server may have come since the last look, as those do that open a port only when they are asked to.
    const now = this.components.now()
    if (now - this.#lookedAt >= LOOK_AGAIN_MS) this.scan()
    const endpoint = instance.endpoints.get(key)
    if (endpoint !== undefined) return endpoint
    if (protocol === Protocol.tcp) return 'refused'
    // The kernel answers for a UDP port without a server.
    const local = instance.request.ports.find((spec) => keyOf(spec) === key)?.local ?? port
    return { family: 4, address: this.components.served(service, 4), port: local }
  }

  /** Looks at all servers now; tells what has changed. */
  scan(): void {
    if (this.#instances.size === 0) return
    const listeners = readListeners()
    const now = this.components.now()
    this.#lookedAt = now
    for (const instance of this.#instances.values()) {
      const before = `${instance.health} ${instance.detail}`
      const failing = instance.health === 'unhealthy' && instance.endpoints.size > 0
      const detail = instance.detail
      this.#locate(instance, listeners)
      const probed = instance.request.health.kind !== 'none'
      // What listens is well only when its last probe said so too.
      if (probed && failing && instance.health === 'up') {
        instance.health = 'unhealthy'
        instance.detail = detail
      }
      if (probed && !instance.probing && now - instance.probedAt >= PROBE_MS && instance.endpoints.size > 0) {
        void this.#probe(instance).then(() => this.#tell(instance, before))
      }
      this.#tell(instance, before)
    }
  }

  #tell(instance: Instance, before: string): void {
    if (this.#instances.get(instance.service) !== instance) return
    if (`${instance.health} ${instance.detail}` !== before) this.components.changed(instance)
  }

  /** Finds the server of each port among what listens. One of them makes the instance well: a connection to another port is refused, and goes elsewhere. */
  #locate(instance: Instance, listeners: readonly Listener[]): void {
    const problems: string[] = []
    // Many servers open their UDP port only for a client that has come by TCP.
    const judged = instance.request.ports.some((spec) => spec.protocol === 'tcp') ? 'tcp' : 'udp'
    let well = false
    for (const spec of instance.request.ports) {
      const here = listeners.filter((l) => l.protocol === spec.protocol && l.port === spec.local)
      const endpoint = this.#endpoint(instance.service, spec, here)
      if (typeof endpoint !== 'string') instance.endpoints.set(keyOf(spec), endpoint)
      else instance.endpoints.delete(keyOf(spec))
      if (spec.protocol !== judged) continue
      if (typeof endpoint === 'string') problems.push(endpoint)
      else well = true
    }
    instance.health = well ? 'up' : 'unhealthy'
    instance.detail = problems.join('; ')
  }

  #endpoint(service: ServiceId, spec: PortSpec, here: readonly Listener[]): LocalEndpoint | string {
    const { served } = this.components
    const port = spec.local
    const any = (family: 4 | 6) => here.some((l) => l.family === family && reachOf(l) === 'any')
    if (any(4)) return { family: 4, address: served(service, 4), port }
    // A wildcard IPv6 socket always hears IPv6, whether or not it hears IPv4 too.
    if (any(6)) return { family: 6, address: served(service, 6), port }
    if (here.some((l) => l.family === 4 && reachOf(l) === 'loopback')) return { family: 4, address: LOOPBACK, port }
    const own = here.find((l) => reachOf(l) === 'own')
    if (own !== undefined) return { family: own.family, address: own.address, port }
    const what = `${spec.protocol.toUpperCase()} port ${port}`
    return here.length > 0
      ? `what listens on ${what} hears [::1] only, which the kernel keeps from other hosts: let it listen on 127.0.0.1 or ::`
      : `nothing listens on ${what}`
  }

  async #probe(instance: Instance): Promise<void> {
    const { health, ports } = instance.request
    const spec = ports.find((p) => p.protocol === 'tcp')
    if (health.kind === 'none' || spec === undefined) return
    const endpoint = instance.endpoints.get(keyOf(spec))
    if (endpoint === undefined) return
    instance.probing = true
    try {
      const probe = health.kind === 'http' ? { ...health, port: spec.local } : { kind: health.kind, port: spec.local }
      const addresses = endpoint.family === 4 ? ['127.0.0.1'] : ['::1']
      const result = await probeHealth(probe, [...addresses, textOf(endpoint)])
      instance.health = result.healthy ? 'up' : 'unhealthy'
      instance.detail = result.detail
    } finally {
      instance.probing = false
      instance.probedAt = this.components.now()
    }
  }
}

function keyOf(spec: { readonly protocol: string; readonly port: number }): string {
  return `${spec.protocol}/${spec.port}`
}

function textOf({ family, address }: LocalEndpoint): string {
  if (family === 4) return address.join('.')
  const groups: string[] = []
  for (let i = 0; i < 16; i += 2) groups.push(((address[i]! << 8) | address[i + 1]!).toString(16))
  return groups.join(':')
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
