import { z } from 'zod'
import type { LocalEndpoint } from '../lib/flow/environment.js'
import type { LocalEndpoints } from '../lib/host/host-environment.js'
import type { DropReason } from '../lib/wire/drop.js'
import type { ServiceId } from '../lib/wire/ids.js'
import { formatAddress } from '../lib/service/address-plan.js'
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
  /** What is wrong with it, for people: why it is unhealthy, or which of its ports has no server. */
  detail: string
  /** One of the ports that count has a server. */
  listens: boolean
  /** What does not listen; empty: all that is to. */
  unheard: string
  /** What the last probe said against the server; empty: nothing; undefined: it has not been probed since it came. */
  failing: string | undefined
  /** By `tcp/80`: where the server is. */
  readonly endpoints: Map<string, LocalEndpoint>
  probing: boolean
  probedAt: number
  /** Goes up when the probed server goes: what a probe says is about one server. */
  generation: number
}

/** Who looks at what listens, and calls {@link Instances.scan} when it has changed. */
export interface ListenerWatching {
  /** As {@link ListenerWatch.busy}. */
  busy(protocols: readonly Listener['protocol'][], missing: boolean): void
}

export interface InstancesComponents {
  readonly state: StateDirectory
  /** Served address of a service. */
  readonly served: (service: ServiceId, family: 4 | 6) => Uint8Array
  /** The instance's health is another one now: to be published. */
  readonly changed: (instance: Instance) => void
  readonly now: () => number
  /** Folder of the kernel's socket tables, another than this process's in tests. */
  readonly listenersFrom?: string
}

const FILE = 'services'
const NOT_PROBED = 'not probed yet'
const PROBE_MS = 2_000
/** Who looks at what listens is told so often, at most, that something happens. */
const BUSY_AGAIN_MS = 5_000
/** Between looks that a packet asks for. */
const LOOK_AGAIN_MS = 10
const saved = z.array(exposeRequestShape)

/**
 * The services of this host: what is exposed, where each server listens and whether it is well. What listens is read from the kernel without contacting anybody, whenever
 * {@link ListenerWatch}, or whoever else does it, says that it has changed; a TCP or HTTP probe comes on top where it was asked for.
 */
export class Instances implements LocalEndpoints {
  readonly #instances = new Map<ServiceId, Instance>()
  /** Read from disk and not added again yet, by name: a save meanwhile must not lose them. */
  readonly #restored = new Map<string, ExposeRequest>()
  #listeners: readonly Listener[] = []
  /** The next probe. */
  #timer: NodeJS.Timeout | undefined
  #watch: ListenerWatching | undefined
  /** When that was told last that something happens, ms. */
  #busyAt = -Infinity
  #lookedAt = -Infinity

  constructor(private readonly components: InstancesComponents) {}

  /** What was exposed before a restart. */
  async restored(): Promise<ExposeRequest[]> {
    const { state } = this.components
    const requests = (await state.read(FILE, (bytes) => saved.safeParse(parseJson(bytes)).data)) ?? []
    for (const request of requests) this.#restored.set(request.name, request)
    return requests
  }

