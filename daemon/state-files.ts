import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { type FileHandle, open, readdir, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CaracalError, messageOf, systemCode } from './errors.js'
import { StateLock } from './state-lock.js'

/** In front of every file's content, followed by the content's SHA-256. */
const MAGIC = Buffer.from('caracal-state 1\n', 'latin1')
const DIGEST_LENGTH = 32
const HEADER = MAGIC.length + DIGEST_LENGTH
const FILE_MAX = 64 * 2 ** 20
const FILE_NAME = /^[a-z0-9][a-z0-9-]*$/
const OTHERS = 0o077
const OTHERS_WRITE = 0o022

interface WaitingWrite {
  bytes: Uint8Array
  readonly done: Promise<void>
}

interface RunningWrite {
  readonly bytes: Uint8Array
  /** Newer content has been written at once meanwhile: this one must not take its place. */
  overtaken: boolean
}

/**
 * What a daemon keeps on disk: one directory (0700) of small files (0600), each replaced as a whole, so that a reader after any crash finds the old or
 * the new content. One process at a time has the directory. All errors are CaracalErrors that name the file and never its content.
 */
export class StateDirectory {
  /** undefined: it may be another process's, and is only looked at. */
  #lock: StateLock | undefined
  /** Writes that have not begun; a later one for the same file takes its place. */
  readonly #waiting = new Map<string, WaitingWrite>()
  /** The last write of each file; never rejects. */
  readonly #running = new Map<string, Promise<void>>()
  readonly #current = new Map<string, RunningWrite>()
  /** What was read before {@link take}: digests by name, undefined where there was no file. */
  readonly #looked = new Map<string, string | undefined>()
  /** What is to be written by {@link release}; undefined: writes go to disk. */
  #held: Map<string, Uint8Array> | undefined
  #closed = true

  private constructor(
    readonly path: string,
    /** The directory was not there before. */
    private readonly made: boolean,
  ) {}

  /**
   * Makes the directory where it is missing and takes it for this process.
   * CARACAL_E_STATE: not usable, or others may write to it. CARACAL_E_STATE_IN_USE: a daemon has it.
   */
  static async open(path: string): Promise<StateDirectory> {
    try {
      const made = makeDirectory(path)
      const state = new StateDirectory(realpathSync(path), made)
      await state.take()
      return state
    } catch (error) {
      throw error instanceof CaracalError ? error : unusable(path, error)
    }
  }

  /** A directory that another process may have: what it reads may be old before long, and nothing can be written before it is this process's by {@link take}. Throws what the file system says. */
  static peek(path: string): StateDirectory {
    return new StateDirectory(realpathSync(path), false)
  }

  /** Takes the directory for this process, once. Errors as {@link open}. */
  async take(): Promise<void> {
    const { path } = this
    try {
      const { mode } = statSync(path)
      if ((mode & OTHERS_WRITE) !== 0)
        throw new CaracalError(
          'CARACAL_E_STATE',
          `others may write to the state directory ${path}`,
          `chmod 700 ${path}`,
        )
      const lock = await StateLock.acquire(path)
      try {
        removeTemporary(path)
      } catch (error) {
        await lock.release()
        throw error
      }
      this.#lock = lock
      this.#closed = false
    } catch (error) {
      throw error instanceof CaracalError ? error : unusable(path, error)
    }
  }

