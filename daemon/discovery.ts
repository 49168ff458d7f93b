import type { NetworkInterfaceInfo } from 'node:os'
import ipaddr from 'ipaddr.js'
import type { Locator } from '../lib/path/locator.js'
import { hostId, type HostId, type NetworkId } from '../lib/wire/ids.js'
import { multicastDns } from './multicast-dns.js'

/** A host of some network as multicast DNS tells of it: anybody's words. */
export interface Announcement {
  readonly txt: unknown
  readonly port: unknown
  /** Where the datagram came from. */
  readonly from: string | undefined
}

/** Multicast DNS on one interface. */
export interface Responder {
  /** Tells the others of this host, at once and whenever they ask. */
  publish(port: number, txt: Readonly<Record<string, string>>): void
  /** Asks who is there; each host that answers is told of once, and again when what it says has changed. Replaces an earlier browse. */
  browse(heard: (announcement: Announcement) => void): void
  /** Takes the announcement back and closes. */
  close(): Promise<void>
}

export interface ResponderEvents {
  /** It cannot go on. */
  failed(error: Error): void
  /** Somebody has asked everybody who is there; `from`: the IPv4 address. */
  asked(from: string): void
}

export interface DiscoveryComponents {
  /** The interfaces of this machine, as node:os has them. */
  readonly interfaces: () => NodeJS.Dict<NetworkInterfaceInfo[]>
  /** Opens a responder on the interface with this IPv4 address. Its events come at the earliest after this has returned. May throw. */
  readonly open: (address: string, events: ResponderEvents) => Responder
  /** Calls back every so many ms until the function it returns is called. */
  readonly every: (ms: number, run: () => void) => () => void
}

export interface DiscoveryOptions {
  readonly network: NetworkId
  readonly host: HostId
  /** UDP port of the daemon. */
  readonly port: number
  /** Interfaces to leave out, such as our own TUN. */
  readonly exclude: (name: string) => boolean
  /** Only these interfaces, when given. */
  readonly interfaces?: readonly string[]
  readonly found: (host: HostId, locator: Locator) => void
  /** Called once an interface, however often it is tried again; and again only after it has worked. */
  readonly problem: (interfaceName: string, error: Error) => void
}

/** Interfaces come and go: how often is looked. */
export const RESCAN_MS = 5_000
/** How many looks pass before a responder that failed is tried again. */
const LOOKS_TO_RETRY = 6
/**
 * How many looks pass before hosts are asked for again: at first, and at most, twice as many each time (RFC 6762, section 5.2: 60 minutes). Who comes announces itself, so that questions are for announcements that were
 * lost; and each question is answered by every host on the LAN to every other one.
 */
const LOOKS_TO_BROWSE = 6
const LOOKS_TO_BROWSE_MAX = 720
/** Whoever asks is answered so that all hear it: the question is as good as one's own (section 7.3), but for so many in a row, because strangers may ask what they like. */
const OTHERS_MAX = 8
/** Strangers may announce what they like, too: so many are listened to in {@link LOOKS_TO_LISTEN} looks. */
const HEARD_MAX = 1_024
const LOOKS_TO_LISTEN = 6

interface Place {
  readonly interfaceName: string
  readonly cidr: string | null
  responder: Responder | undefined
  /** Since hosts were asked for, or the responder has failed. */
  looks: number
  looksToBrowse: number
  /** Somebody else has asked since the last look; and so often in a row. */
  othersAsked: boolean
  others: number
  heard: number
  looksListened: number
  warned: boolean
}

function newPlace(interfaceName: string, cidr: string | null): Place {
  return {
    ...{ interfaceName, cidr, responder: undefined, looks: 0, looksToBrowse: LOOKS_TO_BROWSE },
    ...{ othersAsked: false, others: 0, heard: 0, looksListened: 0, warned: false },
  }
}

/**
 * Finds hosts of the same network on the LANs of this machine by multicast DNS, one responder an interface, so that no default route is needed. What comes back
 * is a hint where a host may be reached: the session proves who answers there.
 */
export class Discovery {
  /** By IPv4 address. */
  readonly #places = new Map<string, Place>()
  #stopLooking: (() => void) | undefined

  constructor(
    private readonly options: DiscoveryOptions,
    private readonly components: DiscoveryComponents = multicastDns,
  ) {}

