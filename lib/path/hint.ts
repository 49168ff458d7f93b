// What a host that does not have a service says of where it may be: the hint of a NOT-HERE `moved`, and the answer to a question. It proves nothing: whoever gets it
// opens a session with the hosts it names, and the handshake says whether they are members.
//
//   [version, [[kind, host ID 32, [[address 4 or 16, port]…]]…]]     packed, at most HINT_MAX bytes

import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { HOST_ID_LENGTH } from '../wire/constants.js'
import { fromHex, hostId, type HostId } from '../wire/ids.js'
import { HINT_MAX } from '../wire/open.js'
import { bytesOf, fields, pack, unpack } from '../wire/pack.js'
import type { Locator } from './locator.js'

export interface HintedHost {
  /** instance: it has the service. resolver: it may know who does. */
  readonly kind: 'instance' | 'resolver'
  readonly host: HostId
  /** Best first; may be none. */
  readonly locators: readonly Locator[]
}

export const HINT_HOSTS_MAX = 3
export const HINT_LOCATORS_MAX = 4

const VERSION = 1
const kinds = ['instance', 'resolver'] as const
const port = z.number().int().min(1).max(65_535)
const locatorShape = fields([z.union([bytesOf(4), bytesOf(16)]), port])
const hostShape = fields([
  z.number().int().min(0),
  bytesOf(HOST_ID_LENGTH),
  z.array(locatorShape).max(HINT_LOCATORS_MAX),
])
const hintShape = fields([z.literal(VERSION), z.array(hostShape).max(HINT_HOSTS_MAX)])

/** The first HINT_HOSTS_MAX hosts, each with its first HINT_LOCATORS_MAX locators; what is no IP address is left out. Always fits. */
export function encodeHint(hosts: readonly HintedHost[]): Uint8Array {
  return pack([
    VERSION,
    hosts.slice(0, HINT_HOSTS_MAX).map(({ kind, host, locators }) => [
      kinds.indexOf(kind),
      fromHex(host),
      locators
        .filter(({ address }) => ipaddr.isValid(address))
        .slice(0, HINT_LOCATORS_MAX)
        .map((locator) => [Uint8Array.from(ipaddr.parse(locator.address).toByteArray()), locator.port]),
    ]),
  ])
}

/** Total: undefined for anything that is no hint of this version. Hosts of a kind that a later version knows are left out. */
export function decodeHint(bytes: Uint8Array): readonly HintedHost[] | undefined {
  const hint = unpack(bytes, HINT_MAX, hintShape)
  return hint?.[1].flatMap(([number, host, locators]) => {
    const kind = kinds[number]
    if (kind === undefined) return []
    return {
      kind,
      host: hostId(host),
      locators: locators.map(([address, port]) => ({
        address: ipaddr.fromByteArray([...address]).toString(),
        port,
      })),
    }
  })
}
