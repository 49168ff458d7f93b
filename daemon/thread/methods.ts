// What the two threads of a daemon do for each other. The packet thread has the host and its devices, and blocks for nobody; the main thread has everything that
// talks to programs and people: signals, the log, the control socket, DNS, metrics, multicast DNS.

import type { TapEvent } from '../../lib/host/tap.js'
import type { Locator } from '../../lib/path/locator.js'
import type { HostId } from '../../lib/wire/ids.js'
import type { Config, UpRequest } from '../config.js'
import type { FlowPage, ServicePage, WatchRequest } from '../control/protocol.js'
import type { ControlServerOptions } from '../control/server.js'
import type { DnsAnswer } from '../dns/dns-message.js'
import type { Listener } from '../listeners.js'
import type { LogFields, LogLevel } from '../log.js'
import type { MetricsSample } from '../metrics.js'
import type { DiscoveryPlace } from '../servers.js'
import type { DaemonSummary, StopRequest } from '../running.js'

type Does<Argument, Result = void> = { readonly argument: Argument; readonly result: Result }

export type PacketMethods = {
  /** Reads the configuration; what the main thread has to know of it. */
  readonly configure: Does<UpRequest, Pick<Config, 'loop' | 'log'>>
  readonly start: Does<undefined, DaemonSummary>
  readonly requestStop: Does<StopRequest>
  readonly stop: Does<boolean, { readonly flows: number; readonly failed: boolean }>
  readonly answer: Does<{ readonly name: string; readonly type: string }, DnsAnswer>
  readonly sample: Does<undefined, MetricsSample>
  readonly found: Does<{ readonly host: HostId; readonly locator: Locator }>
  /** What listens on this host may be something else now. */
  readonly listenersChanged: Does<undefined>
  readonly reload: Does<undefined>
  /** See Requests. */
  readonly request: Does<{ readonly operation: string; readonly args: unknown }, unknown>
  readonly watch: Does<unknown, WatchRequest>
  /** See Requests. */
  readonly flowPage: Does<
    { readonly args: unknown; readonly from: number; readonly left: number | undefined },
    FlowPage
  >
  /** See Requests. */
  readonly servicePage: Does<
    { readonly args: unknown; readonly from: number | undefined; readonly left: number | undefined },
    ServicePage
  >
  /** Ends when the dump does. */
  readonly dump: Does<{ readonly stream: number; readonly args: unknown }>
  /** So many events have been dealt with: as many more may come. */
  readonly dumpTaken: Does<{ readonly stream: number; readonly count: number }>
  readonly dumpEnd: Does<{ readonly stream: number }>
  /** So many lines of the log have been dealt with: as many more may come. `dropped`: by the main thread, in all. */
  readonly logTaken: Does<{ readonly count: number; readonly dropped: number }>
}

export const servedParts = ['names', 'control', 'metrics', 'discovery', 'listeners'] as const
export type ServedPart = (typeof servedParts)[number]

export type MainMethods = {
  readonly log: Does<{ readonly level: Exclude<LogLevel, 'silent'>; readonly fields: LogFields; readonly text: string }>
  readonly setLevel: Does<LogLevel>
  readonly stopRequested: Does<StopRequest>
  readonly names: Does<readonly string[]>
  readonly control: Does<ControlServerOptions>
  readonly metrics: Does<Locator>
  readonly discovery: Does<DiscoveryPlace>
  readonly listeners: Does<undefined>
  /** See ListenerWatch. */
  readonly listenersBusy: Does<{ readonly protocols: readonly Listener['protocol'][]; readonly missing: boolean }>
  readonly close: Does<ServedPart>
  readonly dumpEvents: Does<{ readonly stream: number; readonly events: readonly TapEvent[]; readonly lost: number }>
}
