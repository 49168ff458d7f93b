import { networkInterfaces } from 'node:os'
import { Bonjour, type Service, type ServiceConfig } from 'bonjour-service'
import type { Locator } from '../lib/path/locator.js'
import { hostId, type HostId, type NetworkId } from '../lib/wire/ids.js'

const SERVICE_TYPE = 'caracal'
const RESCAN_MS = 5_000

interface Announcer {
  readonly bonjour: Bonjour
  readonly stop: () => void
}

/**
 * Finds hosts of the same network on the LANs of this machine by multicast DNS, one responder an interface, so that no default route is needed. What comes back
 * is a hint where a host may be reached: the session proves who answers there.
 */
export class Discovery {
  readonly #announcers = new Map<string, Announcer>()
  #timer: NodeJS.Timeout | undefined

  constructor(
    private readonly options: {
      readonly network: NetworkId
      readonly host: HostId
      /** UDP port of the daemon. */
      readonly port: number
      /** Interfaces to leave out, such as our own TUN. */
      readonly exclude: (name: string) => boolean
      /** Only these interfaces, when given. */
      readonly interfaces?: readonly string[]
      readonly found: (host: HostId, locator: Locator) => void
      readonly problem: (interfaceName: string, error: Error) => void
    },
  ) {}

  start(): void {
    this.#rescan()
    // Interfaces come and go; a link event source replaces this look when there is one.
    this.#timer = setInterval(() => this.#rescan(), RESCAN_MS)
    this.#timer.unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    const announcers = [...this.#announcers.values()]
    this.#announcers.clear()
    for (const { stop } of announcers) stop()
    await Promise.all(
      announcers.map(
        ({ bonjour }) =>
          new Promise<void>((resolve) => {
            const limit = setTimeout(resolve, 500)
            bonjour.unpublishAll(() => {
              clearTimeout(limit)
              bonjour.destroy()
              resolve()
            })
          }),
      ),
    )
  }

  #rescan(): void {
    const present = new Set<string>()
    for (const [name, addresses] of Object.entries(networkInterfaces())) {
      if (this.options.exclude(name) || (this.options.interfaces?.includes(name) ?? true) === false) continue
      for (const { address, family, internal } of addresses ?? []) {
        if (internal || family !== 'IPv4') continue
        present.add(address)
        if (!this.#announcers.has(address)) this.#announce(name, address)
      }
    }
    for (const [address, announcer] of this.#announcers) {
      if (present.has(address)) continue
      announcer.stop()
      announcer.bonjour.destroy()
      this.#announcers.delete(address)
    }
  }

  #announce(interfaceName: string, address: string): void {
    const { network, host, port, found, problem } = this.options
    // The multicast options pass through the library's service options to its socket.
    const socketOptions: Partial<ServiceConfig> & { interface: string; bind: string } = {
      interface: address,
      bind: '0.0.0.0',
    }
    const failed = (error: Error) => {
      this.#announcers.delete(address)
      problem(interfaceName, error)
    }
    try {
      const bonjour = new Bonjour(socketOptions, failed)
      // Its socket's errors (port 5353 taken for itself by another program) surface nowhere else.
      bonjour['server'].mdns.on('error', failed)
      const browser = bonjour.find({ type: SERVICE_TYPE, protocol: 'udp' }, (service) => {
        const hint = readHint(service, network)
        if (hint !== undefined && hint.host !== host) found(hint.host, hint.locator)
      })
      bonjour.publish({
        name: host.slice(0, 32),
        type: SERVICE_TYPE,
        protocol: 'udp',
        port,
        txt: { v: '1', network, host },
        probe: false,
        disableIPv6: true,
      })
      const again = setInterval(() => browser.update(), RESCAN_MS * 6)
      again.unref()
      const stop = () => {
        clearInterval(again)
        browser.stop()
      }
      this.#announcers.set(address, { bonjour, stop })
    } catch (error) {
      failed(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

function readHint(service: Service, network: NetworkId): { host: HostId; locator: Locator } | undefined {
  const txt: unknown = service.txt
  if (typeof txt !== 'object' || txt === null || !('network' in txt) || !('host' in txt)) return undefined
  if (txt.network !== network || typeof txt.host !== 'string' || !/^[0-9a-f]{64}$/.test(txt.host)) return undefined
  const address = service.referer?.address
  if (address === undefined || service.port < 1 || service.port > 65_535) return undefined
  return { host: hostId(txt.host), locator: { address, port: service.port } }
}
