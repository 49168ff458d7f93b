// Other hosts, names and services.

import type { DropReason } from '../../lib/wire/drop.js'
import type { DoctorCheck, HostInfo, InstanceInfo } from '../control/shapes.js'
import { fail, listed, ok, several, warn } from './finding.js'

export interface DnsInputs {
  /** What was done to this host's resolver (ResolverSettings). */
  readonly settings: { readonly description: string; readonly active: boolean }
  /** A name that the daemon answers, with the zone: this host's own. */
  readonly name: string
  /** The answer, both families. */
  readonly addresses: readonly string[]
  /** What programs of this host get (dns.lookup); rejects or is empty when they get nothing. */
  readonly lookup: (name: string) => Promise<readonly string[]>
}

/** Asks as programs do, so that whatever stands between them and the daemon is seen. */
export async function checkDns({ settings, name: asked, addresses, lookup }: DnsInputs): Promise<DoctorCheck> {
  const name = 'dns'
  const answer = await lookup(asked).catch(() => [])
  if (answer.some((address) => addresses.includes(address))) return ok(name, settings.description)
  const got = answer.length === 0 ? 'nothing' : listed(answer, ', ')
  if (!settings.active) {
    return warn(
      name,
      `${settings.description}: programs find no service by name`,
      'use --dns resolved, or --dns file:/etc/resolv.conf',
    )
  }
  return fail(
    name,
    `${settings.description}, but programs get ${got} for ${asked}`,
    'see /etc/resolv.conf and /etc/nsswitch.conf (hosts: … resolve or dns) and what rewrites them; or use --dns file:/etc/resolv.conf',
  )
}

/** A host as `hosts` tells it, as far as it is needed here. */
export type HostReport = Readonly<Pick<HostInfo, 'name' | 'self' | 'state'>> & {
  readonly locators: readonly string[]
  readonly session: Readonly<Pick<NonNullable<HostInfo['session']>, 'upMs' | 'lanes' | 'lanesWorking'>> | null
}

export function checkHosts(hosts: readonly HostReport[]): DoctorCheck {
  const name = 'hosts'
  const others = hosts.filter(({ self, state }) => !self && state !== 'revoked')
  if (others.length === 0) return ok(name, 'no other host of the network is known yet')
  // Without traffic there need be no session: only those that were tried are missed.
  const missed = others.filter(({ state }) => state === 'suspect' || state === 'down')
  const up = others.filter(({ state }) => state === 'up').length
  if (missed.length === 0) return ok(name, `${several(up, 'session')}, ${several(others.length, 'other host')} known`)
  const detail = listed(
    missed.map(
      ({ name: host, state, locators }) => `${host} is ${state} (${listed(locators, ', ') || 'no address known'})`,
    ),
  )
  const remedy =
    'see whether those hosts run, whether UDP gets through to these addresses (firewalls on the way) and whether their clocks are right'
  return up === 0 ? fail(name, `no other host is reached: ${detail}`, remedy) : warn(name, detail, remedy)
}

/** Sessions that are younger may not have tried all their lanes yet, ms. */
const LANES_TRIED_MS = 3_000

/** @param ports UDP ports of this host's lanes above the first */
export function checkLanes(hosts: readonly HostReport[], ports: readonly number[]): DoctorCheck {
  const name = 'lanes'
  const [first, last] = [ports[0], ports.at(-1)]
  if (first === undefined || last === undefined) return ok(name, 'one')
  const blocked = hosts.flatMap(({ name: host, session }) =>
    session !== null && session.upMs >= LANES_TRIED_MS && session.lanesWorking < session.lanes
      ? `${host} is reached by ${session.lanesWorking} of ${session.lanes}`
      : [],
  )
  if (blocked.length === 0) return ok(name, `${ports.length + 1}, and those that other hosts have, too, carry frames`)
  const range = first === last ? `port ${first}` : `ports ${first} to ${last}`
  return warn(
    name,
    `${listed(blocked)}: what the others would carry goes by the first, in one thread`,
    `let UDP through to the ports after that of \`listen\` (here ${range}), on both hosts and on the way; or set \`loop.lanes: 1\``,
  )
}

