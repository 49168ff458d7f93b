import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { CaracalError } from '../../daemon/errors.js'

/** A process that does nothing but keep a host's namespaces alive; others enter them through its process ID. */
export interface Holder {
  readonly pid: number
  /** Kernel start time, so that a reused process ID is not taken for it. */
  readonly startTime: string
}

const SEARCH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Environment for programs in a lab: the system's folders are searched too. */
export function labEnvironment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ...process.env, ...extra, PATH: `${process.env.PATH ?? ''}:${SEARCH}` }
  delete environment.NODE_OPTIONS
  return environment
}

const rootless = (): boolean => process.getuid?.() !== 0

/** Words that run a command inside the holder's namespaces. */
export function enter(holder: Holder): string[] {
  const user = rootless() ? ['--user', '--preserve-credentials'] : []
  // Entering a mount namespace leads to its root folder: back to where the caller is.
  return ['nsenter', '--target', String(holder.pid), ...user, '--mount', '--net', `--wd=${process.cwd()}`]
}

/** Whether the holder's process is still the one that was started. */
export function holds(holder: Holder): boolean {
  return startTime(holder.pid) === holder.startTime
}

/** Starts a holder with a network and a mount namespace of its own; inside `parent`'s user namespace when there is one. */
export async function startHolder(parent: Holder | undefined): Promise<Holder> {
  const fresh = parent === undefined && rootless() ? ['--user', '--map-root-user'] : []
  const command = [
    ...(parent === undefined ? [] : enter(parent)),
    ...['unshare', ...fresh, '--net', '--mount', '--propagation', 'private'],
    ...['sh', '-c', 'echo ready && exec sleep infinity'],
  ]
  const child = spawn(command[0]!, command.slice(1), {
    env: labEnvironment(),
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  await ready(child)
  child.stdout?.destroy()
  child.stderr?.destroy()
  child.unref()
  const pid = child.pid!
  return { pid, startTime: startTime(pid) ?? '' }
}

export function stopHolder(holder: Holder): void {
  if (!holds(holder)) return
  try {
    process.kill(holder.pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

/** Runs a shell script inside; throws with what it printed when it fails. */
export function runInside(holder: Holder, script: string): string {
  const words = [...enter(holder), 'sh', '-euc', script]
  const result = spawnSync(words[0]!, words.slice(1), { env: labEnvironment(), encoding: 'utf8' })
  if (result.status === 0) return result.stdout
  const why = (result.stderr || result.error?.message || '').trim()
  throw new CaracalError(
    'CARACAL_E_LAB',
    `the lab could not be set up (${why})`,
    'run `caracal doctor`, or `caracal lab down` and try again',
  )
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let errors = ''
    child.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString()))
    child.stdout?.once('data', () => resolve())
    child.once('error', (error) => reject(refusal(error.message)))
    child.once('exit', () => reject(refusal(errors.trim())))
  })
}

function refusal(why: string): CaracalError {
  const remedy = rootless()
    ? 'run it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0)'
    : 'this machine (or container) does not allow network namespaces: run it where CAP_SYS_ADMIN is given'
  return new CaracalError('CARACAL_E_LAB', `cannot make namespaces (${why})`, remedy)
}

/** Field 22 of /proc/PID/stat; undefined: no such process, or it is only waiting to be reaped. */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}
