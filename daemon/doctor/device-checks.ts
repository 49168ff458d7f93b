// The two devices that packets pass, and what seals them.

import { z } from 'zod'
import type { AeadName } from '../../lib/crypto/codec.js'
import { formatLocator, type Locator } from '../../lib/path/locator.js'
import { CommandError, type CommandRunner } from '../command.js'
import type { LoopSetting, OffloadSetting } from '../config.js'
import type { DoctorCheck } from '../control/shapes.js'
import { sealers, type AeadChoice, type AeadSetting } from '../native-codec.js'
import type { TunOffloads } from '../tun.js'
import type { BufferSizes } from '../udp.js'
import { fail, installing, listed, ok, warn } from './finding.js'
import type { SettingReader } from './system-checks.js'

export interface TunReport {
  readonly name: string
  readonly mtu: number
  readonly offloads: TunOffloads
}

/** A UDP socket; NativeUdp is one. `gro` and `gso`: undefined where it cannot tell. `gsoRefused`: by the device on the way to some hosts. */
export interface SocketReport {
  readonly local: Locator
  readonly bufferSizes: BufferSizes
  readonly gro?: boolean
  readonly gso?: boolean
  readonly gsoRefused?: boolean
}

const linkShape = z.array(z.looseObject({ flags: z.array(z.string()).optional(), mtu: z.number().optional() }))

/** Whether the device is still there as the daemon left it. */
export async function checkTun({ name: tun, mtu }: TunReport, run: CommandRunner): Promise<DoctorCheck> {
  const name = 'tun'
  const again = 'start the daemon again, and see what else on this host changes network devices'
  let json: string
  try {
    json = await run('ip', ['-j', 'link', 'show', 'dev', tun])
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    if (error.missing) return fail(name, 'the program ip is not installed', installing('iproute2'))
    return fail(name, `the device ${tun} is gone: no program reaches any service`, again)
  }
  const link = linkShape.parse(JSON.parse(json.trim() || '[]'))[0]
  if (link === undefined || !(link.flags ?? []).includes('UP')) {
    return fail(name, `the device ${tun} is down: no program reaches any service`, `sudo ip link set ${tun} up`)
  }
  if (link.mtu !== undefined && link.mtu !== mtu) {
    return warn(
      name,
      `the device ${tun} has MTU ${link.mtu} instead of ${mtu}: larger packets are refused, or smaller ones than need be are made`,
      `sudo ip link set ${tun} mtu ${mtu}`,
    )
  }
  return ok(name, `${tun} is up, MTU ${mtu}`)
}

/** What brings a setting back to its default. */
function switchingOn(...settings: readonly string[]): string {
  const several = settings.map((setting) => `\`${setting}\``).join(' and ')
  return `take ${several} out of the configuration, then start the daemon again`
}

const TSO_COST = 'bulk transfers run at six tenths of the throughput at best'
const USO_COST = 'many small datagrams cost more processor time'

/** @param wanted `loop.express` */
export function checkExpress(wanted: boolean, on: boolean): DoctorCheck {
  const name = 'express'
  if (wanted) return ok(name, on ? 'packets that come alone pass at once' : 'not while a dump is open')
  const setting = 'loop.express: false'
  const cost = 'round trips of single packets take twice as long'
  return warn(name, `no packet passes at once, as \`${setting}\` switches it off: ${cost}`, switchingOn(setting))
}

/** @param wanted `loop.priority` */
export function checkPriority(wanted: LoopSetting['priority'], realTime: boolean): DoctorCheck {
  const name = 'priority'
  if (realTime) return ok(name, 'packets go before all other programs')
  if (wanted === 'normal') return ok(name, 'packets wait like all other programs')
  return warn(
    name,
    'the system does not let packets go before other programs, although `loop.priority: real-time` says so: they wait as long as others',
    'run the daemon as root or with CAP_SYS_NICE, and without RestrictRealtime= where systemd starts it',
  )
}

/** @param wanted what is set; the rest of what is missing is not supported */
export function checkOffloads({ name: tun, offloads }: TunReport, wanted: OffloadSetting): DoctorCheck {
  const name = 'tun offloads'
  const newer = 'use a newer kernel (USO: 6.2) where speed matters'
  const without = (what: string, cost: string, setting: string | undefined) =>
    setting === undefined
      ? warn(name, `this kernel gives ${tun} ${what}: ${cost}`, newer)
      : warn(name, `${tun} has ${what}, as \`${setting}\` switches it off: ${cost}`, switchingOn(setting))
  const level = `offload.tun: ${wanted.tun}`
  if (!offloads.vnetHeader) {
    const setting = wanted.vnetHeader ? undefined : 'offload.vnet-header: false'
    return without('no virtio_net_hdr, so neither TCP nor UDP offload', `${TSO_COST}; ${USO_COST}`, setting)
  }
  if (!offloads.checksum || !offloads.tso) {
    const chosen = wanted.tun === 'none' || wanted.tun === 'checksum'
    return without('no TCP offload', `${TSO_COST}; ${USO_COST}`, chosen ? level : undefined)
  }
  if (!offloads.uso) return without('no UDP offload', USO_COST, wanted.tun === 'tso' ? level : undefined)
  return ok(name, 'checksum, TCP and UDP super-packets')
}

const GSO_COST = 'bulk transfers run at about a quarter of the throughput'
const GRO_COST = 'bulk transfers run at about half of the throughput'

