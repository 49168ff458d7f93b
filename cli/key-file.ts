// Files of keys behind self-certifying names. They belong to people, not to a daemon: made and read here, on whichever machine they are kept.

import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { link, open, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CaracalError, messageOf, systemCode } from '../daemon/errors.js'
import { KEY_TEXT_MAX, OwnerKey } from '../lib/crypto/owner.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { keyName } from '../lib/service/service-id.js'

const OTHERS = 0o077

/** Writes a key to a new file (0600), all of it or nothing. @throws CaracalError CARACAL_E_KEY: there is such a file, or none can be made */
export async function writeKeyFile(path: string, key: OwnerKey, primitives: Primitives): Promise<void> {
  const text = `# Secret key of the service ${keyName(key.publicKey).text}: who has it says who may register that name.\n${key.text(primitives)}\n`
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    // Unlike a rename, this never takes the place of what is there.
    await link(temporary, path)
  } catch (error) {
    throw unusable(path, error)
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined)
  }
  await syncDirectory(dirname(path))
}

/** @throws CaracalError CARACAL_E_KEY: not there, not readable, readable by others, or no key */
export async function readKeyFile(path: string, primitives: Primitives): Promise<OwnerKey> {
  let text: string
  try {
    const handle = await open(path, constants.O_RDONLY)
    try {
      const { mode, size } = await handle.stat()
      if ((mode & OTHERS) !== 0) throw failure(`others may read ${path}`, `chmod 600 ${path}`)
      text = size > KEY_TEXT_MAX ? '' : await handle.readFile('utf8')
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw error instanceof CaracalError ? error : unusable(path, error)
  }
  const key = OwnerKey.parse(primitives, text)
  if (key === undefined) throw failure(`${path} holds no key, or a damaged one`, 'name a file of `caracal key new`')
  return key
}

/** The name is on disk when its directory is; where that cannot be asked for, the file is there all the same. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY).catch(() => undefined)
  await handle?.sync().catch(() => undefined)
  await handle?.close()
}

function failure(what: string, next: string): CaracalError {
  return new CaracalError('CARACAL_E_KEY', what, next)
}

function unusable(path: string, error: unknown): CaracalError {
  switch (systemCode(error)) {
    case 'EEXIST':
      return failure(`${path} is there already, and a key is never written over`, 'name another file')
    case 'ENOENT':
      return failure(
        `there is no ${path}`,
        'name a file that is there, or a folder that is; `caracal key new` makes a key',
      )
    case 'EACCES':
    case 'EPERM':
      return failure(`no right to use ${path}`, 'run as the user who owns it, or name another file')
    default:
      return failure(`cannot use ${path} (${messageOf(error)})`, 'name another file')
  }
}
