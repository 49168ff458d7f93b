// What of a daemon faces programs and people rather than packets: names, the control socket, metrics, multicast DNS, what listens on this host, and the system's own programs.

import type { Locator } from '../lib/path/locator.js'
import type { HostId, NetworkId } from '../lib/wire/ids.js'
import type { Requests } from './control/requests.js'
import { ControlServer, type ControlServerOptions } from './control/server.js'
import { Discovery } from './discovery.js'
import type { DnsResolver } from './dns/dns-message.js'
import { DnsServer } from './dns/dns-server.js'
import { CaracalError, messageOf } from './errors.js'
import type { ListenerWatching } from './instances.js'
import { ListenerWatch } from './listener-watch.js'
import type { Log } from './log.js'
import { Metrics, type MetricsSample } from './metrics.js'
import { monotonicNow } from './packet-loop.js'

export interface DiscoveryPlace {
  readonly network: NetworkId
  readonly host: HostId
  /** UDP port of the daemon. */
  readonly port: number
  /** Our own TUN. */
  readonly exclude: string
  /** Only these; empty: all. */
  readonly interfaces: readonly string[]
}

export type Close = () => Promise<void>

/** Looks at what listens on this host. */
export interface WatchedListeners extends ListenerWatching {
  readonly close: Close
}

/** Opens the servers; each call resolves with what closes that server again, or rejects with a CaracalError and has left nothing open. */
export interface Servers {
  /** The name server, on each of the addresses. */
  names(addresses: readonly string[], resolve: DnsResolver): Promise<Close>
  control(options: ControlServerOptions, requests: Requests): Promise<Close>
  metrics(listen: Locator, read: () => Promise<MetricsSample>): Promise<Close>
  /** `found`: where a host of the network may be, as anybody on the link says. */
  discovery(place: DiscoveryPlace, found: (host: HostId, locator: Locator) => void): Promise<Close>
  /** `changed`: what listens on this host may be something else now. */
  listeners(changed: () => void): Promise<WatchedListeners>
}

/** Servers in the thread that opens them. */
export class OwnServers implements Servers {
  constructor(private readonly log: Log) {}

  async names(addresses: readonly string[], resolve: DnsResolver): Promise<Close> {
    const dns = new DnsServer(resolve)
    for (const address of addresses) {
      try {
        await dns.listen(address)
      } catch (error) {
        await dns.close()
        throw new CaracalError(
          'CARACAL_E_DNS',
          `the name server cannot listen on ${address} (${messageOf(error)})`,
          'is port 53 taken by another program?',
        )
      }
    }
    return () => dns.close()
  }

  async control(options: ControlServerOptions, requests: Requests): Promise<Close> {
    const server = await ControlServer.start(options, { requests, log: this.log })
    return () => server.close()
  }

  async metrics(listen: Locator, read: () => Promise<MetricsSample>): Promise<Close> {
    const metrics = new Metrics({ listen }, { read, log: this.log })
    await metrics.start()
    return () => metrics.stop()
  }

  async discovery(
    { network, host, port, exclude, interfaces }: DiscoveryPlace,
    found: (host: HostId, locator: Locator) => void,
  ): Promise<Close> {
    const { log } = this
    const discovery = new Discovery({
      network,
      host,
      port,
      exclude: (name) => name === exclude,
      ...(interfaces.length > 0 ? { interfaces } : {}),
      found,
      problem: (interfaceName, error) =>
        log.warn({ interface: interfaceName, error }, 'multicast DNS does not work here'),
    })
    discovery.start()
    return () => discovery.stop()
  }

  listeners(changed: () => void): Promise<WatchedListeners> {
    const watch = new ListenerWatch({ changed, now: monotonicNow })
    const close = () => Promise.resolve(watch.stop())
    return Promise.resolve({ busy: (protocols, missing) => watch.busy(protocols, missing), close })
  }
}
