// A MetricsSample in Prometheus's text format. The only user of prom-client, which is loaded with this file.

import { Counter, Gauge, Registry, type PrometheusContentType } from 'prom-client'
import { dropReasons } from '../lib/wire/drop.js'
import type { MetricsSample } from './metrics.js'

/** Series are made of names that the daemon's own code gives; more than this is a fault of it. */
const COUNTERS_MAX = 256
const NAME = /^[a-z][A-Za-z0-9]{0,63}$/
const EVENT = /^[A-Za-z][A-Za-z0-9-]{0,63}$/
/** What a count counts comes last, before `total`. */
const units: ReadonlySet<string> = new Set(['bytes', 'packets', 'frames', 'datagrams', 'batches', 'ms'])

/** What is not evident from a counter's name. */
const explained: Readonly<Record<string, string>> = {
  opened: "Flows that this host's programs began",
  accepted: "Flows that were begun towards this host's services",
  retried: 'Instances that were asked after the first one had refused or was silent',
  hedged: 'Second instances that were asked because the first one was doubtful',
  followed: 'Hosts that were asked because another one had named them',
  askedAgain: 'Hosts that were asked again because they were loading',
  queryAsked: 'Questions of this host to its neighbours about services that nothing is known of',
  queryTold: 'Questions of other hosts that were answered',
  queryPassed: 'Questions of other hosts that were passed on',
  queryAnswered: 'Answers to questions of this host',
  queryLimited: 'Questions that were too many',
  refused: 'Flows that no instance took',
  aged: 'Flows that ended because nothing was heard of them',
  clashes: 'Client ports that were translated because they were taken',
  refusalsOnce: 'Refusals of connections that were told to programs once only, as there were too many at a time',
  held: 'Packets and frames that had to wait for a session or a path to their host',
  heldSent: 'Of them those that went on when there was one; the others were dropped as queue-full or queue-expired',
  hastened:
    'Flows whose program waited to send something again, and was told to do it now, as their host was there again',
  notHereSent: 'Answers to frames whose flow is not on this host',
  notHereReceived: 'Answers of other hosts that a flow is not there',
  wireAgainFrames: 'Frames sent again to the new address of a host, as the old one had fallen silent',
  wireAgainOverruns: 'Moves after which some of what was to be sent again was not kept any more',
  expressPacketsOut: 'Packets of own programs that came alone and passed without the event loop',
  expressPacketsIn: 'Packets to own programs that came alone and passed without the event loop',
  movesSent: "Hosts that were told that this host's addresses have changed",
  movesUnanswered: 'Hosts that were told so and did not acknowledge it',
  movesReceived: 'Messages of hosts whose addresses have changed',
  movesSettled: 'Moves after which the other host was heard by the new path',
  moveStallMs: 'How long nothing had come from the other host then, all together, ms',
  pathCommitsCandidate: 'Paths that were left for one that was only learnt of',
  pathCommitsEstablished: 'Paths that were left because a handshake came by another one',
  pathCommitsProven: 'Paths that were left because another one was proven while frames had none',
  pausesReceived: 'Pauses that were kept because another host was about to be restarted',
  keeperTakeovers: 'Daemons that went on with the device, sockets and flows of the one before',
  flowsKept: 'Flows of the last daemon that went on',
  flowsUnfinished: 'Flows of the last daemon that were not open yet, and were left to their programs',
  flowsTorn: 'Flows of the last daemon that were being written when it died',
  logLinesDropped: 'Lines of the log that were dropped since nobody took them in time',
  flowsNameless: 'Flows of the last daemon whose host or service is not known any more',
  pathCommitsSilent: 'Paths that were left because their probes stayed unanswered',
  pathCommitsAddressGone: 'Paths that were left because an address of them was gone',
  pathCommitsDeprecated: 'Paths that were left because an address of them was about to go',
  pathCommitsBetter: 'Paths that were left for a clearly better one',
  pathCommitsPeerMoved: 'Paths that were left because the other host sends from elsewhere',
  pathCommitsLinksChanged: 'Paths that go from another address of this host because its links have changed',
  pathCommitsRerouted: 'Paths that were left because the routes of this host prefer another of its addresses',
  pathCommitsNoRoute: 'Paths that were left because this host had no route to where they lead',
  nameRulesInvalid: 'Rules for names that were refused because nobody of this network has signed them, or may',
  nameRulesRevoked: 'Rules for names that were refused because their issuer is revoked',
  nameRulesFull: 'Rules for names that were refused because there were too many',
  probesSent: 'Probes of paths',
  probesEchoed: 'Probes of paths that have come back',
  pathMtuRaised: 'Paths that turned out to carry larger packets than was taken for true',
  pathMtuLowered: 'Paths that turned out to carry only smaller packets',
  piecesOut: 'Pieces of datagrams that were too large for their path',
  tooBig: 'Packets that were answered with "too big"',
  tunPacketsLost: 'Packets of own programs that the kernel dropped, as the TUN device was not read in time',
  wireDatagramsLost: 'Datagrams of other hosts that the kernel dropped, as the UDP sockets were not read in time',
}

