// `caracal doctor`: everything that caracal needs of the machine, the network and its services, each with what it costs when it is missing and what
// to do about it. Nothing is changed by a check.

import type { AeadName } from '../lib/crypto/codec.js'
import type { CommandRunner } from './command.js'
import type { Config } from './config.js'
import type { DoctorCheck } from './control/shapes.js'
import {
  checkExpress,
  checkPriority,
  checkOffloads,
  checkSealing,
  checkTun,
  checkUdpBuffers,
  checkUdpOffloads,
  type SocketReport,
  type TunReport,
} from './doctor/device-checks.js'
import { warn } from './doctor/finding.js'
import { checkKeeper } from './doctor/keeper-checks.js'
import {
  checkBlackholes,
  checkFirewallObstacles,
  checkFirewallTable,
  checkPools,
  checkRoutes,
  type LinkInputs,
} from './doctor/link-checks.js'
import {
  checkClaims,
  checkDirectory,
  checkDns,
  checkDrops,
  checkHosts,
  checkInstances,
  checkLanes,
  checkNames,
  type DirectoryInputs,
  type DnsInputs,
  type HostReport,
  type InstanceReport,
} from './doctor/network-checks.js'
import { checkEventLoop, checkKernelSettings, checkNode, type SettingReader } from './doctor/system-checks.js'
import { checkClock, checkMembership, type TrustInputs } from './doctor/trust-checks.js'
import { messageOf } from './errors.js'
import type { LoopDelay } from './event-loop.js'
import type { KeeperReport } from './keeper/keeping.js'
import type { AeadChoice } from './native-codec.js'

/** The daemon and its machine as the checks see them. */
export interface DoctorInputs {
  /** `process.version` */
  readonly nodeVersion: string
  readonly loopDelay: LoopDelay
  /** Packets that come alone pass by native code. */
  readonly express: boolean
  /** The threads that move packets run before other programs. */
  readonly realTime: boolean
  readonly readSetting: SettingReader
  /** Programs of the system; only asks. */
  readonly run: CommandRunner
  readonly tun: TunReport
  readonly sockets: readonly SocketReport[]
  /** What the codec in use offers. */
  readonly aeads: readonly AeadName[]
  /** What does AES-256-GCM in it. */
  readonly aes: AeadChoice
  /** What has been chosen to be done without is told as such. */
  readonly settings: Pick<Config, 'offload' | 'aead' | 'loop'>
  /** Without its `tun`, which is the device above. */
  readonly link: Omit<LinkInputs, 'tun'>
  readonly keeper: () => Promise<KeeperReport | undefined>
  readonly dns: DnsInputs
  readonly trust: TrustInputs
  readonly directory: DirectoryInputs
  readonly hosts: readonly HostReport[]
  /** UDP ports of the lanes above the first. */
  readonly lanePorts: readonly number[]
  /** Registrations that are ignored (Catalogue.conflicts), one sentence each. */
  readonly nameConflicts: readonly string[]
  /** IPv4 claims that are not settled, one name or sentence each. */
  readonly unsettledClaims: readonly string[]
  /** Of this host. */
  readonly instances: readonly InstanceReport[]
  /** Drop reason → packets since the start. */
  readonly drops: Readonly<Record<string, number>>
}

const LIMIT_MS = 5_000

/** All checks, in a fixed order. Never rejects: one that cannot be made is a finding. */
export async function runDoctor(inputs: DoctorInputs, limitMs = LIMIT_MS): Promise<DoctorCheck[]> {
  const { readSetting, run, tun, sockets, trust } = inputs
  const { offload, aead } = inputs.settings
  const link: LinkInputs = { ...inputs.link, tun: tun.name }
  const checks: readonly (readonly [name: string, check: () => DoctorCheck | Promise<DoctorCheck>])[] = [
    ['node', () => checkNode(inputs.nodeVersion)],
    ['tun', () => checkTun(tun, run)],
    ['tun offloads', () => checkOffloads(tun, offload)],
    ['kernel settings', () => checkKernelSettings(tun.name, link.report.ipv6, readSetting)],
    ['address pools', () => checkPools(link)],
    ['routes', () => checkRoutes(link, run)],
    ['blackhole routes', () => checkBlackholes(link, run)],
    ['firewall table', () => checkFirewallTable(link, run)],
    ['other firewalls', () => checkFirewallObstacles(link)],
    ['udp offloads', () => checkUdpOffloads(sockets, offload)],
    ['udp buffers', () => checkUdpBuffers(sockets, offload.bufferBytes, readSetting)],
    ['keeper', async () => checkKeeper(await inputs.keeper(), tun.name)],
    ['sealing', () => checkSealing(inputs.aeads, aead, inputs.aes)],
    ['clock', () => checkClock(trust)],
    ['membership', () => checkMembership(trust)],
    ['hosts', () => checkHosts(inputs.hosts)],
    ['lanes', () => checkLanes(inputs.hosts, inputs.lanePorts)],
    ['directory', () => checkDirectory(inputs.directory)],
    ['dns', () => checkDns(inputs.dns)],
    ['names', () => checkNames(inputs.nameConflicts)],
    ['address claims', () => checkClaims(inputs.unsettledClaims)],
    ['services', () => checkInstances(inputs.instances)],
    ['drops', () => checkDrops(inputs.drops)],
    ['express', () => checkExpress(inputs.settings.loop.express, inputs.express)],
    ['priority', () => checkPriority(inputs.settings.loop.priority, inputs.realTime)],
    ['event loop', () => checkEventLoop(inputs.loopDelay)],
  ]
  return Promise.all(checks.map(([name, check]) => attempt(name, check, limitMs)))
}

async function attempt(
  name: string,
  check: () => DoctorCheck | Promise<DoctorCheck>,
  limitMs: number,
): Promise<DoctorCheck> {
  let limit: NodeJS.Timeout | undefined
  const late = new Promise<DoctorCheck>((resolve) => {
    limit = setTimeout(() => resolve(unknown(name, `no answer within ${limitMs} ms`)), limitMs)
  })
  try {
    return await Promise.race([check(), late])
  } catch (error) {
    return unknown(name, messageOf(error))
  } finally {
    clearTimeout(limit)
  }
}

function unknown(name: string, why: string): DoctorCheck {
  return warn(name, `could not be checked: ${why}`, 'see the log of the daemon, and try again')
}
