import type { HostId, ServiceId } from '../wire/ids.js'
import type { Instance } from './catalogue.js'

export interface ChoiceOptions {
  /** ms that an instance is put last after it refused or did not answer. */
  readonly penalty: number
  /** ms after which a peer's age counts as "not heard of lately". */
  readonly doubtAfter: number
  /** Flows per unit of weight share below which two instances count as equally loaded, so that weights alone decide. */
  readonly loadSlack: number
  /** Round trips count as equal within this factor, and within `rttSlack` ms. */
  readonly rttFactor: number
  readonly rttSlack: number
}

export const choiceDefaults: ChoiceOptions = {
  penalty: 3_000,
  doubtAfter: 1_500,
  loadSlack: 16,
  rttFactor: 2,
  rttSlack: 20,
}

/** What this host knows of the host an instance is on. */
export interface HostCondition {
  /** 'dead': probes say so; 'suspect': they begin to. */
  readonly liveness: 'alive' | 'suspect' | 'dead' | 'unknown'
  /** ms since anything was heard of it; 0 for this host. */
  readonly age: number
  /** How far it is: the shortest of the last round trips, ms; 0: unknown. */
  readonly rtt: number
}

export interface ChoiceComponents {
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly condition: (host: HostId) => HostCondition
  /** Flows that this host has open to the instance. */
  readonly openFlows: (service: ServiceId, host: HostId) => number
}

export interface Choice {
  readonly instance: Instance
  /** Not heard of lately: ask the next one shortly after. */
  readonly doubtful: boolean
}

const PENALTIES_MAX = 4_096
const TURNS_MAX = 4_096
/** Points this far apart, modulo 1, are spread evenly however many there are (additive recurrence of the golden ratio). */
const TURN = (Math.sqrt(5) - 1) / 2

interface Penalty {
  readonly until: number
  /** When the whole host fell silent, and not the instance alone; Infinity: the host was heard meanwhile. */
  readonly hostSilentAt: number
}

/**
 * Chooses instances for new flows. Order: instances in good standing before those that refused or were silent a moment ago, and before those on dead
 * hosts; then by priority; within one priority a weighted draw without replacement, in which the drawn one yields to a second draw when that
 * is clearly less loaded for its weight, or as loaded and clearly nearer. With little load on either the draw stands, so that the split follows the weights exactly:
 * the first draws for a service are spread evenly, so that a few hundred flows are off by one or two and not by what chance allows.
 */
export class InstanceChoice {
  readonly #options: ChoiceOptions
  readonly #components: ChoiceComponents
  readonly #penalties = new Map<string, Penalty>()
  /** Point of the last first draw, by service. */
  readonly #turns = new Map<ServiceId, number>()

  constructor(options: ChoiceOptions, components: ChoiceComponents) {
    this.#options = options
    this.#components = components
  }

