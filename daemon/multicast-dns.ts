import { networkInterfaces } from 'node:os'
import { Bonjour, type Browser, type Service, type ServiceConfig } from 'bonjour-service'
import type { Announcement, DiscoveryComponents, Responder } from './discovery.js'

const SERVICE_TYPE = 'caracal'
const FAREWELL_MS = 500

/** Multicast DNS on one interface by bonjour-service. */
class BonjourResponder implements Responder {
  readonly #bonjour: Bonjour
  #browser: Browser | undefined
  #failed = false
  #closing: Promise<void> | undefined

  constructor(address: string, failed: (error: Error) => void) {
    // The multicast options pass through the library's service options to its socket.
    const socketOptions: Partial<ServiceConfig> & { interface: string; bind: string } = {
      interface: address,
      bind: '0.0.0.0',
    }
    // A send that fails: the network is gone for the moment, and asked again later.
    this.#bonjour = new Bonjour(socketOptions, () => undefined)
    // Its socket's errors (port 5353 taken for itself by another program) surface nowhere else.
    this.#bonjour['server'].mdns.on('error', (error: Error) => {
      this.#failed = true
      failed(error)
    })
  }

  publish(port: number, txt: Readonly<Record<string, string>>): void {
    const name = (txt.host ?? '').slice(0, 32)
    this.#bonjour.publish({ name, type: SERVICE_TYPE, protocol: 'udp', port, txt, probe: false, disableIPv6: true })
  }

  browse(heard: (announcement: Announcement) => void): void {
    // A new browser knows nobody yet, and so tells of everybody again.
    this.#browser?.stop()
    const tell = ({ txt, port, referer }: Service) => heard({ txt, port, from: referer?.address })
    this.#browser = this.#bonjour.find({ type: SERVICE_TYPE, protocol: 'udp' }, tell)
    this.#browser.on('txt-update', tell)
    this.#browser.on('srv-update', tell)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#browser?.stop()
    if (!this.#failed) {
      await new Promise<void>((resolve) => {
        const limit = setTimeout(resolve, FAREWELL_MS)
        this.#bonjour.unpublishAll(() => {
          clearTimeout(limit)
          resolve()
        })
      })
    }
    this.#bonjour.destroy()
  }
}

/** What {@link Discovery} needs of the real world. */
export const multicastDns: DiscoveryComponents = {
  interfaces: networkInterfaces,
  open: (address, failed) => new BonjourResponder(address, failed),
  every: (ms, run) => {
    const timer = setInterval(run, ms)
    timer.unref()
    return () => clearInterval(timer)
  },
}
