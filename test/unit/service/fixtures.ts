// Small things the tests of this layer share.
import type { Registration } from '../../../lib/service/registration.js'
import { parseServiceName, serviceIdOf, type ServiceName } from '../../../lib/service/service-id.js'
import { utf8 } from '../../../lib/wire/bytes.js'
import { hostId, networkId, type HostId, type ServiceId } from '../../../lib/wire/ids.js'
import { sodium as primitives } from '../../tools/sodium.js'

export { primitives }
export const network = networkId(primitives.blake2b(utf8('network'), 32))

export function named(text: string): ServiceName {
  const name = parseServiceName(text)
  if ('problem' in name) throw new Error(name.problem)
  return name
}
export function idOf(text: string): ServiceId {
  return serviceIdOf(named(text), network, primitives)
}
export function host(name: string): HostId {
  return hostId(primitives.blake2b(utf8(name), 32))
}
export function registration(name: string, changes: Partial<Registration> = {}): Registration {
  return {
    kind: 'registration',
    service: idOf(name),
    name,
    ports: [{ protocol: 'tcp', port: 80, localPort: 8080 }],
    priority: 100,
    weight: 100,
    state: 'up',
    epoch: 0,
    move: 'drain',
    load: 0,
    ...changes,
  }
}
