import { open, readFile, readlink, realpath, rename, rm, stat, unlink } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { CommandError, runWithin } from '../command.js'
import { messageOf } from '../errors.js'
import { builtFile } from '../our-files.js'

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
  /** A command that puts everything back when this process cannot; undefined: there is nothing to put back. */
  readonly withdrawal: readonly string[] | undefined
  /** Puts everything back. */
  restore(): Promise<void>
}

export interface ResolverTarget {
  readonly tun: string
  readonly zone: string
  /** Our name server's addresses, the first preferred. */
  readonly servers: readonly string[]
}

/** Ends each line that is ours: also a daemon that was killed leaves nothing that the next one does not recognise. */
const MARK = '# added by caracal'
/** Stands in a file that was not there before us. */
const CREATED = `# this file was made ${MARK}`
const RESOLVECTL_MS = 5_000

/**
 * Makes this host's programs ask us for our zone. `resolved` sets per-link servers and a routing domain, which vanish with the link. `file` puts our address first in a
 * resolv.conf and restores it; the other name servers stay, and are asked when we refuse a foreign name.
 * `auto` takes resolved when it runs, and otherwise changes nothing. Throws with what to do about it; nothing has changed then.
 */
export async function applyResolverSettings(mode: DnsMode, target: ResolverTarget): Promise<ResolverSettings> {
  if (mode.kind === 'file') return applyFile(mode.path, target)
  if (mode.kind === 'none') return inactive('programs are not told of the name server (dns: none)')
  if (mode.kind === 'resolved') return applyResolved(target)
  const { zone, servers } = target
  const otherwise = `send names under ${zone} to ${servers.join(' or ')} yourself, or use --dns file:/etc/resolv.conf`
  if (!(await resolvedRuns())) return inactive(`systemd-resolved does not run: ${otherwise}`)
  try {
    return await applyResolved(target)
  } catch (error) {
    return inactive(`${messageOf(error)}; ${otherwise}`)
  }
}

function inactive(description: string): ResolverSettings {
  return { description, active: false, withdrawal: undefined, restore: () => Promise.resolve() }
}

function resolvectl(...words: string[]): Promise<unknown> {
  return runWithin(RESOLVECTL_MS, 'resolvectl', words)
}

async function resolvedRuns(): Promise<boolean> {
  try {
    await resolvectl('status', '--no-pager')
    return true
  } catch {
    return false
  }
}

async function applyResolved({ tun, zone, servers }: ResolverTarget): Promise<ResolverSettings> {
  const restore = async () => {
    // Where that fails the link's end does it.
    await resolvectl('revert', tun).catch(() => undefined)
  }
  try {
    await resolvectl('dns', tun, ...servers)
    await resolvectl('domain', tun, `~${zone}`)
    await resolvectl('default-route', tun, 'no')
  } catch (error) {
    await restore()
    const why = error instanceof CommandError && !error.missing ? error.complaint : messageOf(error)
    throw new Error(
      `systemd-resolved did not take the settings for ${tun} (${why}): is it running? Otherwise use --dns file:PATH or --dns none`,
    )
  }
  // Our zone is not signed and our server speaks plain DNS on this very host, whatever is demanded of others.
  for (const setting of ['dnssec', 'dnsovertls']) await resolvectl(setting, tun, 'no').catch(() => undefined)
  return {
    description: `systemd-resolved asks ${servers[0]} for ~${zone} on ${tun}`,
    active: true,
    withdrawal: ['resolvectl', 'revert', tun],
    restore,
  }
}

async function applyFile(asked: string, { servers }: ResolverTarget): Promise<ResolverSettings> {
  // A link stays a link: what it leads to is written.
  const path = await followed(asked)
  const before = await readIfThere(path)
  // A daemon that was killed left its lines: they are not part of what is restored.
  const original = withoutOurs(before ?? '')
  const lines = [`nameserver ${servers[0]} ${MARK}`]
  // Without any name server programs ask the one of this host; that is to stay so for foreign names.
  if (!/^\s*nameserver\s/m.test(original)) lines.push(`nameserver 127.0.0.1 ${MARK}`)
  if (before === undefined || isOurCreation(before)) lines.unshift(CREATED)
  const wanted = `${lines.join('\n')}\n${original}`
  if (wanted !== before) await replace(path, wanted)
  return {
    description: `${asked} names ${servers[0]} first`,
    active: true,
    withdrawal: [process.execPath, builtFile('daemon/dns/withdraw.js'), path],
    restore: () => restoreFile(path),
  }
}

/** Takes our lines out of a resolv.conf, and nothing else: others may have edited it meanwhile. */
export async function restoreFile(path: string): Promise<void> {
  const now = await readIfThere(path)
  if (now === undefined) return
  const rest = withoutOurs(now)
  if (rest === '' && isOurCreation(now)) await rm(path, { force: true })
  else if (rest !== now) await replace(path, rest)
}

async function followed(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch {
    // Not there, or a link to what is not there yet.
    const target = await readlink(path).catch(() => undefined)
    return target === undefined ? path : resolve(dirname(path), target)
  }
}

/** undefined: there is no such file. */
async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw new Error(`cannot read ${path}: ${messageOf(error)}`)
  }
}

function withoutOurs(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.endsWith(MARK))
    .join('\n')
}

function isOurCreation(text: string): boolean {
  return text.split('\n').includes(CREATED)
}

/** Atomically by rename where that works; in place where the file is a mount point, as in containers and `ip netns exec`. */
async function replace(path: string, text: string): Promise<void> {
  const temporary = `${path}.caracal-${process.pid}`
  try {
    const old = await stat(path).catch(() => undefined)
    await rm(temporary, { force: true })
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(text)
      await file.chmod((old?.mode ?? 0o644) & 0o7777)
      if (old !== undefined) await file.chown(old.uid, old.gid)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    if (!isErrno(error, 'EBUSY', 'EXDEV', 'EACCES', 'EROFS', 'EPERM', 'EINVAL'))
      throw new Error(`cannot write ${path}: ${messageOf(error)}`)
    await overwrite(path, text).catch((second: unknown) => {
      throw new Error(`cannot write ${path}: ${messageOf(second)}; use --dns none or another file`)
    })
  }
}

/** A reader in between sees the old end behind the new beginning, never an empty file. */
async function overwrite(path: string, text: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.writeFile(text)
    await file.truncate(Buffer.byteLength(text))
    await file.sync()
  } finally {
    await file.close()
  }
}

function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code)
}
