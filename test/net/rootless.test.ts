// The demo as an ordinary user: no root anywhere, user and network namespaces only.
import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync, rmSync, chmodSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import tap, { test } from 'tap'
import { collect } from '../../cli/lab/lab.js'
import { demoBody } from '../../cli/lab/demo-body.js'

tap.setTimeout(300_000)

const root = fileURLToPath(new URL('../../..', import.meta.url))

test('the demo runs without root', async (t) => {
  // The checkout may lie where another user may not look (under /root); node too.
  const folder = mkdtempSync(join(tmpdir(), 'caracal-user-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  for (const part of ['package.json', 'dist', 'build', 'node_modules']) {
    cpSync(join(root, part), join(folder, part), { recursive: true, verbatimSymlinks: true })
  }
  const asRoot = process.getuid?.() === 0
  const demo = `cd ${folder} && exec ${process.execPath} dist/cli/main.js demo`
  // The machine's own TUN node stays as it is: the user sees one that is open to all, in a mount namespace of the test's own.
  const script = `mount -t tmpfs -o mode=755 tmpfs /mnt && mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun &&
    exec setpriv --reuid=nobody --regid=nogroup --clear-groups env -i HOME=/tmp PATH="$PATH" sh -c '${demo}'`
  const child = asRoot
    ? spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
        stdio: ['ignore', 'pipe', 'pipe'],
      })
    : spawn('sh', ['-c', demo], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  const { code, out, err } = await collect(child)
  t.equal(code, 0, `${err}\n${out}`)
  t.match(out, createHash('sha256').update(demoBody()).digest('hex'), "the body's hash")
  const gap = Number(/longest gap ([\d.]+) ms/.exec(out)?.[1])
  t.ok(gap > 0 && gap < 3_000, `the longest gap of the stream: ${gap} ms`)
  t.match(out, /in order, none missing/)
})