export interface DirectoryInputs {
  readonly synced: boolean
  /** DirectoryCounters */
  readonly counters: Readonly<Record<string, number>>
}

export function checkDirectory({ synced, counters }: DirectoryInputs): DoctorCheck {
  const name = 'directory'
  if (!synced) {
    return warn(
      name,
      'the records of the other hosts are not here yet: names that are not known are answered SERVFAIL',
      'wait a few seconds; if it stays so, see the check of hosts',
    )
  }
  const full = counters['full'] ?? 0
  if (full > 0) {
    return warn(
      name,
      `${several(full, 'record')} had no room: some services are not known here`,
      'see which host registers so many (caracal services), and revoke it if it should not',
    )
  }
  return ok(name, 'the records of the other hosts are here')
}

/** @param conflicts registrations that are ignored, one sentence each */
export function checkNames(conflicts: readonly string[]): DoctorCheck {
  const name = 'names'
  if (conflicts.length === 0) return ok(name, 'no host registers a name that is not its own')
  return warn(
    name,
    `${listed(conflicts)}: these registrations are ignored`,
    'expose the service under another name there, or on hosts that own the name: see `caracal own`',
  )
}

/** @param unsettled claims of IPv4 addresses that are not settled, one name or sentence each */
export function checkClaims(unsettled: readonly string[]): DoctorCheck {
  const name = 'address claims'
  if (unsettled.length === 0) return ok(name, 'all settled')
  return warn(
    name,
    `not settled yet: ${listed(unsettled, ', ')}; such a service works, but its open sockets cannot move over IPv4`,
    'wait until all hosts have been connected once; if it stays so, choose a larger `pool` for a new network',
  )
}

/** An instance of this host, as `services` tells it, with its service's name. */
export type InstanceReport = Readonly<Pick<InstanceInfo, 'state' | 'health'>> & { readonly service: string }

export function checkInstances(instances: readonly InstanceReport[]): DoctorCheck {
  const name = 'services'
  const ill = instances.filter(({ state }) => state === 'unhealthy' || state === 'down')
  if (ill.length === 0)
    return ok(name, instances.length === 0 ? 'none exposed here' : `${several(instances.length, 'instance')}, all well`)
  return warn(
    name,
    `${listed(ill.map(({ service, health }) => `${service}: ${health.detail || 'unhealthy'}`))}; no new flow comes to ${ill.length === 1 ? 'it' : 'them'}`,
    'start the server, let it listen on 127.0.0.1 or on all addresses, or take the service away with `caracal unexpose`',
  )
}

/** Reasons that say something about this host's set-up, what they mean and what to do. Others are a matter of traffic, and of `caracal status`. */
const telling: readonly (readonly [reason: DropReason, meaning: string, remedy: string])[] = [
  [
    'foreign-source',
    "came from containers, guests or other hosts, whose sources are not this host's",
    'run a daemon in them',
  ],
  ['flow-table-full', 'would have begun flows that had no room', 'see caracal flows for who opens so many'],
  ['tun-write-failed', 'were refused by the kernel', 'see the log of the kernel (dmesg) and the checks of the device'],
  ['fault', "made this host's daemon fail", 'see the log of the daemon, and report what it says there'],
  ['send-failed', 'had no way out of this host', 'see ip route and the addresses of the hosts (caracal hosts)'],
]

/** @param drops reason → packets since the start */
export function checkDrops(drops: Readonly<Record<string, number>>): DoctorCheck {
  const name = 'drops'
  const found = telling.filter(([reason]) => (drops[reason] ?? 0) > 0)
  if (found.length === 0) return ok(name, 'none that hint at a wrong set-up')
  return warn(
    name,
    found.map(([reason, meaning]) => `${several(drops[reason] ?? 0, 'packet')} ${meaning} (${reason})`).join('; '),
    `${found.map(([, , remedy]) => remedy).join('; ')}; caracal dump --point drop shows them`,
  )
}
