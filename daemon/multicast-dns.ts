import type { RemoteInfo } from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { Bonjour, type Browser, type Service, type ServiceConfig } from 'bonjour-service'
import type { DecodedPacket } from 'dns-packet'
import type { Announcement, DiscoveryComponents, Responder, ResponderEvents } from './discovery.js'

const SERVICE_TYPE = 'caracal'
const QUESTION = `_${SERVICE_TYPE}._udp.local`
const FAREWELL_MS = 500
/** However often it is asked for, a record is sent to all once in so long (RFC 6762, section 6). */
const ANSWERS_APART_MS = 1_000

/** Multicast DNS on one interface by bonjour-service. */
class BonjourResponder implements Responder {
  readonly #bonjour: Bonjour
  #browser: Browser | undefined
  #failed = false
  #closing: Promise<void> | undefined
  #leaving = false
  #answeredAt = -Infinity
  #answer: NodeJS.Timeout | undefined

  constructor(address: string, { failed, asked }: ResponderEvents) {
    // The multicast options pass through the library's service options to its socket.
    const socketOptions: Partial<ServiceConfig> & { interface: string; bind: string } = {
      interface: address,
      bind: '0.0.0.0',
    }
    // A send that fails: the network is gone for the moment, and asked again later.
    this.#bonjour = new Bonjour(socketOptions, () => undefined)
    const { mdns } = this.#bonjour['server']
    // Its socket's errors (port 5353 taken for itself by another program) surface nowhere else.
    mdns.on('error', (error: Error) => {
      this.#failed = true
      failed(error)
    })
    mdns.on('query', ({ questions }: DecodedPacket, { address }: RemoteInfo) => {
      if (questions?.some(({ name, type }) => type === 'PTR' && name === QUESTION) === true) asked(address)
    })
    this.#spaceAnswers(mdns)
  }

  /** The library answers each question at once. An answer that is due too soon goes out later, for all who have asked till then: this host has one record to tell of. */
  #spaceAnswers(mdns: { respond: (packet: DecodedPacket, sent: () => void) => void }): void {
    const respond = mdns.respond.bind(mdns)
    mdns.respond = (packet, sent) => {
      const wait = this.#answeredAt + ANSWERS_APART_MS - performance.now()
      if (wait > 0 && !this.#leaving) {
        if (this.#answer !== undefined) sent()
        else this.#answer = setTimeout(() => mdns.respond(packet, sent), wait)
        return
      }
      clearTimeout(this.#answer)
      this.#answer = undefined
      this.#answeredAt = performance.now()
      respond(packet, sent)
    }
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
    this.#leaving = true
    clearTimeout(this.#answer)
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
  open: (address, events) => new BonjourResponder(address, events),
  every: (ms, run) => {
    const timer = setInterval(run, ms)
    timer.unref()
    return () => clearInterval(timer)
  },
}
