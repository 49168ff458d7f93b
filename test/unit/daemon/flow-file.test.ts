import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { test } from 'tap'
import { FlowFile } from '../../../daemon/keeper/flow-file.js'
import { native } from '../../../daemon/native.js'

const BYTES = 1 << 20
const failed: string[] = []
const open = (owner: string, bytes = BYTES, keep = true) =>
  FlowFile.open(owner, bytes, keep, (why) => failed.push(why))!

test('what is written is there for who maps it next, and nobody else may read it', async (t) => {
  const owner = `test ${process.pid} a`
  const first = open(owner)
  t.teardown(() => first.remove())
  t.equal(first.kept, false)
  t.equal(first.memory.byteLength, BYTES)
  t.equal(statSync(first.path).mode & 0o777, 0o600)
  t.ok(new Int32Array(first.memory).every((word) => word === 0))
  new Int32Array(first.memory)[1_000] = 42
  const second = open(owner)
  t.equal(second.kept, true)
  t.equal(second.path, first.path)
  t.equal(new Int32Array(second.memory)[1_000], 42)
  t.not(open(`test ${process.pid} b`).path, first.path)
  FlowFile.forget(`test ${process.pid} b`)
  const larger = open(owner, 2 * BYTES)
  t.equal(larger.kept, false, 'what has another size is no use')
  t.ok(new Int32Array(larger.memory).every((word) => word === 0))
  const fresh = open(owner, 2 * BYTES, false)
  t.equal(fresh.kept, false)
  fresh.remove()
  fresh.remove()
  t.notOk(existsSync(first.path))
  t.strictSame(failed, [])
})

test('what another process has is looked at where it is, and nothing is made for that', (t) => {
  const owner = `test ${process.pid} c`
  t.equal(FlowFile.peek(owner, BYTES), undefined)
  const first = open(owner)
  t.teardown(() => first.remove())
  t.equal(FlowFile.peek(owner, 2 * BYTES), undefined, 'of another size')
  const seen = FlowFile.peek(owner, BYTES)
  t.match(seen, { kept: true, path: first.path, isThere: true })
  new Int32Array(first.memory)[1_000] = 42
  t.equal(seen && new Int32Array(seen.memory)[1_000], 42)
  first.remove()
  t.equal(seen?.isThere, false)
  t.equal(open(owner).kept, false)
  t.equal(seen?.isThere, false, 'it is another one')
  t.end()
})

test('a file that others may have made or read is not mapped', (t) => {
  const folder = mkdtempSync('/dev/shm/caracal-test-')
  t.teardown(() => rmSync(folder, { recursive: true }))
  const map = (path: string) => native().mapFile(path, BYTES, true)
  const target = join(folder, 'target')
  writeFileSync(target, '', { mode: 0o600 })
  symlinkSync(target, join(folder, 'link'))
  t.throws(() => map(join(folder, 'link')), { code: 'CARACAL_E_MEMORY', message: /ELOOP/ })
  chmodSync(target, 0o640)
  t.throws(() => map(target), { code: 'CARACAL_E_MEMORY', message: /EPERM/ })
  t.throws(() => map(join(folder, 'none', 'x')), { code: 'CARACAL_E_MEMORY', message: /ENOENT/ })
  t.throws(() => map('/proc/self/status'), { code: 'CARACAL_E_MEMORY' })
  t.end()
})

test('room in the tmpfs that is gone later is not missed; where there is none, it is said what helps', async (t) => {
  // All that a daemon may use is one tmpfs of 2 MiB, in a mount namespace of its own.
  const mounts = ['/dev/shm', '/run'].map((folder) => `mount -t tmpfs -o size=2m tmpfs ${folder}`).join(' && ')
  const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']
  const probe = fileURLToPath(new URL('full-folder.js', import.meta.url))
  const script = `${mounts} && head -c 1500k /dev/zero > /run/rest && exec "$0" "$@"`
  const { stdout } = await promisify(execFile)(
    'unshare',
    [...user, '--mount', '--propagation', 'private', 'sh', '-c', script, process.execPath, probe],
    { env: { ...process.env, XDG_RUNTIME_DIR: '' } },
  )
  const seen: unknown = JSON.parse(stdout)
  t.match(seen, { first: /^\/dev\/shm\//, full: /ENOSPC/, second: undefined, again: true })
  t.match(seen, { failed: [/ENOSPC.*1 MiB free in \/dev\/shm, or set limits\.flows lower/, /1 MiB free in \/run/] })
})
