import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { labEnvironment } from '../../cli/lab/holder.js'

const INSIDE = 'CARACAL_BENCH_ENCLOSED'
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const INTERRUPTED = 130
/** What is made there is in memory, and gone with the mount namespace. */
const MOUNTS = 'mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs "$TMPDIR"; exec "$@"'

/**
 * Begins the program anew in process and mount namespaces of its own, and resolves there: whatever ends it, no process, network namespace, device or file of it stays (of one that is killed, an empty folder). Here
 * it does not resolve, but ends with that one's status.
 */
export async function enclosed(): Promise<void> {
  if (process.env[INSIDE] !== undefined) {
    // The first process of its namespace: a signal that it does not handle is ignored, and all others end with it.
    for (const signal of signals) process.once(signal, () => process.exit(INTERRUPTED))
    return
  }
  const folder = mkdtempSync(join(tmpdir(), 'caracal-bench-'))
  const words = [
    ...['setpriv', '--pdeathsig', 'SIGKILL', 'unshare'],
    ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
    ...['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-euc', MOUNTS, 'sh'],
    ...[process.execPath, ...process.execArgv, ...process.argv.slice(1)],
  ]
  const child = spawn(words[0]!, words.slice(1), {
    env: labEnvironment({ TMPDIR: folder, [INSIDE]: 'yes' }),
    stdio: 'inherit',
  })
  let interrupted = false
  for (const signal of signals) {
    process.on(signal, () => {
      interrupted = true
      child.kill('SIGKILL')
    })
  }
  const status = await new Promise<number>((resolve) => {
    child.once('error', (error) => {
      console.error(`cannot make namespaces (${error.message}): this needs util-linux, and root or user namespaces`)
      resolve(1)
    })
    child.once('exit', (code) => resolve(code ?? 1))
  })
  rmSync(folder, { recursive: true, force: true })
  process.exit(interrupted ? INTERRUPTED : status)
}
