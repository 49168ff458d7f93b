// What carries the frames of simulated hosts: it delays, loses, doubles and reorders them. There is no clock: what happens is an event in virtual time, and chance comes from the world's seed.

import { decodeLocator, encodeLocator, formatLocator, parseLocator, type Locator } from '../../lib/path/locator.js'
import { ADDRESS_LOCAL } from '../../lib/wire/batch.js'
import { EventQueue } from './event-queue.js'

const START = 1_000
/** Position in an address record. */
const ADDRESS = 8

export interface LinkOptions {
  readonly loss?: number
  readonly duplicate?: number
  /** One way, ms. */
  readonly delay?: number
  /** Added at random, ms, so that datagrams overtake each other; 0: in order. */
  readonly jitter?: number
}

/** A frame as a test sees it pass; addresses with ports, such as `10.0.0.1:7474`. */
export interface Passing {
  readonly from: string
  readonly to: string
  readonly bytes: Uint8Array
}

/** Who is where frames go to. The bytes are its own. */
export interface Site {
  arrive(from: string, to: string, bytes: Uint8Array): void
}

/** Networks in which all addresses reach each other, with one kind of link, and time. */
export class Underlay {
  readonly events = new EventQueue(START)
  /** Every frame sent, before the link does anything to it; false: it is lost. */
  filter: (passing: Passing) => boolean = () => true
  /** Every frame that has come to somebody, before anything else sees it. */
  arrived: (passing: Passing) => void = () => undefined
  readonly #sites = new Map<string, Site>()
  readonly #records = new Map<string, Uint8Array>()
  readonly #texts = new Map<string | number, string>()
  #address = 0

  constructor(
    /** Uniform in [0, 1). */
    readonly random: () => number,
    public link: LinkOptions,
  ) {}

  get now(): number {
    return this.events.now
  }

  /** An address of the network that nobody has had yet. */
  freshAddress(network = 0, family: 4 | 6 = 4): string {
    const n = ++this.#address
    if (family === 6) return formatLocator(locatorOf(`[fd00:${network.toString(16)}::${n.toString(16)}]:7474`))
    return `10.${network}.${(n >> 8) & 255}.${n & 255}:7474`
  }

  occupy(address: string, site: Site | undefined): void {
    if (site === undefined) this.#sites.delete(address)
    else this.#sites.set(address, site)
  }

  /** The address record of an address: not to be changed. */
  record(address: string): Uint8Array {
    let record = this.#records.get(address)
    if (record === undefined) {
      record = encodeLocator(locatorOf(address))
      this.#records.set(address, record)
    }
    return record
  }

  /** The address of the record at `at`; empty: it is none. */
  textOf(records: Uint8Array, at: number): string {
    const key =
      records[at] === 4 ? numberOf(records, at) : String.fromCharCode(...records.subarray(at, at + ADDRESS_LOCAL))
    let text = this.#texts.get(key)
    if (text === undefined) {
      const locator = decodeLocator(records, at)
      text = locator === undefined ? '' : formatLocator(locator)
      this.#texts.set(key, text)
    }
    return text
  }

  send(from: string, to: string, bytes: Uint8Array): void {
    const frame = bytes.slice()
    if (!this.filter({ from, to, bytes: frame })) return
    const { loss = 0, duplicate = 0 } = this.link
    const copies = this.random() < duplicate ? 2 : 1
    for (let i = 0; i < copies; i++) if (this.random() >= loss) this.deliver(from, to, frame)
  }

  /** Puts a frame on the way that nothing but time happens to. */
  deliver(from: string, to: string, bytes: Uint8Array): void {
    const { delay = 5, jitter = 0 } = this.link
    const at = this.now + delay + (jitter > 0 ? this.random() * jitter : 0)
    this.events.at(at, () => {
      const site = this.#sites.get(to)
      if (site === undefined) return
      this.arrived({ from, to, bytes })
      site.arrive(from, to, bytes.slice())
    })
  }

  run(until: number): void {
    this.events.run(until)
  }
  runFor(ms: number): void {
    this.run(this.now + ms)
  }
  /** Runs until it holds; false: it did not within the time. */
  until(condition: () => boolean, ms: number, step = 10): boolean {
    for (const end = this.now + ms; this.now < end;) {
      if (condition()) return true
      this.runFor(step)
    }
    return condition()
  }
}

export function locatorOf(address: string): Locator {
  const locator = parseLocator(address)
  if (locator === undefined) throw new Error(`no address: ${address}`)
  return locator
}

/** What all addresses of an address's network begin with, and no others. */
export function prefixOf(address: string): string {
  const separator = address.startsWith('[') ? ':' : '.'
  return address.split(separator, 2).join(separator) + separator
}

/** Address and port of an IPv4 record. */
function numberOf(records: Uint8Array, at: number): number {
  let number = 0
  for (let i = 0; i < 4; i++) number = number * 256 + records[at + ADDRESS + i]!
  return number * 65_536 + records[at + 2]! * 256 + records[at + 3]!
}
