import { request, type ClientRequest } from 'node:http'
import { connect } from 'node:net'
import { messageOf } from './errors.js'

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

/** For one address, whatever the server does meanwhile. */
const LIMIT_MS = 2_000

/**
 * Probes the server on this host's candidate addresses, in order, until one answers. Never rejects.
 * @param limitMs how long each of them has to answer
 */
export async function probeHealth(
  probe: HealthProbe,
  addresses: readonly string[],
  limitMs = LIMIT_MS,
): Promise<HealthResult> {
  let detail = 'nothing listens'
  for (const address of addresses) {
    const { kind, port } = probe
    const problem =
      kind === 'tcp' ? await probeTcp(address, port, limitMs) : await probeHttp(address, port, probe.path, limitMs)
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

function probeTcp(host: string, port: number, limitMs: number): Promise<Problem | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    const end = (problem: Problem | undefined) => {
      clearTimeout(limit)
      socket.destroy()
      resolve(problem)
    }
    const limit = setTimeout(
      () => end({ listens: true, detail: `no answer from port ${port} within ${limitMs} ms` }),
      limitMs,
    )
    socket.once('connect', () => end(undefined))
    socket.on('error', (error: NodeJS.ErrnoException) => end({ listens: false, detail: describe(error, port) }))
  })
}

function probeHttp(host: string, port: number, path: string, limitMs: number): Promise<Problem | undefined> {
  return new Promise((resolve) => {
    let call: ClientRequest
    try {
      call = request({ host, port, path, method: 'GET', agent: false, headers: { host: 'localhost' } })
    } catch (error) {
      // A path with characters that no request has.
      resolve({ listens: true, detail: `GET ${path}: ${messageOf(error)}` })
      return
    }
    const end = (problem: Problem | undefined) => {
      clearTimeout(limit)
      call.destroy()
      resolve(problem)
    }
    // Not the socket's own time-out, which a server that sends a byte now and then puts off.
    const limit = setTimeout(
      () => end({ listens: true, detail: `GET ${path} did not answer within ${limitMs} ms` }),
      limitMs,
    )
    call.once('response', (response) => {
      const status = response.statusCode ?? 0
      response.resume()
      end(status >= 200 && status < 400 ? undefined : { listens: true, detail: `GET ${path} answered ${status}` })
    })
    call.on('error', (error: NodeJS.ErrnoException) =>
      end({ listens: error.code !== 'ECONNREFUSED', detail: describe(error, port) }),
    )
    call.end()
  })
}

function describe(error: NodeJS.ErrnoException, port: number): string {
  return error.code === 'ECONNREFUSED'
    ? `nothing listens on port ${port}`
    : `port ${port}: ${error.code ?? error.message}`
}
