import type { Primitives } from '../lib/crypto/primitives.js'
import { isProven, parseProof } from '../lib/service/name-proof.js'
import { isOfNetwork, keyName, parseServiceName, serviceIdOf } from '../lib/service/service-id.js'
import type { HostId, NetworkId } from '../lib/wire/ids.js'
import { fromHex } from '../lib/wire/ids.js'
import { CaracalError } from './errors.js'

export interface ProofCheck {
  readonly primitives: Primitives
  readonly network: NetworkId
  readonly host: HostId
  /** For people. */
  readonly showHost: (host: HostId) => string
}

/** The name that a host may register without a proof: its host key's. */
export function ownNameOf(host: HostId): string {
  return keyName(fromHex(host)).text
}

/**
 * The signature that a registration of the name carries; undefined: it needs none.
 * @throws CaracalError CARACAL_E_PROOF: a self-certifying name that this host may not register, or a proof where there is nothing to prove
 */
export function proofOf(nameText: string, proofText: string | undefined, check: ProofCheck): Uint8Array | undefined {
  const { primitives, network, host, showHost } = check
  const name = parseServiceName(nameText)
  if ('problem' in name) throw new CaracalError('CARACAL_E_NAME', name.problem, 'choose a name such as web or api.shop')
  const here = showHost(host)
  const ask = `have its holder run \`caracal key proof FILE --host ${here}\``
  if (name.kind !== 'key') {
    if (proofText === undefined) return undefined
    throw refused(`${name.text} is no self-certifying name`, 'leave out the proof')
  }
  if (proofText === undefined) {
    if (name.text === ownNameOf(host)) return undefined
    throw refused(`only the holder of its key says who may register ${name.text}`, `${ask}, and give the --proof`)
  }
  const proof = parseProof(proofText)
  if (proof === undefined) throw refused('this is no proof', 'copy all of the last line of `caracal key proof`')
  if (!isOfNetwork(proof.service, network)) throw refused('the proof is for another network', ask)
  if (proof.service !== serviceIdOf(name, network, primitives))
    throw refused(`the proof is for another name than ${name.text}`, ask)
  if (proof.host !== host) throw refused(`the proof is for the host ${showHost(proof.host)}, and this is ${here}`, ask)
  if (!isProven(primitives, name.key, proof)) throw refused(`the proof is not signed with the key of ${name.text}`, ask)
  return proof.signature
}

function refused(what: string, next: string): CaracalError {
  return new CaracalError('CARACAL_E_PROOF', what, next)
}
