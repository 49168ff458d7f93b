import { networkInterfaces } from 'node:os'
import ipaddr from 'ipaddr.js'
import type { Locator } from '../lib/path/locator.js'
import { LOCATORS_MAX } from '../lib/service/registration.js'
import { PATH_MTU, PATH_MTU_MIN } from '../lib/wire/constants.js'

/** Where others can reach sockets bound to `locals`: a wildcard stands for every address of its family but those of the own TUN, of loopback and of a single link. */
export function ownLocators(locals: readonly Locator[], tun: string): Locator[] {
  const found: Locator[] = []
  let interfaces: ReturnType<typeof networkInterfaces> | undefined
  for (const { address: bound, port } of locals) {
    if (bound !== '0.0.0.0' && bound !== '::') {
      found.push({ address: bound, port })
      continue
    }
    for (const [name, addresses] of Object.entries((interfaces ??= networkInterfaces()))) {
      if (name === tun) continue
      for (const { address, family, internal } of addresses ?? []) {
        const mine = (family === 'IPv6') === bound.includes(':')
        if (!internal && mine && !isOfLink(address)) found.push({ address, port })
      }
    }
  }
  return found.slice(0, LOCATORS_MAX)
}

/** More than a packet of the TUN's MTU grows on its way. */
const GROWTH_MAX = 80

/**
 * MTU that a path is taken to have until it is probed: that of this host's link to it, but above what the internet carries only as far as the TUN's MTU asks for it, which
 * is how somebody says that all links between his hosts carry more. 0: not known.
 */
export function linkMtu(route: number, tun: number): number {
  if (route === 0) return 0
  return Math.max(PATH_MTU_MIN, Math.min(route, Math.max(PATH_MTU, tun + GROWTH_MAX)))
}

/** Link-local addresses are of no use to others without the interface. */
function isOfLink(address: string): boolean {
  return ipaddr.parse(address.replace(/%.*$/, '')).range() === 'linkLocal'
}
