// The nftables table of one TUN device. It keeps overlay prefixes out of connection tracking (a daemon's restart or a move must not meet stale
// entries), lets nobody but the TUN speak as an overlay address, and keeps overlay traffic from leaving by another device, also while the daemon is gone.
// It cannot admit what another table drops: a verdict `accept` ends one chain only. `inputObstacles` finds such tables for `doctor`.

import { z } from 'zod'

/** ARPHRD_NONE: what the kernel calls the hardware of a TUN. */
const TUN_HARDWARE = 65_534

export interface FirewallPlan {
  readonly tun: string
  /** All prefixes of the overlay, by family. */
  readonly pools4: readonly string[]
  readonly pools6: readonly string[]
}

export function firewallTable(tun: string): string {
  return `caracal_${tun}`
}

/** nft's commands that make the table, replacing one of that name, in one transaction. */
export function firewallRules(plan: FirewallPlan): string {
  const table = `table inet ${firewallTable(plan.tun)}`
  const ours = `{ "lo", "${plan.tun}" }`
  // Every packet of the host is compared with each prefix, which costs the kernel less than a set to look in does.
  const each = (rule: (source: string, destination: string) => string[]) => [
    ...plan.pools4.flatMap((pool) => rule(`ip saddr ${pool}`, `ip daddr ${pool}`)),
    ...plan.pools6.flatMap((pool) => rule(`ip6 saddr ${pool}`, `ip6 daddr ${pool}`)),
  ]
  const lines = [
    table,
    `delete ${table}`,
    `${table} {`,
    'chain speaks {',
    'iifname != "lo" drop',
    'notrack',
    '}',
    'chain addressed {',
    'iifname != "lo" fib daddr type local drop',
    'notrack',
    '}',
    'chain prerouting {',
    'type filter hook prerouting priority raw; policy accept;',
    // First: every packet that comes through the overlay is one of these.
    `iifname "${plan.tun}" notrack accept`,
    // Our TUN delivers to 127.0.0.1 (route_localnet); nothing with wires may. Other TUNs are the kernel's own check's business.
    `ip saddr 127.0.0.0/8 iifname != "lo" meta iiftype != ${TUN_HARDWARE} drop`,
    `ip daddr 127.0.0.0/8 iifname != "lo" meta iiftype != ${TUN_HARDWARE} drop`,
    ...each((source, destination) => [`${source} jump speaks`, `${destination} jump addressed`]),
    '}',
    'chain output {',
    'type filter hook output priority raw; policy accept;',
    `oifname "${plan.tun}" notrack accept`,
    ...each((source, destination) => [`${source} notrack`, `${destination} notrack`]),
    '}',
    'chain postrouting {',
    'type filter hook postrouting priority srcnat + 10; policy accept;',
    ...each((_, destination) => [`${destination} oifname != ${ours} drop`]),
    '}',
    '}',
  ]
  return lines.join('\n') + '\n'
}

const chainsShape = z.object({
  nftables: z.array(
    z.looseObject({
      chain: z
        .looseObject({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
})

/** Chains in the output of `nft -j list chains` that drop what comes in unless a rule of theirs allows it, as `FAMILY TABLE CHAIN`. */
export function inputObstacles(json: string, tun: string): string[] {
  return chainsShape.parse(JSON.parse(json)).nftables.flatMap(({ chain }) => {
    if (chain?.hook !== 'input' || chain.policy !== 'drop' || chain.table === firewallTable(tun)) return []
    return [`${chain.family} ${chain.table} ${chain.name}`]
  })
}
