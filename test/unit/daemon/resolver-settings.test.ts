import { chmod, lstat, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { applyResolverSettings, parseDnsMode } from '../../../daemon/dns/resolver-settings.js'

const target = { tun: 'caracal0', zone: 'svc.internal', servers: ['198.18.0.53', 'fd00::53'] }
const OURS = 'nameserver 198.18.0.53 # added by caracal'

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'caracal-resolv-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

const apply = (path: string) => applyResolverSettings({ kind: 'file', path }, target)

test('parseDnsMode', (t) => {
  for (const kind of ['auto', 'resolved', 'none'] as const) t.same(parseDnsMode(kind), { kind })
  t.same(parseDnsMode('file:/etc/resolv.conf'), { kind: 'file', path: '/etc/resolv.conf' })
  for (const bad of ['', 'Auto', 'file', 'file:', 'file:/', 'file:resolv.conf', 'none ', 'resolv']) {
    t.equal(parseDnsMode(bad), undefined, JSON.stringify(bad))
  }
  t.end()
})

test('none leaves everything', async (t) => {
  const settings = await applyResolverSettings({ kind: 'none' }, target)
  t.notOk(settings.active)
  await settings.restore()
})

for (const [what, original] of [
  [
    'name servers and options',
    'search example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:1 edns0\n',
  ],
  ['no last newline', '# mine\nnameserver 192.0.2.1'],
  ['Windows line ends', 'nameserver 192.0.2.1\r\noptions rotate\r\n'],
] as const) {
  test(`a file with ${what}: our line first, the rest stays, and all comes back`, async (t) => {
    const path = join(await folder(t), 'resolv.conf')
    await writeFile(path, original)
    await chmod(path, 0o640)
    const settings = await apply(path)
    t.ok(settings.active)
    t.match(settings.description, path)
    t.equal(await readFile(path, 'utf8'), `${OURS}\n${original}`)
    t.equal((await stat(path)).mode & 0o777, 0o640)
    await settings.restore()
    t.equal(await readFile(path, 'utf8'), original)
    t.equal((await stat(path)).mode & 0o777, 0o640)
    t.same(await readdir(join(path, '..')), ['resolv.conf'], 'no other file is left')
  })
}

test("without a name server of its own the host's one is asked for foreign names, as before", async (t) => {
  const path = join(await folder(t), 'resolv.conf')
  await writeFile(path, 'search example.org\n')
  const settings = await apply(path)
  t.equal(await readFile(path, 'utf8'), `${OURS}\nnameserver 127.0.0.1 # added by caracal\nsearch example.org\n`)
  await settings.restore()
  t.equal(await readFile(path, 'utf8'), 'search example.org\n')
})

test('what others change meanwhile stays', async (t) => {
  const path = join(await folder(t), 'resolv.conf')
  await writeFile(path, 'nameserver 192.0.2.1\n')
  const settings = await apply(path)
  await writeFile(path, `${OURS}\nnameserver 192.0.2.9\nsearch home\n`)
  await settings.restore()
  t.equal(await readFile(path, 'utf8'), 'nameserver 192.0.2.9\nsearch home\n')

  const again = await apply(path)
  await writeFile(path, 'nameserver 192.0.2.10\n')
  const before = await stat(path)
  await again.restore()
  t.equal(await readFile(path, 'utf8'), 'nameserver 192.0.2.10\n')
  t.equal((await stat(path)).ino, before.ino, 'a file without our lines is not written')

  const last = await apply(path)
  await rm(path)
  await last.restore()
  await t.rejects(stat(path), { code: 'ENOENT' }, 'nor made anew')
})

test('lines of a daemon that was killed are replaced, and go with ours', async (t) => {
  const path = join(await folder(t), 'resolv.conf')
  await writeFile(path, 'nameserver 192.0.2.1\n')
  await apply(path)
  const settings = await applyResolverSettings({ kind: 'file', path }, { ...target, servers: ['198.19.0.53'] })
  t.equal(await readFile(path, 'utf8'), 'nameserver 198.19.0.53 # added by caracal\nnameserver 192.0.2.1\n')
  await settings.restore()
  t.equal(await readFile(path, 'utf8'), 'nameserver 192.0.2.1\n')
})

test('a file that was not there goes again, also after a kill; an empty one stays', async (t) => {
  const path = join(await folder(t), 'resolv.conf')
  const settings = await apply(path)
  t.match(await readFile(path, 'utf8'), `${OURS}\n`)
  t.equal((await stat(path)).mode & 0o777, 0o644, 'every program may read it')
  await settings.restore()
  await t.rejects(stat(path), { code: 'ENOENT' })

  await apply(path)
  await (await apply(path)).restore()
  await t.rejects(stat(path), { code: 'ENOENT' })

  await apply(path)
  const kept = await apply(path)
  await writeFile(path, `${await readFile(path, 'utf8')}search home\n`)
  await kept.restore()
  t.equal(await readFile(path, 'utf8'), 'search home\n', 'with something in it, it stays')

  await writeFile(path, '')
  await (await apply(path)).restore()
  t.equal(await readFile(path, 'utf8'), '')
})

test('a symbolic link stays one', async (t) => {
  const path = await folder(t)
  await writeFile(join(path, 'real.conf'), 'nameserver 192.0.2.1\n')
  await symlink('real.conf', join(path, 'resolv.conf'))
  const settings = await apply(join(path, 'resolv.conf'))
  t.equal(await readFile(join(path, 'real.conf'), 'utf8'), `${OURS}\nnameserver 192.0.2.1\n`)
  await settings.restore()
  t.ok((await lstat(join(path, 'resolv.conf'))).isSymbolicLink())
  t.equal(await readFile(join(path, 'real.conf'), 'utf8'), 'nameserver 192.0.2.1\n')

  await rm(join(path, 'real.conf'))
  const dangling = await apply(join(path, 'resolv.conf'))
  t.match(await readFile(join(path, 'real.conf'), 'utf8'), OURS)
  await dangling.restore()
  t.ok((await lstat(join(path, 'resolv.conf'))).isSymbolicLink())
  t.same(await readdir(path), ['resolv.conf'])
})

test('what cannot be read or written is an error that says so, and changes nothing', async (t) => {
  const path = await folder(t)
  await t.rejects(apply(path), { message: `cannot read ${path}: EISDIR` })
  const missing = join(path, 'no', 'such', 'folder')
  await t.rejects(apply(missing), { message: `cannot write ${missing}: ENOENT` })
  await writeFile(join(path, 'file'), '')
  await t.rejects(apply(join(path, 'file', 'resolv.conf')), { message: 'ENOTDIR' })
  t.same(await readdir(path), ['file'])
  // The kernel lets nobody write here, root neither.
  const fixed = '/sys/kernel/fscaps'
  const before = await readFile(fixed, 'utf8')
  await t.rejects(apply(fixed), { message: /^cannot write \/sys\/kernel\/fscaps: .*--dns none/ })
  t.equal(await readFile(fixed, 'utf8'), before)
})

test('resolvectl: what is set, in which order, and what happens when it refuses', async (t) => {
  const path = await folder(t)
  const log = join(path, 'log')
  const install = async (body: string) => {
    await rm(log, { force: true })
    await writeFile(join(path, 'resolvectl'), `#!/bin/sh\necho "$@" >>${log}\n${body}\n`)
    await chmod(join(path, 'resolvectl'), 0o755)
  }
  const calls = async () => (await readFile(log, 'utf8')).trimEnd().split('\n')
  const search = process.env.PATH
  process.env.PATH = `${path}:${search}`
  t.teardown(() => (process.env.PATH = search))

  await install('[ "$1" != dnsovertls ]')
  const settings = await applyResolverSettings({ kind: 'resolved' }, target)
  t.ok(settings.active, 'what old versions do not know is not needed')
  const set = ['dns caracal0 198.18.0.53 fd00::53', 'domain caracal0 ~svc.internal', 'default-route caracal0 no']
  t.same(await calls(), [...set, 'dnssec caracal0 no', 'dnsovertls caracal0 no'])
  await settings.restore()
  t.equal((await calls()).at(-1), 'revert caracal0')

  await install('[ "$1" != domain ] || { echo "Failed to set domain: no" >&2; exit 1; }')
  const refused = { message: 'did not take the settings for caracal0 (Failed to set domain: no)' }
  await t.rejects(applyResolverSettings({ kind: 'resolved' }, target), refused)
  t.same(await calls(), [set[0], set[1], 'revert caracal0'], 'nothing half done is left')

  const auto = await applyResolverSettings({ kind: 'auto' }, target)
  t.notOk(auto.active, 'auto goes on without')
  t.match(auto.description, /Failed to set domain: no.*198\.18\.0\.53.*--dns file:/)

  await install('exit 1')
  const absent = await applyResolverSettings({ kind: 'auto' }, target)
  t.notOk(absent.active)
  t.match(absent.description, /systemd-resolved does not run.*svc\.internal.*198\.18\.0\.53/)
  t.same(await calls(), ['status --no-pager'], 'nothing was tried')

  await install('exit 0')
  t.ok((await applyResolverSettings({ kind: 'auto' }, target)).active)
})
