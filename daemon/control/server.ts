// The control socket: a unix socket that root and one group may use. Whoever can connect may do everything the daemon can.

import { chmodSync, chownSync, existsSync, lstatSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { CaracalError, messageOf, systemCode } from '../errors.js'
import type { Log } from '../log.js'
import { Connection } from './connection.js'
import { DEFAULT_GROUP, groupId } from './group.js'
import type { Requests } from './requests.js'

/** Longest path a unix socket address holds (struct sockaddr_un, less the final zero). */
const PATH_MAX = 107

export interface ControlServerOptions {
  readonly path: string
  /** Group that may use it; must exist. Left out: `caracal` where there is such a group, else only the daemon's own user. */
  readonly group?: string | undefined
  /** More are told so and closed. 64 when left out. */
  readonly connectionsMax?: number
  /** A connection without a running request is closed after this. 5 min when left out. */
  readonly idleMs?: number
  /** A line that has begun must be complete after this. 10 s when left out. */
  readonly lineMs?: number
}

export interface ControlServerComponents {
  readonly requests: Requests
  readonly log: Log
}

/** A listening control socket. */
export class ControlServer {
  private readonly connections = new Set<Connection>()
  private constructor(
    private readonly server: Server,
    private readonly options: ControlServerOptions,
    private readonly components: ControlServerComponents,
  ) {}

  /**
   * Opens the socket. A file left behind by a daemon that has died is replaced.
   * @throws CaracalError CARACAL_E_SOCKET_IN_USE when a daemon answers there, CARACAL_E_CONFIG when there is no such group,
   *   CARACAL_E_SOCKET when the path cannot be used
   */
  static async start(options: ControlServerOptions, components: ControlServerComponents): Promise<ControlServer> {
    const { path } = options
    if (Buffer.byteLength(path) > PATH_MAX) {
      throw new CaracalError(
        'CARACAL_E_SOCKET',
        `the socket path ${path} is longer than ${PATH_MAX} bytes`,
        'give a shorter one',
      )
    }
    const gid = resolveGroup(options.group)
    await removeStale(path)
    const server = createServer({ allowHalfOpen: true })
    const control = new ControlServer(server, options, components)
    server.on('connection', (socket) => control.accept(socket))
    await listen(server, path)
    server.on('error', (error) => components.log.error({ error }, 'the control socket failed'))
    try {
      setAccess(path, gid, options.group !== undefined)
    } catch (error) {
      await control.close()
      throw error
    }
    return control
  }

  /**
   * Stops listening, which removes the file, ends streams, and resolves when every connection has sent its last answer or, after
   * `graceMs`, has been cut.
   */
  async close(graceMs = 1000): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()))
    for (const connection of this.connections) connection.close()
    const timer = setTimeout(() => {
      for (const connection of this.connections) connection.destroy()
    }, graceMs)
    await closed
    clearTimeout(timer)
  }

  private accept(socket: Socket): void {
    const { connectionsMax = 64, idleMs = 300_000, lineMs = 10_000 } = this.options
    if (this.connections.size >= connectionsMax) {
      const error = {
        code: 'CARACAL_E_BUSY',
        what: 'too many connections to the control socket',
        next: 'try again later',
      }
      socket.on('error', () => undefined)
      socket.end(`${JSON.stringify({ id: null, error })}\n`, () => socket.destroy())
      return
    }
    const { requests, log } = this.components
    const connection = new Connection(socket, requests, log, { idleMs, lineMs })
    this.connections.add(connection)
    socket.on('close', () => this.connections.delete(connection))
  }
}

function resolveGroup(group: string | undefined): number | undefined {
  const gid = groupId(group ?? DEFAULT_GROUP)
  if (gid === undefined && group !== undefined) {
    const next = `create it with \`groupadd --system ${group}\` or give another with \`group:\``
    throw new CaracalError('CARACAL_E_CONFIG', `there is no group ${group}`, next)
  }
  return gid
}

async function removeStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return
  if (!stats.isSocket()) {
    throw new CaracalError(
      'CARACAL_E_SOCKET',
      `${path} exists and is no socket`,
      'remove it or give another with --socket',
    )
  }
  if (await answers(path)) {
    const next = 'stop it with `caracal down`, or give this one its own --socket and --state'
    throw new CaracalError('CARACAL_E_SOCKET_IN_USE', `a daemon already answers at ${path}`, next)
  }
  try {
    unlinkSync(path)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw unusable(path, error)
  }
}

/** Whether somebody listens there. @throws CaracalError when that cannot be found out */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', (error) => {
      const code = systemCode(error)
      if (code === 'ECONNREFUSED' || code === 'ENOENT') resolve(false)
      // its queue is full: somebody is there
      else if (code === 'EAGAIN') resolve(true)
      else reject(unusable(path, error))
    })
  })
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => reject(unusable(path, error))
    server.once('error', failed)
    // the file is made inside listen(): nobody gets in before its group is set
    const mask = process.umask(0o177)
    try {
      server.listen(path, () => {
        server.off('error', failed)
        resolve()
      })
    } finally {
      process.umask(mask)
    }
  })
}

function setAccess(path: string, gid: number | undefined, asked: boolean): void {
  if (gid === undefined) return
  try {
    chownSync(path, -1, gid)
    chmodSync(path, 0o660)
  } catch (error) {
    // an ordinary user outside the group, or a user namespace that does not map it: stays the user's own
    if (!asked) return
    throw new CaracalError(
      'CARACAL_E_CONFIG',
      `${path} cannot be given to the group (${messageOf(error)})`,
      'leave `group:` out',
    )
  }
}

function unusable(path: string, error: unknown): CaracalError {
  const code = systemCode(error)
  // libuv reports a missing directory at bind() as EACCES
  const why =
    code === 'ENOENT' || (code === 'EACCES' && !existsSync(dirname(path)))
      ? 'its directory does not exist'
      : code === 'EACCES' || code === 'EPERM' || code === 'EROFS'
        ? 'no permission'
        : messageOf(error)
  const next = 'run as root, or give another with --socket'
  return new CaracalError('CARACAL_E_SOCKET', `the control socket ${path} cannot be opened (${why})`, next, {
    cause: error,
  })
}