/** @param wanted what is set; the rest of what is missing is not supported */
export function checkUdpOffloads(sockets: readonly SocketReport[], wanted: OffloadSetting): DoctorCheck {
  const name = 'udp offloads'
  const without = (feature: 'gso' | 'gro') => sockets.filter((socket) => socket[feature] === false)
  const problems: string[] = []
  const remedies: string[] = []
  const off: string[] = []
  for (const [feature, what, cost] of [
    ['gso', 'one frame a message is sent (no GSO)', GSO_COST],
    ['gro', 'one frame a buffer is received (no GRO)', GRO_COST],
  ] as const) {
    const missing = without(feature)
    if (missing.length === 0) continue
    const setting = `offload.${feature}: false`
    if (wanted[feature]) {
      const where = missing.map(({ local }) => formatLocator(local))
      problems.push(`${what} on ${listed(where, ', ')}, where the kernel does not support it: ${cost}`)
    } else {
      problems.push(`${what}, as \`${setting}\` switches it off: ${cost}`)
      off.push(setting)
    }
  }
  const refused = sockets.filter(({ gsoRefused }) => gsoRefused === true)
  if (refused.length > 0) {
    const where = refused.map(({ local }) => formatLocator(local))
    problems.push(
      `one frame a message is sent to some hosts (no GSO) on ${listed(where, ', ')}, as the device on the way to them refuses more: ${GSO_COST}`,
    )
  }
  if (problems.length === 0) return ok(name, 'GSO and GRO')
  if (off.length > 0) remedies.push(switchingOn(...off))
  if (problems.length > off.length) {
    remedies.push(
      'use Linux 5.0 or newer; some network cards and tunnels refuse GSO: ethtool -K DEVICE tx-udp-segmentation on',
    )
  }
  return warn(name, listed(problems), remedies.join('; '))
}

/** Less makes bulk transfers lose frames, and these be sent again. */
const BUFFER_ENOUGH = 1 << 22
const BUFFER_COST =
  'bulk transfers lose frames and send them again: nine tenths of the throughput at best, half of it on a busy host'

/** @param wanted bytes that are set */
export async function checkUdpBuffers(
  sockets: readonly SocketReport[],
  wanted: number,
  read: SettingReader,
): Promise<DoctorCheck> {
  const name = 'udp buffers'
  if (sockets.length === 0)
    return fail(name, 'no UDP socket is open: no other host is reached', 'set `listen` in the configuration')
  const receive = Math.min(...sockets.map(({ bufferSizes }) => bufferSizes.receive))
  const send = Math.min(...sockets.map(({ bufferSizes }) => bufferSizes.send))
  const detail = `${kilobytes(receive)} to receive, ${kilobytes(send)} to send`
  if (receive >= BUFFER_ENOUGH && send >= BUFFER_ENOUGH) return ok(name, detail)
  const reasons: string[] = []
  const remedies: string[] = []
  if (wanted < BUFFER_ENOUGH) {
    const setting = `offload.buffers: ${wanted}`
    reasons.push(`\`${setting}\` asks for no more`)
    remedies.push(switchingOn(setting))
  }
  const reached = Math.min(wanted, BUFFER_ENOUGH)
  const limits = [...(receive < reached ? ['net/core/rmem_max'] : []), ...(send < reached ? ['net/core/wmem_max'] : [])]
  for (const path of limits) {
    reasons.push(`${path.replaceAll('/', '.')} is ${(await read(path))?.trim() ?? 'not known'}`)
  }
  if (limits.length > 0) {
    const raised = limits.map((path) => `sudo sysctl -w ${path}=${4 * BUFFER_ENOUGH}`).join(' && ')
    remedies.push(`${raised}, then start the daemon again (as root the limit does not hold)`)
  }
  return warn(
    name,
    `${detail}, less than ${kilobytes(BUFFER_ENOUGH)} (${reasons.join(', ')}): ${BUFFER_COST}`,
    remedies.join('; '),
  )
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1024)} KB`
}

const CHACHA_COST = 'bulk transfers cost about a quarter more processor time'

const OPENSSL_COST = 'bulk transfers cost more processor time than they need'

/**
 * @param aeads what the codec in use offers
 * @param setting what is set
 * @param aes what does AES-256-GCM
 */
export function checkSealing(aeads: readonly AeadName[], setting: AeadSetting, aes: AeadChoice): DoctorCheck {
  const name = 'sealing'
  const { offer: wanted, implementation } = setting
  if (aeads.includes('aes-256-gcm')) {
    const used = sealers(aeads, aes)
      .map((one) => `${one.aead} by ${one.by}`)
      .join(', ')
    if (aes.passedOver === undefined) return ok(name, used)
    if (aes.failed)
      return warn(
        name,
        `${used}: ${aes.passedOver}`,
        'nothing is unsafe; upgrade or remove that library (libipsec-mb1), then start the daemon again',
      )
    if (implementation === 'auto') return ok(name, `${used}; ${aes.passedOver}, with it sealing would be faster`)
    return warn(
      name,
      `${used}, not as \`aead.implementation: ${implementation}\` wants it: ${aes.passedOver}; ${OPENSSL_COST}`,
      'nothing is unsafe; sudo apt-get install libipsec-mb1 (version 1.3), then start the daemon again',
    )
  }
  const offered = `${aeads.join(', ') || 'nothing'} only`
  if (!wanted.includes('aes-256-gcm')) {
    const chosen = `aead.offer: [${wanted.join(', ')}]`
    return warn(
      name,
      `${offered}, as \`${chosen}\` switches AES-256-GCM off: ${CHACHA_COST}`,
      `nothing is unsafe; where speed matters, ${switchingOn(chosen)}`,
    )
  }
  return warn(
    name,
    `${offered}: this processor or build has no fast AES-256-GCM that passed its self-test, ${CHACHA_COST}`,
    'nothing is unsafe; build the native part again on this machine where speed matters (npm run build)',
  )
}
