import ipaddr from 'ipaddr.js'
import type { Locator } from '../lib/path/locator.js'
import { LOCATORS_MAX } from '../lib/service/registration.js'
import { MIN_PLPMTU_IPV4, PATH_MTU } from '../lib/wire/constants.js'
import type { HostLinks } from './host-links.js'
import type { AddressMessage } from './netlink-messages.js'

/** A prefix of addresses of the overlay. */
export type Pool = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

/** Where others can reach this host, and whether that is about to end. */
export interface OwnLocator extends Locator {
  readonly deprecated: boolean
}

/**
 * Where others can reach sockets bound to `locals`: a wildcard stands for every address of its family that is on a running link, but those of the own TUN (by its name), of the overlay's
 * pools (prefixes), of loopback and of a single link, and those that the kernel does not use yet. What lasts comes first.
 */
export function ownLocators(
  locals: readonly Locator[],
  host: HostLinks,
  tun: string,
  pools: readonly Pool[],
): OwnLocator[] {
  const usable = [...host.addresses].filter((address) => {
    const link = host.links.get(address.link)
    if (link === undefined || !link.running || link.loopback || link.name === tun) return false
    return !address.tentative && isForOthers(address, pools)
  })
  usable.sort((a, b) => transience(a) - transience(b))
  const found = new Map<string, OwnLocator>()
  for (const { address: bound, port } of locals) {
    const family = bound.includes(':') ? 6 : 4
    const wildcard = bound === '0.0.0.0' || bound === '::'
    const addresses = wildcard
      ? usable
          .filter((one) => one.family === family)
          .map(({ address, deprecated }) => ({ address: parsedAddress(address).toString(), deprecated }))
      : [{ address: bound, deprecated: false }]
    for (const { address, deprecated } of addresses) found.set(`${address} ${port}`, { address, port, deprecated })
  }
  return [...found.values()].slice(0, LOCATORS_MAX)
}

/** @param pools prefixes */
export function parsePools(pools: readonly string[]): Pool[] {
  return pools.map((pool) => ipaddr.parseCIDR(pool))
}

function transience({ temporary, deprecated }: AddressMessage): number {
  return 2 * Number(deprecated) + Number(temporary)
}

function parsedAddress(hex: string): ipaddr.IPv4 | ipaddr.IPv6 {
  return ipaddr.fromByteArray([...Buffer.from(hex, 'hex')])
}

/** Link-local addresses are of no use to others without the interface, and loopback's to nobody else. */
function isForOthers(address: AddressMessage, pools: readonly Pool[]): boolean {
  const ip = parsedAddress(address.address)
  if (['linkLocal', 'loopback', 'unspecified', 'multicast', 'ipv4Mapped'].includes(ip.range())) return false
  return !pools.some(([prefix, length]) => prefix.kind() === ip.kind() && ip.match(prefix, length))
}

/** More than a packet of the TUN's MTU grows on its way. */
const GROWTH_MAX = 80

/**
 * MTU that a path is taken to have until it is probed: that of this host's link to it, but above what the internet carries only as far as the TUN's MTU asks for it, which
 * is how somebody says that all links between his hosts carry more. Not above 0: not known.
 */
export function linkMtu(route: number, tun: number): number {
  if (route <= 0) return 0
  return Math.max(MIN_PLPMTU_IPV4, Math.min(route, Math.max(PATH_MTU, tun + GROWTH_MAX)))
}
