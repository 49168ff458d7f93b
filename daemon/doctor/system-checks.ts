// The process and the kernel's settings.

import type { DoctorCheck } from '../control/shapes.js'
import type { LoopDelay } from '../event-loop.js'
import { fail, listed, ok, warn } from './finding.js'

const NODE_MAJOR = 20
const LATE_P99_MS = 20
const LATE_MAX_MS = 1_000

/** @param version as `process.version` */
export function checkNode(version: string): DoctorCheck {
  const major = Number(/^v?(\d+)\./.exec(version)?.[1] ?? Number.NaN)
  if (major >= NODE_MAJOR) return ok('node', version)
  return fail('node', `${version} is too old`, `install Node ${NODE_MAJOR} or newer`)
}

export function checkEventLoop({ p99Ms, maxMs }: LoopDelay): DoctorCheck {
  const detail = `late by ${p99Ms.toFixed(1)} ms at p99 and by ${maxMs.toFixed(1)} ms at worst in the last minutes`
  if (p99Ms <= LATE_P99_MS && maxMs <= LATE_MAX_MS) return ok('event loop', detail)
  return warn(
    'event loop',
    `${detail}: packets waited as long`,
    'see what else uses the processors (top); an open `caracal dump` and metrics that are read often slow it down too',
  )
}

/** A file below /proc/sys, such as `net/core/rmem_max`; undefined: not there or not readable. */
export type SettingReader = (path: string) => Promise<string | undefined>

/** Settings that others may have changed since the daemon made them. */
export async function checkKernelSettings(tun: string, ipv6: boolean, read: SettingReader): Promise<DoctorCheck> {
  const name = 'kernel settings'
  const value = async (path: string) => (await read(path))?.trim()
  const problems: string[] = []
  const remedies: string[] = []
  const unlike = (path: string, wanted: string, cost: string) => {
    problems.push(`${path.replaceAll('/', '.')} is not ${wanted}: ${cost}`)
    remedies.push(`sudo sysctl -w ${path}=${wanted}`)
  }

  const localnet = `net/ipv4/conf/${tun}/route_localnet`
  const found = await value(localnet)
  if (found === undefined)
    return warn(name, `cannot read ${localnet.replaceAll('/', '.')}`, 'look whether /proc is mounted')
  if (found !== '1') unlike(localnet, '1', 'servers that listen on 127.0.0.1 only are not reached')

  const filter = `net/ipv4/conf/${tun}/rp_filter`
  const strict = [await value('net/ipv4/conf/all/rp_filter'), await value(filter)]
  // The larger of the two holds; 1 is strict, 2 is loose.
  if (Math.max(...strict.map(Number).filter(Number.isFinite)) === 1) {
    unlike(filter, '2', 'the kernel may drop packets of other hosts whose way back it takes for another one')
  }
  const disabled = `net/ipv6/conf/${tun}/disable_ipv6`
  if (ipv6 && (await value(disabled)) === '1') unlike(disabled, '0', 'no service is reached over IPv6')

  if (problems.length > 0) return warn(name, listed(problems), remedies.join(' && '))
  if (!ipv6) {
    return warn(
      name,
      'this kernel has no IPv6: programs reach services over IPv4 only, also those whose server has IPv6 only',
      'boot without ipv6.disable=1 if IPv6 is wanted inside this host',
    )
  }
  return ok(name, `as ${tun} needs them`)
}
