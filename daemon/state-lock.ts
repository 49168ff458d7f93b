import { createHash, randomBytes } from 'node:crypto'
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { CaracalError, systemCode } from './errors.js'

/** Random content that gives the directory's lock its name; stays. */
const NAME_FILE = 'lock'
/** Who has the directory now. */
const HOLDER_FILE = 'lock-holder'

/**
 * Exclusive use of a state directory for the life of a process. The lock is an abstract Unix socket: the kernel grants it to one process and takes it back
 * when that process ends, however it ends, so nothing is ever cleaned by hand. (Node has no flock, and a lock file alone outlives a kill -9 or is taken
 * over by two at once.) The socket's name comes from a secret in the directory, so that no other user can occupy it. Abstract sockets are per
 * network namespace; the holder file (process ID and start time) shows a daemon that runs in another one.
 */
export class StateLock {
  /** Files of the lock in the directory. */
  static readonly files: readonly string[] = [NAME_FILE, HOLDER_FILE]

  private constructor(
    private readonly directory: string,
    private readonly server: Server,
  ) {}

  /** Throws CARACAL_E_STATE_IN_USE when another process has it, else what the file system says. */
  static async acquire(directory: string): Promise<StateLock> {
    const name = createHash('sha256').update(lockName(directory)).digest('hex')
    const server = await listen(`\0caracal-state-${name}`)
    const holder = livingHolder(directory)
    if (server === undefined || (holder !== undefined && holder !== process.pid)) {
      server?.close()
      const who = holder === undefined ? 'another process' : `process ${holder}`
      throw new CaracalError(
        'CARACAL_E_STATE_IN_USE',
        `state directory ${directory} is in use by ${who}`,
        'a daemon runs already; `caracal down` ends it, `caracal up --state DIR` starts another host',
      )
    }
    try {
      writeFileSync(join(directory, HOLDER_FILE), `${process.pid} ${processStart(process.pid)}\n`, { mode: 0o600 })
    } catch (error) {
      server.close()
      throw error
    }
    return new StateLock(directory, server)
  }

  /** Does what {@link acquire} does, with a name that nobody else wants: what a process does for the first time takes several times as long. */
  static async rehearse(directory: string): Promise<void> {
    const server = await listen(`\0caracal-rehearsal-${randomBytes(16).toString('hex')}`)
    livingHolder(directory)
    await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())))
  }

  /** Removes the lock's name, for a directory that is to go. While the lock is still held, so that nobody can have it under the old name. */
  async forget(): Promise<void> {
    await rm(join(this.directory, NAME_FILE), { force: true })
  }

  async release(): Promise<void> {
    rmSync(join(this.directory, HOLDER_FILE), { force: true })
    await new Promise<void>((resolve) => this.server.close(() => resolve()))
  }
}

/** The directory's random name, made by the first who comes; a hard link lets only one of two at once do so. */
function lockName(directory: string): string {
  const path = join(directory, NAME_FILE)
  const temporary = join(directory, `.lock.${process.pid}.${randomBytes(4).toString('hex')}.tmp`)
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
  }
  writeFileSync(temporary, randomBytes(16).toString('hex'), { mode: 0o600, flag: 'wx' })
  try {
    linkSync(temporary, path)
  } catch (error) {
    // EEXIST: another one was first. ENOENT: it already has the lock and swept our file away.
    if (systemCode(error) !== 'EEXIST' && systemCode(error) !== 'ENOENT') throw error
  } finally {
    rmSync(temporary, { force: true })
  }
  return readFileSync(path, 'utf8')
}

/** undefined: another process has the name. */
function listen(path: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', (error) => {
      if (systemCode(error) === 'EADDRINUSE') resolve(undefined)
      else reject(error)
    })
    server.listen({ path }, () => {
      server.unref()
      resolve(server)
    })
  })
}

/** Process ID in the holder file, when that very process still runs. */
function livingHolder(directory: string): number | undefined {
  const text = textOf(join(directory, HOLDER_FILE)) ?? ''
  const match = /^([1-9]\d{0,9}) (\S+)\n$/.exec(text)
  if (match === null) return undefined
  const pid = Number(match[1])
  return match[2] !== 'unknown' && processStart(pid) === match[2] ? pid : undefined
}

/** Boot and start time of a process, which tell it from a later one with the same ID; `unknown` when there is none. */
function processStart(pid: number): string {
  const stat = textOf(`/proc/${pid}/stat`)
  const boot = textOf('/proc/sys/kernel/random/boot_id')
  // The command in parentheses may hold anything; the start time is field 22, the twentieth after it.
  const start = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  return start === undefined || boot === undefined ? 'unknown' : `${boot.trim()}/${start}`
}

/** undefined: it cannot be read. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
