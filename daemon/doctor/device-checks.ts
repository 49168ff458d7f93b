// The two devices that packets pass, and what seals them.

import { z } from 'zod'
import type { AeadName } from '../../lib/crypto/codec.js'
import { formatLocator, type Locator } from '../../lib/path/locator.js'
import { CommandError, type CommandRunner } from '../command.js'
import type { DoctorCheck } from '../control/shapes.js'
import type { TunOffloads } from '../tun.js'
import type { BufferSizes } from '../udp.js'
import { fail, installing, listed, ok, warn } from './finding.js'
import type { SettingReader } from './system-checks.js'

export interface TunReport {
  readonly name: string
  readonly mtu: number
  readonly offloads: TunOffloads
}

/** A UDP socket; NativeUdp is one. `gro` and `gso`: undefined where it cannot tell. */
export interface SocketReport {
  readonly local: Locator
  readonly bufferSizes: BufferSizes
  readonly gro?: boolean
  readonly gso?: boolean
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

export function checkOffloads({ name: tun, offloads }: TunReport): DoctorCheck {
  const name = 'tun offloads'
  const newer = 'use a newer kernel (USO: 6.2) where speed matters'
  if (!offloads.vnetHeader || !offloads.checksum || !offloads.tso) {
    return warn(name, `the kernel gives ${tun} no TCP offload: bulk transfers run at less than half the speed`, newer)
  }
  if (!offloads.uso) {
    return warn(name, `the kernel gives ${tun} no UDP offload: many small datagrams cost more processor time`, newer)
  }
  return ok(name, 'checksum, TCP and UDP super-packets')
}

export function checkUdpOffloads(sockets: readonly SocketReport[]): DoctorCheck {
  const name = 'udp offloads'
  const problems = sockets.flatMap(({ local, gso, gro }) => {
    const where = formatLocator(local)
    return [
      ...(gso === false
        ? [`${where} sends one frame a message (no GSO): bulk transfers run at about a quarter of the speed`]
        : []),
      ...(gro === false ? [`${where} receives one frame a buffer (no GRO): receiving costs more processor time`] : []),
    ]
  })
  if (problems.length === 0) return ok(name, 'GSO and GRO')
  return warn(
    name,
    listed(problems),
    'use Linux 5.0 or newer; some network cards and tunnels refuse GSO: ethtool -K DEVICE tx-udp-segmentation on',
  )
}

/** Less makes bulk transfers lose frames, and these be sent again. */
const BUFFER_ENOUGH = 1 << 22

export async function checkUdpBuffers(sockets: readonly SocketReport[], read: SettingReader): Promise<DoctorCheck> {
  const name = 'udp buffers'
  if (sockets.length === 0)
    return fail(name, 'no UDP socket is open: no other host is reached', 'set `listen` in the configuration')
  const receive = Math.min(...sockets.map(({ bufferSizes }) => bufferSizes.receive))
  const send = Math.min(...sockets.map(({ bufferSizes }) => bufferSizes.send))
  const detail = `${kilobytes(receive)} to receive, ${kilobytes(send)} to send`
  const short = [
    ...(receive < BUFFER_ENOUGH ? ['net/core/rmem_max'] : []),
    ...(send < BUFFER_ENOUGH ? ['net/core/wmem_max'] : []),
  ]
  if (short.length === 0) return ok(name, detail)
  const limits = await Promise.all(
    short.map(async (path) => `${path.replaceAll('/', '.')} is ${(await read(path))?.trim() ?? 'not known'}`),
  )
  return warn(
    name,
    `${detail}, less than ${kilobytes(BUFFER_ENOUGH)} (${limits.join(', ')}): bulk transfers lose frames and send them again`,
    `${short.map((path) => `sudo sysctl -w ${path}=${4 * BUFFER_ENOUGH}`).join(' && ')}, then start the daemon again (as root the limit does not hold)`,
  )
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1024)} KB`
}

/** @param aeads what the codec in use offers */
export function checkSealing(aeads: readonly AeadName[]): DoctorCheck {
  const name = 'sealing'
  if (aeads.includes('aes-256-gcm')) return ok(name, aeads.join(', '))
  return warn(
    name,
    `${aeads.join(', ') || 'nothing'} only: this processor or build has no fast AES-256-GCM that passed its self-test, bulk transfers cost more processor time`,
    'nothing is unsafe; build the native part again on this machine where speed matters (npm run build)',
  )
}
