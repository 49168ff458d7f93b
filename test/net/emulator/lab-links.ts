import { enter } from '../../../cli/lab/holder.js'
import type { Lab, LabHost } from '../../../cli/lab/lab.js'
import { EmulatedLink, type LinkEnd, type LinkOptions } from './link.js'

/** Joins each two hosts of a lab by an emulated link of their own, in place of the switch; a host has the same address on all of its links. For {@link LabOptions.join}. */
export async function joinByLinks(lab: Lab, options: LinkOptions): Promise<EmulatedLink[]> {
  const links: EmulatedLink[] = []
  const devices = new Map<LabHost, number>()
  const end = (host: LabHost, other: LabHost): LinkEnd => {
    const number = devices.get(host) ?? 0
    devices.set(host, number + 1)
    return {
      enter: enter(host.holder),
      netns: String(host.holder.pid),
      device: `eth${number}`,
      addresses: [`${host.address} peer ${other.address}/32`],
    }
  }
  try {
    for (const [i, a] of lab.hosts.entries())
      for (const b of lab.hosts.slice(i + 1)) links.push(await EmulatedLink.between(end(a, b), end(b, a), options))
    return links
  } catch (error) {
    await Promise.all(links.map((link) => link.close()))
    throw error
  }
}
