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
  const families = [
    { ip: 'ip', type: 'ipv4_addr', set: 'overlay4', pools: plan.pools4 },
    { ip: 'ip6', type: 'ipv6_addr', set: 'overlay6', pools: plan.pools6 },
  ].filter((family) => family.pools.length > 0)
  const each = (rule: (ip: string, set: string) => string[]) => families.flatMap(({ ip, set }) => rule(ip, `@${set}`))
  const lines = [
    table,
    `delete ${table}`,
    `${table} {`,
    ...families.flatMap(({ type, set, pools }) => [
      `set ${set} {`,
      `type ${type}`,
      'flags interval',
      `elements = { ${pools.join(', ')} }`,
      '}',
    ]),
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
    ...each((ip, set) => [`${ip} saddr ${set} jump speaks`, `${ip} daddr ${set} jump addressed`]),
    '}',
    'chain output {',
    'type filter hook output priority raw; policy accept;',
    `oifname "${plan.tun}" notrack accept`,
    ...each((ip, set) => [`${ip} saddr ${set} notrack`, `${ip} daddr ${set} notrack`]),
    '}',
    'chain postrouting {',
    'type filter hook postrouting priority srcnat + 10; policy accept;',
    ...each((ip, set) => [`oifname != ${ours} ${ip} daddr ${set} drop`]),
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
