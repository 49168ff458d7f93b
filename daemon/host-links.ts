import type { AddressMessage, LinkMessage, NetlinkMessage, RouteMessage } from './netlink-messages.js'

/** A host has fewer; of more, those are kept that came first. */
const ENTRIES_MAX = 4_096

/** A host's links, addresses and default routes, those that refuse packets included, kept by the kernel's messages. Pure. */
export class HostLinks {
  readonly links = new Map<number, LinkMessage>()
  readonly #addresses = new Map<string, AddressMessage>()
  readonly #defaultRoutes = new Map<string, RouteMessage>()

  get addresses(): Iterable<AddressMessage> {
    return this.#addresses.values()
  }
  get defaultRoutes(): Iterable<RouteMessage> {
    return this.#defaultRoutes.values()
  }

  /** The link of this name; undefined: there is none. */
  named(name: string): LinkMessage | undefined {
    return [...this.links.values()].find((link) => link.name === name)
  }

  /**
   * Takes a message; returns whether it can matter to paths: a link, address or route is another than before, on another link than the one of this name. Routes that neither lead
   * somewhere else nor refuse packets, such as the kernel's own for each address, do not count.
   */
  apply(message: NetlinkMessage, except: string): boolean {
    switch (message.kind) {
      case 'link': {
        const differs = keep(this.links, message.index, message)
        if (message.gone) this.#forget(message.index)
        return differs && message.name !== except
      }
      case 'address': {
        const key = `${message.link} ${message.address}/${message.prefixLength}`
        return keep(this.#addresses, key, message) && this.#nameOf(message.link) !== except
      }
      case 'route': {
        const { family, table, metric, link, gateway, unicast, refuses } = message
        if (!(unicast || refuses) || this.#nameOf(link) === except) return false
        if (message.destination !== '') return true
        if (message.replaces) this.#replaced(message)
        return keep(this.#defaultRoutes, [family, table, metric, link, gateway, unicast].join(), message)
      }
      default:
        return false
    }
  }

  #replaced({ family, table, metric }: RouteMessage): void {
    for (const [key, route] of this.#defaultRoutes)
      if (route.family === family && route.table === table && route.metric === metric) this.#defaultRoutes.delete(key)
  }

  /** The kernel does not tell of each IPv4 route that goes with its link. */
  #forget(link: number): void {
    for (const map of [this.#addresses, this.#defaultRoutes])
      for (const [key, entry] of map) if (entry.link === link) map.delete(key)
  }

  #nameOf(link: number): string | undefined {
    return this.links.get(link)?.name
  }
}

/** Puts the message in, or takes it out; whether that changed anything. */
function keep<K, V extends { readonly gone: boolean }>(map: Map<K, V>, key: K, value: V): boolean {
  if (value.gone) return map.delete(key)
  const before = map.get(key)
  if (before === undefined && map.size >= ENTRIES_MAX) return false
  map.set(key, value)
  return before === undefined || JSON.stringify(before) !== JSON.stringify(value)
}
