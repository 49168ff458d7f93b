// Finding and starting the keeper process (daemon/native/keeper/keeper.cc) of a state directory.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { systemEnvironment } from '../command.js'
import { CaracalError } from '../errors.js'
import type { NativeHandle } from '../native.js'
import { projectRoot } from '../our-files.js'
import { KeeperGone, KeeperLink, KeeperRefused, stateOf } from './keeper-link.js'
import { stateRequest, takeRequest, type KeeperState } from './keeper-wire.js'

const START_MS = 5_000
/** While it runs commands it hears nobody: each of them is ended after 20 s. */
const ANSWER_MS = 60_000
const REHEARSAL_MS = 500
/** The last daemon has just been killed: the keeper is about to see its end. */
const BUSY_MS = 5_000
const BUSY_AGAIN_MS = 2

/** A keeper with what it holds; the handles are the finder's. */
export interface FoundKeeper {
  readonly link: KeeperLink
  readonly state: KeeperState
  readonly held: ReadonlyMap<string, NativeHandle>
}

/** The keeper that a former daemon has left; undefined: there is none. Throws CARACAL_E_KEEPER when there is one and it cannot be had. */
export async function findKeeper(directory: string): Promise<FoundKeeper | undefined> {
  const busyUntil = performance.now() + BUSY_MS
  for (;;) {
    const link = KeeperLink.connect(directory)
    if (link === undefined) return undefined
    const limit = setTimeout(() => link.close(silent()), ANSWER_MS)
    try {
      const taken = await link.ask(takeRequest())
      return { link, state: stateOf(taken), held: taken.held }
    } catch (error) {
      link.close()
      const busy = error instanceof KeeperRefused && error.why === 'busy'
      // Gone: it has given up just now, and the next look finds nobody.
      if (!busy && !(error instanceof KeeperGone)) throw error
      if (performance.now() > busyUntil) throw busy ? inUse() : error
      await new Promise((resolve) => setTimeout(resolve, BUSY_AGAIN_MS))
    } finally {
      clearTimeout(limit)
    }
  }
}

/** Asks the keeper of a running daemon for what it refuses: what a process does for the first time takes several times as long. Whatever is wrong shows when it counts. */
export async function rehearseKeeper(directory: string): Promise<void> {
  let limit: NodeJS.Timeout | undefined
  try {
    const link = KeeperLink.connect(directory)
    limit = setTimeout(() => link?.close(), REHEARSAL_MS)
    await link?.ask(stateRequest())
    link?.close()
  } catch {
    // It is busy.
  } finally {
    clearTimeout(limit)
  }
}

/** Starts a keeper, which outlives this process, and connects to it. Throws CARACAL_E_KEEPER. */
export async function startKeeper(directory: string): Promise<KeeperLink> {
  const program = join(projectRoot(), 'build/Release/caracal-keeper')
  const child = spawn(program, [directory], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: systemEnvironment(),
    cwd: '/',
  })
  try {
    await new Promise<void>((resolve, reject) => {
      let complaint = ''
      const fail = (why: string) => reject(notStarted(program, why))
      const limit = setTimeout(() => fail(`it was not ready within ${START_MS} ms`), START_MS)
      child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()))
      child.stdout.once('data', () => resolve())
      child.once('error', (error) => fail(error.message))
      child.once('close', (code) => fail(complaint.trim() || `it ended with ${code}`))
      child.once('close', () => clearTimeout(limit))
      child.stdout.once('data', () => clearTimeout(limit))
    })
  } finally {
    child.stdout.destroy()
    child.stderr.destroy()
    child.unref()
  }
  const link = KeeperLink.connect(directory)
  if (link === undefined) throw notStarted(program, 'nobody answers')
  return link
}

function notStarted(program: string, why: string): CaracalError {
  const next = 'build it with `sh daemon/native/build.sh`, or do without (`keeper.on: false`)'
  return new CaracalError('CARACAL_E_KEEPER', `${program} does not run (${why})`, next)
}

function inUse(): CaracalError {
  return new CaracalError(
    'CARACAL_E_KEEPER',
    'the keeper of this state directory has another daemon',
    'end that one (caracal down), or take over from it with `caracal up --replace`',
  )
}

function silent(): CaracalError {
  const next = 'end the process caracal-keeper that holds keeper.sock in the state directory, then try again'
  return new CaracalError('CARACAL_E_KEEPER', `the keeper has not answered for ${ANSWER_MS / 1000} s`, next)
}