/** Writes samples, one after another. */
export class MetricsText {
  readonly #registry = new Registry<PrometheusContentType>()
  readonly #counters = new Map<string, Counter>()
  readonly #info = this.#gauge('caracal_info', 'The daemon, always 1', ['version'])
  readonly #started = this.#gauge('process_start_time_seconds', 'Start of the daemon, seconds since the epoch')
  readonly #memory = this.#gauge('process_resident_memory_bytes', 'Resident memory of the daemon')
  readonly #cpu = this.#counter('process_cpu_seconds_total', 'Processor time of the daemon')
  readonly #loop = this.#gauge(
    'caracal_event_loop_delay_seconds',
    'How late the event loop was in the last one to two minutes; quantile 1 is the worst',
    ['quantile'],
  )
  readonly #drops = this.#counter('caracal_drops_total', 'Packets and frames that were not delivered, by reason', [
    'reason',
  ])
  readonly #sessions = this.#gauge('caracal_sessions', 'Hosts with which there is a session')
  readonly #hosts = this.#gauge('caracal_hosts_known', 'Hosts of the network that are known')
  readonly #flows = this.#gauge('caracal_flows', 'Open flows, by protocol', ['protocol'])
  readonly #capacity = this.#gauge('caracal_flows_capacity', 'Flows that fit the flow table')
  readonly #services = this.#gauge('caracal_services_known', 'Services of the network that are known')
  readonly #instances = this.#gauge('caracal_instances', "This host's instances of services, by state", ['state'])
  readonly #keeper = this.#gauge(
    'caracal_keeper',
    '1 while a keeper holds what the next daemon is to go on with, else 0',
  )
  readonly #synced = this.#gauge('caracal_directory_synced', '1 once the records of the other hosts are here, else 0')
  readonly #directory = this.#counter('caracal_directory_events_total', 'Events of the directory of records, by kind', [
    'event',
  ])

  get contentType(): string {
    return this.#registry.contentType
  }

  /** The sample in the text format; values that are no finite numbers are left out. */
  async write(sample: MetricsSample): Promise<string> {
    const { sessions, flows, services, directory, loopDelay } = sample
    const { user, system } = process.cpuUsage()
    this.#info.reset()
    this.#info.set({ version: sample.version }, 1)
    set(this.#started, {}, sample.startedAt)
    set(this.#memory, {}, process.memoryUsage.rss())
    count(this.#cpu, [[{}, (user + system) / 1e6]])
    set(this.#loop, { quantile: '0.5' }, loopDelay.p50Ms / 1e3)
    set(this.#loop, { quantile: '0.99' }, loopDelay.p99Ms / 1e3)
    set(this.#loop, { quantile: '1' }, loopDelay.maxMs / 1e3)
    count(
      this.#drops,
      dropReasons.map((reason) => [{ reason }, sample.drops[reason] ?? 0]),
    )
    set(this.#sessions, {}, sessions.up)
    set(this.#hosts, {}, sessions.known)
    for (const protocol of ['tcp', 'udp', 'icmp'] as const) set(this.#flows, { protocol }, flows[protocol])
    set(this.#capacity, {}, flows.capacity)
    set(this.#services, {}, services.known)
    set(this.#instances, { state: 'up' }, services.local - services.unhealthy)
    set(this.#instances, { state: 'unhealthy' }, services.unhealthy)
    set(this.#keeper, {}, sample.keeper ? 1 : 0)
    set(this.#synced, {}, directory.synced ? 1 : 0)
    const events = Object.entries(directory.counters).filter(([event]) => EVENT.test(event))
    count(
      this.#directory,
      events.slice(0, COUNTERS_MAX).map(([event, n]) => [{ event: kebab(event) }, n]),
    )
    this.#count(sample.counters)
    return this.#registry.metrics()
  }

  #count(counters: MetricsSample['counters']): void {
    for (const [name, value] of Object.entries(counters)) {
      let counter = this.#counters.get(name)
      if (counter === undefined) {
        if (!NAME.test(name) || this.#counters.size >= COUNTERS_MAX) continue
        const series = counterName(name)
        // Two names of one series: the first one has it.
        if (this.#registry.getSingleMetric(series) !== undefined) continue
        counter = this.#counter(series, explained[name] ?? `${sentence(name)}, since the start`)
        this.#counters.set(name, counter)
      }
      count(counter, [[{}, value]])
    }
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] })
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }
}

/** `tunBytesIn` → `caracal_tun_in_bytes_total`. */
export function counterName(name: string): string {
  const all = words(name)
  const ordered = [...all.filter((word) => !units.has(word)), ...all.filter((word) => units.has(word))]
  return `caracal_${ordered.join('_')}_total`
}

function words(name: string): string[] {
  return name
    .replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)
    .split('-')
    .filter((word) => word !== '')
}

function kebab(name: string): string {
  return words(name).join('-')
}

function sentence(name: string): string {
  const text = words(name)
    .join(' ')
    .replace(/^tun /, 'TUN: ')
    .replace(/^wire /, 'wire: ')
  return text.charAt(0).toUpperCase() + text.slice(1)
}

type Labels = Record<string, string>

function set(gauge: Gauge, labels: Labels, value: number): void {
  if (Number.isFinite(value)) gauge.set(labels, value)
}

/** The counts are kept elsewhere: what was told before goes. */
function count(counter: Counter, values: readonly (readonly [Labels, number])[]): void {
  counter.reset()
  for (const [labels, value] of values) if (Number.isFinite(value) && value >= 0) counter.inc(labels, value)
}
