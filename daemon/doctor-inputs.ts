import { lookup } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import type { Family } from '../lib/flow/environment.js'
import { SKEW_SECONDS } from '../lib/crypto/validity.js'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import { runCommand } from './command.js'
import type { DoctorCheck } from './control/shapes.js'
import type { Daemon } from './daemon.js'
import { runDoctor } from './doctor.js'
import { native } from './native.js'
import { chooseLibrary, codecAddon } from './native-codec.js'
import { hostsView, serviceView } from './views.js'
import { wallNow } from './wall-clock.js'

/** Every check of `caracal doctor`, on a running daemon. */
export function doctorChecks(daemon: Daemon): Promise<DoctorCheck[]> {
  const { host, identity, names, zone, underlay, tun, link, linkReport, resolver } = daemon
  const { addresses, catalogue, directory } = host
  const families: Family[] = linkReport?.ipv6 === true ? [4, 6] : [4]
  const self = { kind: 'host', host: host.id } as const
  const own = families.flatMap((family) => addresses.dialledAddress(self, family) ?? []).map(formatAddress)
  const services = catalogue.services().map((view) => serviceView(daemon, view))
  return runDoctor({
    nodeVersion: process.version,
    loopDelay: daemon.loopDelay.read(),
    express: host.express.on,
    realTime: native().isRealTime(),
    readSetting: (path) => readFile(`/proc/sys/${path}`, 'utf8').catch(() => undefined),
    run: runCommand,
    tun,
    sockets: underlay.sockets,
    aeads: daemon.aeads,
    aes: chooseLibrary(codecAddon(), daemon.config.aead.implementation),
    settings: daemon.config,
    link: {
      pools: [addresses.plan.pool, addresses.plan.v6],
      routed: own,
      report: linkReport ?? { ipv6: false, firewall: false, warnings: [] },
      conflicts: () => link.conflicts(),
      firewallObstacles: () => link.firewallObstacles(),
    },
    keeper: async () => daemon.keeping?.report(),
    dns: {
      settings: resolver ?? { description: 'names are not served yet', active: false },
      name: `${names.showHost(host.id)}.host.${zone}`,
      addresses: [...own, ...families.map((family) => formatAddress(dnsAddress(addresses.plan, family)))],
      lookup: async (name) => (await lookup(name, { all: true })).map(({ address }) => address),
    },
    trust: {
      wallNow: wallNow(),
      wallFloor: identity.trust.floor,
      skewSeconds: SKEW_SECONDS,
      membership: identity.membership,
      revoked: host.revocation,
    },
    directory: { synced: directory.synced, counters: { ...directory.counters } },
    // What passes with them is not looked at.
    hosts: hostsView(daemon, host.flows.endedTraffic),
    lanePorts: daemon.lanes.ports,
    nameConflicts: catalogue.conflicts().map((one) => `${one.name} on ${names.showHost(one.host)}: ${one.detail}`),
    unsettledClaims: services.filter((service) => !service.movable).map((service) => service.name),
    instances: services.flatMap(({ name, instances }) =>
      instances.filter((instance) => instance.self).map((instance) => ({ service: name, ...instance })),
    ),
    drops: host.drops.toJSON(),
  })
}
