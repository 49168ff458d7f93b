import { execFile } from 'node:child_process'
import { open, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** How this host's programs are told of our name server. */
export type DnsMode =
  | { readonly kind: 'auto' }
  | { readonly kind: 'resolved' }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'none' }

/** `auto`, `resolved`, `none` or `file:PATH`; undefined: none of them. */
export function parseDnsMode(text: string): DnsMode | undefined {
  if (text === 'auto' || text === 'resolved' || text === 'none') return { kind: text }
  const path = /^file:(\/.+)$/.exec(text)?.[1]
  return path === undefined ? undefined : { kind: 'file', path }
}

export interface ResolverSettings {
  /** What was done, for people. */
  readonly description: string
  /** Whether programs of this host find our zone by the system resolver. */
  readonly active: boolean
  /** Puts everything back. */
  restore(): Promise<void>
}

export interface ResolverTarget {
  readonly tun: string
  readonly zone: string
  /** Our name server's addresses, the first preferred. */
  readonly servers: readonly string[]
}

const MARK = '# added by caracal'

/**
 * Makes this host's programs ask us for our zone. `resolved` sets per-link servers and a routing domain, which vanish with the link. `file` puts our address first in a
 * resolv.conf and restores it; the other name servers stay, and are asked when we refuse a foreign name.
 * `auto` takes resolved when it runs, and otherwise changes nothing.
 */
export async function applyResolverSettings(mode: DnsMode, target: ResolverTarget): Promise<ResolverSettings> {
  if (mode.kind === 'file') return applyFile(mode.path, target)
  if (mode.kind === 'none') return inactive('programs are not told of the name server (dns: none)')
  if (mode.kind === 'auto' && !(await resolvedRuns())) {
    return inactive(
      `systemd-resolved does not run: send names under ${target.zone} to ${target.servers.join(' or ')} yourself, or use --dns file:/etc/resolv.conf`,
    )
  }
  return applyResolved(target)
}

function inactive(description: string): ResolverSettings {
  return { description, active: false, restore: () => Promise.resolve() }
}

async function resolvedRuns(): Promise<boolean> {
  try {
    await run('resolvectl', ['status', '--no-pager'], { timeout: 5_000 })
    return true
  } catch {
    return false
  }
}

async function applyResolved({ tun, zone, servers }: ResolverTarget): Promise<ResolverSettings> {
  const set = (...args: string[]) => run('resolvectl', args, { timeout: 5_000 })
  try {
    await set('dns', tun, ...servers)
    await set('domain', tun, `~${zone}`)
    await set('default-route', tun, 'no')
  } catch (error) {
    const why = error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error)
    throw new Error(`systemd-resolved did not take the settings for ${tun} (${why}): is it running? Otherwise use --dns file:PATH or --dns none`)
  }
  const restore = async () => {
    await set('revert', tun).catch(() => undefined)
  }
  return { description: `systemd-resolved asks ${servers[0]} for ~${zone} on ${tun}`, active: true, restore }
}

async function applyFile(path: string, { servers }: ResolverTarget): Promise<ResolverSettings> {
  let before: string
  try {
    before = await readFile(path, 'utf8')
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw new Error(`cannot read ${path}: ${message(error)}`)
    before = ''
  }
  // A daemon that was killed left its lines: they are not part of what is restored.
  const original = withoutOurs(before)
  const lines = servers.map((server) => `nameserver ${server} ${MARK}`)
  await replace(path, `${lines.join('\n')}\n${original}`)
  return {
    description: `${path} names ${servers[0]} first`,
    active: true,
    // Others may have edited the file meanwhile: only our lines go.
    restore: async () => {
      const now = await readFile(path, 'utf8').catch(() => undefined)
      if (now === undefined) return
      const rest = withoutOurs(now)
      if (rest === '' && original === '' && before === '') await rm(path, { force: true })
      else await replace(path, rest)
    },
  }
}

function withoutOurs(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.endsWith(MARK))
    .join('\n')
}

/** Atomically by rename where that works; in place where the file is a mount point, as in containers and `ip netns exec`. */
async function replace(path: string, text: string): Promise<void> {
  const mode = (await stat(path).catch(() => undefined))?.mode ?? 0o644
  const temporary = `${path}.caracal-${process.pid}`
  try {
    await writeFile(temporary, text, { mode })
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    if (!isErrno(error, 'EBUSY', 'EXDEV', 'EACCES', 'EROFS', 'EPERM')) throw new Error(`cannot write ${path}: ${message(error)}`)
    try {
      const file = await open(path, 'r+')
      try {
        await file.truncate(0)
        await file.write(text, 0)
        await file.sync()
      } finally {
        await file.close()
      }
    } catch (second) {
      throw new Error(`cannot write ${path}: ${message(second)}; use --dns none or another file`)
    }
  }
}

function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code)
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
