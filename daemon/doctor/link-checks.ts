// Whether the kernel still brings overlay packets to the daemon, and keeps them in.

import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { CommandError, type CommandRunner } from '../command.js'
import type { DoctorCheck } from '../control/shapes.js'
import { parseRoutes, type PoolConflict } from '../link-conflicts.js'
import { firewallTable } from '../link-firewall.js'
import { blackholeMetric, type LinkReport } from '../link.js'
import { fail, installing, listed, ok, warn } from './finding.js'

export interface LinkInputs {
  /** Name of the device. */
  readonly tun: string
  /** Everything the overlay owns, as LinkOptions.pools. */
  readonly pools: readonly string[]
  /** An address of each family that is to go into the device: a dialled one. */
  readonly routed: readonly string[]
  readonly report: LinkReport
  /** LinkSetup.conflicts */
  readonly conflicts: () => Promise<readonly PoolConflict[]>
  /** LinkSetup.firewallObstacles */
  readonly firewallObstacles: () => Promise<readonly string[]>
}

const again = 'start the daemon again, and see what else on this host changes routes'
const isV6 = (text: string) => text.includes(':')

export async function checkPools({ pools, conflicts }: LinkInputs): Promise<DoctorCheck> {
  const name = 'address pools'
  const found = await conflicts()
  if (found.length === 0) return ok(name, `${pools.join(', ')}: nobody else on this host uses them`)
  return fail(
    name,
    listed(found.map(({ pool, kind, prefix, device }) => `${pool} overlaps the ${kind} ${prefix} of ${device}`)) +
      ': some addresses lead elsewhere',
    'choose another `pool` in the configuration of a new network, or move that network off these addresses',
  )
}

const routeShape = z.array(z.looseObject({ dev: z.string().optional(), type: z.string().optional() }))

/** Asks the kernel where a packet to an overlay address would go; sees policy rules of VPNs too, which no list of routes shows. */
export async function checkRoutes({ tun, routed, report }: LinkInputs, run: CommandRunner): Promise<DoctorCheck> {
  const name = 'routes'
  const problems: string[] = []
  for (const address of routed.filter((one) => report.ipv6 || !isV6(one))) {
    try {
      const route = routeShape.parse(JSON.parse((await run('ip', ['-j', 'route', 'get', address])).trim() || '[]'))[0]
      if (route?.dev !== tun)
        problems.push(`${address} goes to ${route?.dev ?? route?.type ?? 'nowhere'} instead of ${tun}`)
    } catch (error) {
      if (!(error instanceof CommandError)) throw error
      if (error.missing) return fail(name, 'the program ip is not installed', installing('iproute2'))
      problems.push(`${address} goes nowhere (${error.complaint})`)
    }
  }
  if (problems.length === 0) return ok(name, `overlay addresses go into ${tun}`)
  return fail(
    name,
    `${listed(problems)}: programs do not reach services`,
    `${again} (ip rule; ip route show table all)`,
  )
}

export async function checkBlackholes({ tun, pools, report }: LinkInputs, run: CommandRunner): Promise<DoctorCheck> {
  const name = 'blackhole routes'
  const metric = blackholeMetric(tun)
  const present = new Set<string>()
  for (const family of report.ipv6 ? ['-4', '-6'] : ['-4']) {
    const routes = parseRoutes(await run('ip', ['-j', family, 'route', 'show', 'type', 'blackhole']))
    for (const route of routes) if (route.metric === metric) present.add(normal(route.dst))
  }
  const missing = pools.filter((pool) => (report.ipv6 || !isV6(pool)) && !present.has(normal(pool)))
  if (missing.length === 0) return ok(name, `nothing of the overlay leaves in clear when ${tun} is gone`)
  return warn(
    name,
    `${missing.join(', ')} missing: when ${tun} is gone, overlay traffic leaves in clear by the default route`,
    missing.map((pool) => `sudo ip route replace blackhole ${pool} metric ${metric}`).join(' && '),
  )
}

/** One spelling a prefix. */
function normal(prefix: string): string {
  if (!ipaddr.isValidCIDR(prefix)) return prefix
  const [address, length] = ipaddr.parseCIDR(prefix)
  return `${address.toString()}/${length}`
}

const firewallCost =
  'overlay traffic is tracked like other traffic, and no second lock keeps it in this host or other devices from speaking as overlay addresses'

export async function checkFirewallTable({ tun, report }: LinkInputs, run: CommandRunner): Promise<DoctorCheck> {
  const name = 'firewall table'
  const table = firewallTable(tun)
  try {
    await run('nft', ['-j', 'list', 'table', 'inet', table])
    return ok(name, `nftables table inet ${table}`)
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    if (error.missing)
      return warn(
        name,
        `nft is not installed: ${firewallCost}`,
        `${installing('nftables')}; then start the daemon again`,
      )
    if (!report.firewall) {
      return warn(
        name,
        `${error.complaint}: ${firewallCost}`,
        'use a kernel with nf_tables (modprobe nf_tables); then start the daemon again',
      )
    }
    return warn(
      name,
      `the table inet ${table} has been removed: ${firewallCost}`,
      'start the daemon again, after whatever flushes all tables (systemctl restart nftables does)',
    )
  }
}

export async function checkFirewallObstacles({ tun, firewallObstacles }: LinkInputs): Promise<DoctorCheck> {
  const name = 'other firewalls'
  const chains = await firewallObstacles()
  if (chains.length === 0) return ok(name, 'none drops incoming packets by default')
  return warn(
    name,
    `${listed(chains, ', ')} drops what comes in unless a rule allows it: services of this host may not be reached`,
    chains
      .slice(0, 3)
      .map((chain) => `sudo nft insert rule ${chain} iifname "${tun}" accept`)
      .join(' && '),
  )
}