  /** Files that were read before {@link take} and are not any more as they were then. */
  get changed(): string[] {
    return [...this.#looked].flatMap(([name, digest]) => (digestOf(this.#file(name)) === digest ? [] : [name]))
  }

  /**
   * Content of a file as `decode` sees it; undefined: there is no such file. CARACAL_E_STATE_DAMAGED: it is not what was written, or `decode` gave
   * undefined. CARACAL_E_STATE: others may read it, or it cannot be read.
   */
  async read<T>(name: string, decode: (content: Uint8Array) => T | undefined): Promise<T | undefined> {
    const path = this.#file(name)
    let bytes: Buffer
    try {
      // They are small, and read at the start, when each turn of the event loop would be waited for.
      const file = openSync(path, constants.O_RDONLY)
      try {
        const { mode, size } = fstatSync(file)
        if ((mode & OTHERS) !== 0)
          throw new CaracalError('CARACAL_E_STATE', `others may read ${path}`, `chmod 600 ${path}`)
        if (size > FILE_MAX) throw damaged(path)
        bytes = readFileSync(file)
      } finally {
        closeSync(file)
      }
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error instanceof CaracalError ? error : unusable(path, error)
      if (this.#lock === undefined) this.#looked.set(name, undefined)
      return undefined
    }
    if (this.#lock === undefined) this.#looked.set(name, digestIn(bytes))
    const content = unwrap(bytes)
    const value = content && decode(content)
    if (value === undefined) throw damaged(path)
    return value
  }

  /**
   * Replaces a file; resolves when the content, or that of a later write to the same file, is on disk. `content` is copied.
   * CARACAL_E_STATE: it could not be written, the old content is still there.
   */
  write(name: string, content: Uint8Array): Promise<void> {
    const path = this.#file(name)
    if (this.#closed) return Promise.reject(closed(this.path))
    if (this.#held !== undefined) {
      this.#held.set(name, new Uint8Array(content))
      return Promise.resolve()
    }
    const bytes = wrap(content)
    const waiting = this.#waiting.get(name)
    if (waiting !== undefined) {
      waiting.bytes = bytes
      return waiting.done
    }
    const before = this.#running.get(name) ?? Promise.resolve()
    const write: WaitingWrite = {
      bytes,
      done: before.then(() => {
        this.#waiting.delete(name)
        const running = { bytes: write.bytes, overtaken: false }
        this.#current.set(name, running)
        const done = this.#replace(path, running)
        this.#running.set(
          name,
          done.catch(() => undefined),
        )
        return done
      }),
    }
    this.#waiting.set(name, write)
    return write.done
  }

  /** From now on writes are kept in memory: they resolve at once, and reads do not see them. Ended by {@link release}; a close before forgets them. */
  hold(): void {
    this.#held ??= new Map()
  }

  /** Writes what was held back; resolves when all of it is on disk. Errors as {@link write}. */
  async release(): Promise<void> {
    const held = this.#held
    this.#held = undefined
    for (const [name, content] of held ?? []) await this.write(name, content)
  }

  /** As {@link write}, and on disk when it returns, after all writes before it. For what must not wait, and is rare: it blocks. */
  writeNow(name: string, content: Uint8Array): void {
    const path = this.#file(name)
    if (this.#closed) throw closed(this.path)
    if (this.#held !== undefined) {
      this.#held.set(name, new Uint8Array(content))
      return
    }
    const bytes = wrap(content)
    const waiting = this.#waiting.get(name)
    if (waiting !== undefined) waiting.bytes = bytes
    const running = this.#current.get(name)
    if (running !== undefined) running.overtaken = true
    const temporary = `${path}.now.tmp`
    try {
      const file = openSync(temporary, 'w', 0o600)
      try {
        writeFileSync(file, bytes)
        fsyncSync(file)
      } finally {
        closeSync(file)
      }
      renameSync(temporary, path)
      const directory = openSync(this.path, constants.O_RDONLY | constants.O_DIRECTORY)
      try {
        fsyncSync(directory)
      } finally {
        closeSync(directory)
      }
    } catch (error) {
      throw unusable(path, error)
    }
  }

  /** Removes a file, if it is there. */
  async remove(name: string): Promise<void> {
    const path = this.#file(name)
    await this.#settle()
    try {
      await rm(path, { force: true })
      await syncDirectory(this.path)
    } catch (error) {
      throw unusable(path, error)
    }
  }

  /** Waits for writes under way and lets another process have the directory. One that was made by {@link open} and holds nothing goes again. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#settle()
    const unused =
      this.made && (await readdir(this.path).catch(() => [])).every((name) => StateLock.files.includes(name))
    if (unused) await this.#lock?.forget()
    await this.#lock?.release()
    if (unused) await rmdir(this.path).catch(() => undefined)
  }

  async #settle(): Promise<void> {
    await Promise.allSettled([...this.#waiting.values()].map((write) => write.done))
    await Promise.all(this.#running.values())
  }

  async #replace(path: string, write: RunningWrite): Promise<void> {
    const temporary = `${path}.tmp`
    try {
      const handle = await open(temporary, 'w', 0o600)
      try {
        await handle.writeFile(write.bytes)
        await handle.sync()
      } finally {
        await handle.close()
      }
      if (write.overtaken) return await rm(temporary, { force: true })
      // At once, so that nothing comes between the look and the step.
      renameSync(temporary, path)
      await syncDirectory(this.path)
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined)
      throw unusable(path, error)
    }
  }

  #file(name: string): string {
    if (!FILE_NAME.test(name)) throw new RangeError(`not a name of a state file: ${name}`)
    return join(this.path, name)
  }
}

function wrap(content: Uint8Array): Uint8Array {
  return Buffer.concat([MAGIC, digest(content), content])
}

/** undefined: not a whole file of ours. */
function unwrap(bytes: Buffer): Uint8Array | undefined {
  if (bytes.length < HEADER || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  const content = bytes.subarray(HEADER)
  return digest(content).equals(bytes.subarray(MAGIC.length, HEADER)) ? new Uint8Array(content) : undefined
}

/** Of a file, as its own header has it. */
function digestIn(bytes: Buffer): string {
  return bytes.toString('hex', MAGIC.length, HEADER)
}

/** undefined: it cannot be read. */
function digestOf(path: string): string | undefined {
  try {
    return digestIn(readFileSync(path))
  } catch {
    return undefined
  }
}

function digest(content: Uint8Array): Buffer {
  return createHash('sha256').update(content).digest()
}

/** With its parents; whether it was missing. (Node's own recursive mkdir never returns where a parent says ENOENT to all, as /proc does.) */
function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    if (systemCode(error) !== 'ENOENT' || dirname(path) === path) throw error
  }
  makeDirectory(dirname(path))
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
}

/** A rename is on disk only when its directory is. */
async function syncDirectory(path: string): Promise<void> {
  const handle: FileHandle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** What a crash left half written. */
function removeTemporary(path: string): void {
  for (const name of readdirSync(path)) if (name.endsWith('.tmp')) rmSync(join(path, name), { force: true })
}

function closed(path: string): CaracalError {
  return new CaracalError('CARACAL_E_STATE', `state directory ${path} is closed`)
}

function damaged(path: string): CaracalError {
  return new CaracalError(
    'CARACAL_E_STATE_DAMAGED',
    `${path} is damaged`,
    'put it back from a backup, or move it away to do without what was in it',
  )
}

/** What to do about an error of the file system. */
function unusable(path: string, error: unknown): CaracalError {
  const options = { cause: error }
  switch (systemCode(error)) {
    case 'EACCES':
    case 'EPERM':
      return new CaracalError(
        'CARACAL_E_STATE',
        `no right to use ${path}`,
        'run as the user who owns it, or name another directory with --state DIR',
        options,
      )
    case 'EROFS':
      return new CaracalError(
        'CARACAL_E_STATE',
        `${path} is on a read-only file system`,
        'name another directory with --state DIR',
        options,
      )
    case 'ENOTDIR':
      return new CaracalError(
        'CARACAL_E_STATE',
        `${path} is not a directory`,
        'name a directory with --state DIR',
        options,
      )
    case 'ENOSPC':
    case 'EDQUOT':
      return new CaracalError('CARACAL_E_STATE', `no space left for ${path}`, 'make room, then try again', options)
    default:
      return new CaracalError(
        'CARACAL_E_STATE',
        `cannot use ${path} (${messageOf(error)})`,
        'name another directory with --state DIR',
        options,
      )
  }
}
