// Whether a pool of the overlay is in use on this host already.

import ipaddr from 'ipaddr.js'
import { z } from 'zod'

/** An address or route of the host that a pool would collide with. */
export interface PoolConflict {
  readonly pool: string
  readonly kind: 'address' | 'route'
  /** The address with its prefix length, or the route's destination. */
  readonly prefix: string
  readonly device: string
}

const addressesShape = z.array(
  z.looseObject({
    ifname: z.string().optional(),
    addr_info: z.array(z.looseObject({ local: z.string().optional(), prefixlen: z.number().optional() })).optional(),
  }),
)
const routesShape = z.array(
  z.looseObject({
    type: z.string().optional(),
    dst: z.string(),
    dev: z.string().optional(),
    metric: z.number().optional(),
  }),
)
export type RouteEntry = z.infer<typeof routesShape>[number]

/** Output of `ip -j route show`, which is empty where there is none. */
export function parseRoutes(json: string): RouteEntry[] {
  return routesShape.parse(JSON.parse(json.trim() || '[]'))
}

type Prefix = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

function parsePrefix(text: string): Prefix | undefined {
  const withLength = text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`
  return ipaddr.isValidCIDR(withLength) ? ipaddr.parseCIDR(withLength) : undefined
}

/** Routes wider than this cover half the world (a default route cut in two, a whole class): a pool inside is what they are for. */
const WIDE = { ipv4: 8, ipv6: 16 } as const

function collides(pool: Prefix, other: Prefix): boolean {
  const [base, length] = pool
  const [address, otherLength] = other
  const kind = base.kind()
  if (kind !== address.kind() || otherLength < WIDE[kind]) return false
  const common = Math.min(length, otherLength)
  if (base instanceof ipaddr.IPv4) return address instanceof ipaddr.IPv4 && base.match(address, common)
  return address instanceof ipaddr.IPv6 && base.match(address, common)
}

/** Addresses of the host itself and kernel housekeeping appear among the routes again. */
const ECHOES: ReadonlySet<string> = new Set(['local', 'broadcast', 'anycast', 'multicast'])

/**
 * @param addresses output of `ip -j address show`
 * @param routes outputs of `ip -j route show table all`, one a family
 * @param own whether a route is ours
 */
export function findConflicts(
  pools: readonly string[],
  addresses: string,
  routes: readonly string[],
  own: { readonly device: string; readonly route: (route: RouteEntry) => boolean },
): PoolConflict[] {
  const found: PoolConflict[] = []
  const look = (kind: 'address' | 'route', prefix: string, device: string) => {
    const parsed = parsePrefix(prefix)
    if (parsed === undefined) return
    for (const pool of pools) {
      const poolPrefix = parsePrefix(pool)
      if (poolPrefix !== undefined && collides(poolPrefix, parsed)) found.push({ pool, kind, prefix, device })
    }
  }
  for (const link of addressesShape.parse(JSON.parse(addresses.trim() || '[]'))) {
    if (link.ifname === undefined || link.ifname === own.device) continue
    for (const { local, prefixlen } of link.addr_info ?? []) {
      if (local !== undefined && prefixlen !== undefined) look('address', `${local}/${prefixlen}`, link.ifname)
    }
  }
  for (const route of routes.flatMap(parseRoutes)) {
    if (route.dev === own.device || own.route(route) || ECHOES.has(route.type ?? 'unicast')) continue
    look('route', route.dst, route.dev ?? route.type ?? '')
  }
  return found
}