  /** All of `instances`, the best first; the others are for retries and hedging, in the order to be tried. */
  order(instances: readonly Instance[], now: number): Choice[] {
    const groups = new Map<number, Instance[]>()
    for (const instance of instances) {
      const rank = this.#standing(instance, now) * 65_536 + instance.priority
      const group = groups.get(rank)
      if (group === undefined) groups.set(rank, [instance])
      else group.push(instance)
    }
    const ordered: Choice[] = []
    for (const rank of [...groups.keys()].sort((a, b) => a - b)) {
      for (const instance of this.#drawAll(groups.get(rank)!))
        ordered.push({ instance, doubtful: this.#doubtful(instance, now) })
    }
    return ordered
  }

  /** How a try ended that began at `since`. A host that stood still for a moment, as a busy one does, is itself again as soon as it is heard. */
  outcome(
    service: ServiceId,
    host: HostId,
    outcome: 'answered' | 'refused' | 'silent',
    since: number,
    now: number,
  ): void {
    const key = `${service}/${host}`
    this.#penalties.delete(key)
    if (outcome === 'answered') return
    if (this.#penalties.size >= PENALTIES_MAX) this.#penalties.delete(this.#penalties.keys().next().value ?? key)
    const hostSilent = outcome === 'silent' && this.#heardAt(host, now) < since
    this.#penalties.set(key, { until: now + this.#options.penalty, hostSilentAt: hostSilent ? now : Infinity })
  }

  /** 0 good, 1 penalised or suspect, 2 dead. */
  #standing(instance: Instance, now: number): number {
    const { liveness } = this.#components.condition(instance.host)
    if (liveness === 'dead') return 2
    return liveness === 'suspect' || this.#penalised(instance, now) ? 1 : 0
  }

  #penalised({ service, host }: Instance, now: number): boolean {
    const penalty = this.#penalties.get(`${service}/${host}`)
    return penalty !== undefined && now < penalty.until && this.#heardAt(host, now) < penalty.hostSilentAt
  }

  #heardAt(host: HostId, now: number): number {
    return now - this.#components.condition(host).age
  }

  #doubtful(instance: Instance, now: number): boolean {
    const { liveness, age } = this.#components.condition(instance.host)
    return liveness !== 'alive' || age > this.#options.doubtAfter || this.#standing(instance, now) > 0
  }

  /** The group in a random order that follows the weights: one draw after the other from those that are left. */
  #drawAll(group: Instance[]): Instance[] {
    const left = [...group]
    const drawn: Instance[] = []
    while (left.length > 1) {
      const first = drawn.length === 0 ? pointedAt(left, this.#turn(left[0]!.service)) : this.#draw(left)
      const second = drawn.length === 0 ? this.#draw(left) : first
      const chosen = second !== first && this.#better(left[second]!, left[first]!, left) ? second : first
      drawn.push(...left.splice(chosen, 1))
    }
    return [...drawn, ...left]
  }

  #draw(instances: readonly Instance[]): number {
    return drawByWeight(instances, this.#components.random)
  }

  /** In [0, 1): the service's next point. Each host begins at one of its own. */
  #turn(service: ServiceId): number {
    const last = this.#turns.get(service)
    const next = last === undefined ? this.#components.random() : (last + TURN) % 1
    if (last === undefined && this.#turns.size >= TURNS_MAX)
      this.#turns.delete(this.#turns.keys().next().value ?? service)
    this.#turns.set(service, next)
    return next
  }

  #better(a: Instance, b: Instance, all: readonly Instance[]): boolean {
    // Load for an instance of average weight, so that the slack is in flows.
    let total = 0
    for (const { weight } of all) total += weight
    const mean = Math.max(1, total / all.length)
    const loadA = (this.#load(a) * mean) / Math.max(1, a.weight)
    const loadB = (this.#load(b) * mean) / Math.max(1, b.weight)
    const slack = Math.max(this.#options.loadSlack, 0.25 * Math.max(loadA, loadB))
    if (Math.abs(loadA - loadB) > slack) return loadA < loadB
    const rttA = this.#components.condition(a.host).rtt
    const rttB = this.#components.condition(b.host).rtt
    return rttA > 0 && rttB > 0 && rttB > rttA * this.#options.rttFactor && rttB - rttA > this.#options.rttSlack
  }

  #load(instance: Instance): number {
    return this.#components.openFlows(instance.service, instance.host) + instance.load
  }
}

/** Position of one of them, drawn by their weights; all weights 0: each is as likely as the others. */
export function drawByWeight(items: readonly { readonly weight: number }[], random: () => number): number {
  return pointedAt(items, random())
}

/** `at`: in [0, 1), of the sum of the weights. */
function pointedAt(items: readonly { readonly weight: number }[], at: number): number {
  let total = 0
  for (const { weight } of items) total += weight
  let point = at * (total === 0 ? items.length : total)
  for (let i = 0; i < items.length; i++) {
    point -= total === 0 ? 1 : items[i]!.weight
    if (point < 0) return i
  }
  return items.length - 1
}
