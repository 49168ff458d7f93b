import type { ControlHandlers, Operation, RequestOf, ResponseOf } from '../control/protocol.js'

/** The handlers of all operations with one answer, by one function that does any of them. */
export function controlMethods(
  run: <O extends Operation>(operation: O, request: RequestOf<O>) => Promise<ResponseOf<O>>,
): Omit<ControlHandlers, 'dump'> {
  return {
    status: (request) => run('status', request),
    invite: (request) => run('invite', request),
    expose: (request) => run('expose', request),
    unexpose: (request) => run('unexpose', request),
    services: (request) => run('services', request),
    resolve: (request) => run('resolve', request),
    hosts: (request) => run('hosts', request),
    flows: (request) => run('flows', request),
    paths: (request) => run('paths', request),
    ping: (request) => run('ping', request),
    doctor: (request) => run('doctor', request),
    revoke: (request) => run('revoke', request),
    reload: (request) => run('reload', request),
    down: (request) => run('down', request),
  }
}