  /** From now on servers that come and go are noticed, and probes repeated. */
  start(watch: ListenerWatching): void {
    this.#watch = watch
    this.#busy(true)
    this.#arm()
  }
  stop(): void {
    this.#watch = undefined
    clearTimeout(this.#timer)
  }

  /** The next probe of any server. */
  #arm(): void {
    if (this.#watch === undefined) return
    clearTimeout(this.#timer)
    let due = Infinity
    for (const instance of this.#instances.values())
      if (this.#mayBeProbed(instance)) due = Math.min(due, instance.probedAt + PROBE_MS)
    if (due === Infinity) return
    this.#timer = setTimeout(() => this.#probeDue(), Math.max(0, due - this.components.now()))
    this.#timer.unref()
  }

  /** Something happens: servers are looked at more closely for a while, or as long as one is missing; `changed`: there may be other protocols than before, or one is missing or not any more. */
  #busy(changed = false): void {
    const now = this.components.now()
    if (this.#watch === undefined || (!changed && now - this.#busyAt < BUSY_AGAIN_MS)) return
    this.#busyAt = now
    const missing = [...this.#instances.values()].some(({ listens }) => !listens)
    this.#watch.busy([...this.#protocols()], missing)
  }

  /** Those that the instances have. */
  #protocols(added?: Instance): Set<Listener['protocol']> {
    const all = [...this.#instances.values(), ...(added === undefined ? [] : [added])]
    return new Set(all.flatMap(({ request }) => request.ports.map(({ protocol }) => protocol)))
  }

  get count(): number {
    return this.#instances.size
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
      detail: '',
      listens: false,
      unheard: '',
      failing: undefined,
      endpoints: new Map(),
      probing: false,
      probedAt: -Infinity,
      generation: 0,
    }
    this.#locate(instance, this.#look(instance))
    if (this.#isToBeProbed(instance)) await this.#probe(instance)
    this.#instances.set(service, instance)
    this.#busy(true)
    this.#arm()
    this.#restored.delete(request.name)
    return instance
  }

  remove(service: ServiceId): boolean {
    const had = this.#instances.delete(service)
    this.#busy(true)
    return had
  }

  /** Writes down what was exposed by hand. */
  save(): Promise<void> {
    const byHand = [...this.#instances.values()].filter((i) => !i.configured).map((i) => i.request)
    const requests = [...byHand, ...this.#restored.values()]
    return this.components.state.write(FILE, Buffer.from(JSON.stringify(requests)))
  }

  find(service: ServiceId, protocol: number, port: number): LocalEndpoint | DropReason {
    const instance = this.#instances.get(service)
    if (instance === undefined) return 'no-instance'
    this.#busy()
    if (protocol === Protocol.icmp) return { family: 4, address: this.components.served(service, 4), port: 0 }
    const key = `${protocol === Protocol.tcp ? 'tcp' : 'udp'}/${port}`
    if (!instance.request.ports.some((spec) => keyOf(spec) === key)) return 'refused'
    const known = instance.endpoints.get(key)
    if (known !== undefined) return known
    // The server may have come since the last look, as those do that open a port only when they are asked to.
    if (this.components.now() - this.#lookedAt >= LOOK_AGAIN_MS) this.scan()
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
    const listeners = this.#look()
    for (const instance of this.#instances.values()) this.#locate(instance, listeners)
    this.#probeDue()
  }

  #probeDue(): void {
    for (const instance of this.#instances.values()) if (this.#isToBeProbed(instance)) void this.#probe(instance)
    this.#arm()
  }

  /** What listens now, of the protocols that the instances have; what did before where that cannot be read, as when the process has no descriptors left. */
  #look(added?: Instance): readonly Listener[] {
    this.#lookedAt = this.components.now()
    try {
      this.#listeners = readListeners(this.#protocols(added), this.components.listenersFrom)
    } catch {
      // The next look will do.
    }
    return this.#listeners
  }

  /** Draws the conclusion from what is known, and tells it when it is another one. What listens is well only when its last probe said so too. */
  #judge(instance: Instance): void {
    const { health, detail } = instance
    const { unheard, failing } = instance
    const problems = [unheard, failing ?? (unheard === '' ? NOT_PROBED : '')].filter((problem) => problem !== '')
    instance.health = instance.listens && failing === '' ? 'up' : 'unhealthy'
    instance.detail = problems.join('; ')
    if (this.#instances.get(instance.service) !== instance) return
    if (instance.health === health && instance.detail === detail) return
    this.#busy(true)
    this.components.changed(instance)
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
    instance.listens = well
    instance.unheard = problems.join('; ')
    if (!hasProbe(instance.request)) instance.failing = ''
    else if (this.#probed(instance) === undefined) {
      // When it comes back it is looked at anew, and at once.
      instance.failing = undefined
      instance.probing = false
      instance.probedAt = -Infinity
      instance.generation++
    }
    this.#judge(instance)
  }

  #endpoint(service: ServiceId, spec: PortSpec, here: readonly Listener[]): LocalEndpoint | string {
    const { served } = this.components
    const port = spec.local
    const any = (family: 4 | 6) => here.some((l) => l.family === family && reachOf(l) === 'any')
    if (any(4)) return { family: 4, address: served(service, 4), port }
    // A wildcard IPv6 socket always hears IPv6, whether or not it hears IPv4 too.
    if (any(6)) return { family: 6, address: served(service, 6), port }
    const one = here.find((l) => l.family === 4 && reachOf(l) === 'loopback') ?? here.find((l) => reachOf(l) === 'own')
    if (one !== undefined) return { family: one.family, address: one.address, port }
    const what = `${spec.protocol.toUpperCase()} port ${port}`
    if (here.length === 0) return `nothing listens on ${what}`
    return here.some((l) => reachOf(l) === 'loopback')
      ? `what listens on ${what} hears [::1] only, which the kernel keeps from other hosts: let it listen on 127.0.0.1 or ::`
      : `what listens on ${what} hears a multicast or link-local address only: let it listen on 127.0.0.1 or ::`
  }

  /** Where the port that is probed has its server: the first TCP port. */
  #probed({ request, endpoints }: Instance): LocalEndpoint | undefined {
    const spec = request.ports.find((p) => p.protocol === 'tcp')
    return spec && endpoints.get(keyOf(spec))
  }

  #mayBeProbed(instance: Instance): boolean {
    return hasProbe(instance.request) && !instance.probing && this.#probed(instance) !== undefined
  }

  #isToBeProbed(instance: Instance): boolean {
    if (!this.#mayBeProbed(instance)) return false
    return this.components.now() - instance.probedAt >= PROBE_MS
  }

  async #probe(instance: Instance): Promise<void> {
    const { health } = instance.request
    const endpoint = this.#probed(instance)
    if (health.kind === 'none' || endpoint === undefined) return
    const { generation } = instance
    const { family, port } = endpoint
    const address = formatAddress(endpoint.address)
    const probe = health.kind === 'http' ? { ...health, port } : { kind: health.kind, port }
    // A server on the wildcard address hears loopback too, where nothing of ours is in between.
    const wildcard = address === formatAddress(this.components.served(instance.service, family))
    instance.probing = true
    const { healthy, detail } = await probeHealth(
      probe,
      wildcard ? [family === 4 ? '127.0.0.1' : '::1', address] : [address],
    )
    if (instance.generation !== generation) return
    instance.probing = false
    instance.probedAt = this.components.now()
    instance.failing = healthy ? '' : detail
    this.#judge(instance)
    this.#arm()
  }
}

/** UDP servers are not probed. */
function hasProbe({ health, ports }: ExposeRequest): boolean {
  return health.kind !== 'none' && ports.some(({ protocol }) => protocol === 'tcp')
}

function keyOf(spec: { readonly protocol: string; readonly port: number }): string {
  return `${spec.protocol}/${spec.port}`
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