  start(): void {
    this.#look()
    this.#stopLooking = this.components.every(RESCAN_MS, () => this.#look())
  }

  async stop(): Promise<void> {
    this.#stopLooking?.()
    const responders = [...this.#places.values()].map(({ responder }) => responder)
    this.#places.clear()
    await Promise.all(responders.map((responder) => responder?.close()))
  }

  #look(): void {
    const { exclude, interfaces: only } = this.options
    const present = new Set<string>()
    for (const [name, addresses] of Object.entries(this.components.interfaces())) {
      if (exclude(name) || only?.includes(name) === false) continue
      for (const { address, family, internal, cidr } of addresses ?? []) {
        if (internal || family !== 'IPv4') continue
        present.add(address)
        if (!this.#places.has(address)) {
          const place = newPlace(name, cidr)
          this.#places.set(address, place)
          this.#open(address, place)
        }
      }
    }
    for (const [address, place] of this.#places) {
      if (present.has(address)) this.#tend(address, place)
      else {
        this.#places.delete(address)
        void place.responder?.close()
      }
    }
  }

  #tend(address: string, place: Place): void {
    place.looks++
    if (++place.looksListened >= LOOKS_TO_LISTEN) {
      place.looksListened = 0
      place.heard = 0
    }
    if (place.responder === undefined) {
      if (place.looks > LOOKS_TO_RETRY) this.#open(address, place)
      return
    }
    // It opened, and stayed open.
    if (place.looks > LOOKS_TO_RETRY) place.warned = false
    if (place.othersAsked && place.others < OTHERS_MAX) {
      place.others++
      this.#wait(place)
    } else if (place.looks >= place.looksToBrowse) {
      place.others = 0
      this.#wait(place)
      this.#browse(place, place.responder)
    }
    place.othersAsked = false
  }

  /** Hosts have been asked for, and are not for twice as long as the last time. */
  #wait(place: Place): void {
    place.looks = 0
    place.looksToBrowse = Math.min(2 * place.looksToBrowse, LOOKS_TO_BROWSE_MAX)
  }

  #open(address: string, place: Place): void {
    const { network, host, port } = this.options
    place.looks = 0
    place.looksToBrowse = LOOKS_TO_BROWSE
    place.others = 0
    let responder: Responder | undefined
    const failed = (error: Error) => {
      if (place.responder !== responder) return
      place.responder = undefined
      place.looks = 0
      void responder?.close()
      if (place.warned || this.#places.get(address) !== place) return
      place.warned = true
      this.options.problem(place.interfaceName, error)
    }
    try {
      responder = this.components.open(address, {
        failed,
        // Questions on other links are heard as well.
        asked: (from) => (place.othersAsked ||= from !== address && isWithin(from, place.cidr)),
      })
    } catch (error) {
      return failed(error instanceof Error ? error : new Error(String(error)))
    }
    place.responder = responder
    // With the address in it the announcement changes when the host moves, and those who know it hear of it anew.
    responder.publish(port, { v: '1', network, host, at: address })
    this.#browse(place, responder)
  }

  #browse(place: Place, responder: Responder): void {
    const { network, host, found } = this.options
    responder.browse((announcement) => {
      if (++place.heard > HEARD_MAX) return
      const hint = readHint(announcement, network)
      if (hint !== undefined && hint.host !== host) found(hint.host, hint.locator)
    })
  }
}

function isWithin(address: string, cidr: string | null): boolean {
  if (cidr === null || !ipaddr.IPv4.isValidFourPartDecimal(address)) return false
  return ipaddr.IPv4.parse(address).match(ipaddr.IPv4.parseCIDR(cidr))
}

/** The host and its locator; undefined: of another network, or not understood. Total. */
export function readHint(
  { txt, port, from }: Announcement,
  network: NetworkId,
): { host: HostId; locator: Locator } | undefined {
  if (typeof txt !== 'object' || txt === null || !('network' in txt) || !('host' in txt)) return undefined
  if (txt.network !== network || typeof txt.host !== 'string' || !/^[0-9a-f]{64}$/.test(txt.host)) return undefined
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined
  return from === undefined ? undefined : { host: hostId(txt.host), locator: { address: from, port } }
}
