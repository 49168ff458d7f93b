import { request } from 'node:http'
import { connect } from 'node:net'

/** How an instance's service is probed: a TCP connection, or an HTTP GET that must answer 2xx or 3xx. UDP services have no probe. */
export type HealthProbe =
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'http'; readonly port: number; readonly path: string }

export interface HealthResult {
  readonly healthy: boolean
  /** Why not, for people; empty when healthy. */
  readonly detail: string
  /** Where the server listens; undefined when it does not. */
  readonly address: string | undefined
}

const TIMEOUT_MS = 2_000

/**
 * Probes the server on this host's candidate addresses, in order, until one answers. The first that accepts is where flows are delivered, so the order
 * is the preference: the service's own address, then loopback.
 */
export async function probeHealth(probe: HealthProbe, addresses: readonly string[]): Promise<HealthResult> {
  let detail = 'nothing listens'
  for (const address of addresses) {
    const problem = probe.kind === 'tcp' ? await probeTcp(address, probe.port) : await probeHttp(address, probe.port, probe.path)
    if (problem === undefined) return { healthy: true, detail: '', address }
    if (problem.listens) return { healthy: false, detail: problem.detail, address }
    detail = problem.detail
  }
  return { healthy: false, detail, address: undefined }
}

interface Problem {
  readonly listens: boolean
  readonly detail: string
}

function probeTcp(host: string, port: number): Promise<Problem | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    const end = (problem: Problem | undefined) => {
      socket.destroy()
      resolve(problem)
    }
    socket.setTimeout(TIMEOUT_MS, () => end({ listens: true, detail: `no answer from port ${port} within ${TIMEOUT_MS} ms` }))
    socket.once('connect', () => end(undefined))
    socket.once('error', (error: NodeJS.ErrnoException) => end({ listens: false, detail: describe(error, port) }))
  })
}

function probeHttp(host: string, port: number, path: string): Promise<Problem | undefined> {
  return new Promise((resolve) => {
    const call = request({ host, port, path, method: 'GET', timeout: TIMEOUT_MS, agent: false, headers: { host: 'localhost' } })
    const end = (problem: Problem | undefined) => {
      call.destroy()
      resolve(problem)
    }
    call.once('response', (response) => {
      const status = response.statusCode ?? 0
      response.resume()
      end(status >= 200 && status < 400 ? undefined : { listens: true, detail: `GET ${path} answered ${status}` })
    })
    call.once('timeout', () => end({ listens: true, detail: `GET ${path} did not answer within ${TIMEOUT_MS} ms` }))
    call.on('error', (error: NodeJS.ErrnoException) => end({ listens: error.code !== 'ECONNREFUSED', detail: describe(error, port) }))
    call.end()
  })
}

function describe(error: NodeJS.ErrnoException, port: number): string {
  return error.code === 'ECONNREFUSED' ? `nothing listens on port ${port}` : `port ${port}: ${error.code ?? error.message}`
}
