// The test command: installs what the tests need (as root), runs the linter and every test file, and closes with the true numbers.
// usage: node dist/test/run.js [unit|sim|fuzz|net|check]... [PART-OF-A-FILE-NAME]...
import { spawn, spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '..', '..')
const levels = ['check', 'unit', 'sim', 'fuzz', 'net'] as const
type Level = (typeof levels)[number]

/** Debian packages with the real programs of test/net, by the command that shows one is there. */
const packages: Record<string, string> = {
  ip: 'iproute2',
  nft: 'nftables',
  ping: 'iputils-ping',
  curl: 'curl',
  nginx: 'nginx-light',
  iperf3: 'iperf3',
  dig: 'bind9-dnsutils',
  'redis-server': 'redis-server',
  psql: 'postgresql-client',
  pg_ctlcluster: 'postgresql',
  tshark: 'tshark',
  tcpdump: 'tcpdump',
  python3: 'python3',
  unshare: 'util-linux',
  conntrack: 'conntrack',
}
/** Used by the daemon where there is one, and tested then: no test needs it. */
const optional: Record<string, string> = process.arch === 'x64' ? { 'libIPSec_MB.so.1': 'libipsec-mb1' } : {}
/**
 * Net tests that have the machine to themselves: they flood it, or what they assert is how much of something comes through or how long it takes. The others wait for conditions, and run in
 * pairs.
 */
const alone = [
  'balance',
  'black-hole',
  'control-plane',
  'express',
  'garbage',
  'lanes',
  'load',
  'lossy',
  'moves',
  'mtu',
  'programs',
  'segments',
  'soak',
].map((file) => `net/${file}.test`)
const extraPath = '/usr/sbin:/sbin:/usr/local/sbin'

interface Tally {
  passed: number
  failed: number
  skipped: number
}

const isRoot = process.getuid?.() === 0
const env: NodeJS.ProcessEnv = { ...process.env, PATH: `${process.env.PATH ?? ''}:${extraPath}`, TAP_BAIL: '0' }
delete env.NODE_OPTIONS
const total: Tally = { passed: 0, failed: 0, skipped: 0 }
const failures: string[] = []

function has(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`], { env }).status === 0
}

function hasLibrary(file: string): boolean {
  return spawnSync('sh', ['-c', `ldconfig -p | grep -qF ${file}`], { env }).status === 0
}

function installPackages(): void {
  installOptional()
  const missing = Object.keys(packages).filter((command) => !has(command))
  if (missing.length === 0) return
  const names = missing.map((command) => packages[command]!)
  if (!isRoot) {
    console.log(`# not root: without ${names.join(' ')} some tests will be skipped`)
    return
  }
  console.log(`# installing ${names.join(' ')}`)
  apt(['update', '-q'])
  const { status, output } = apt(['install', '-qy', '--no-install-recommends', ...names])
  if (status !== 0) {
    console.error(output)
    console.error(`apt-get could not install ${names.join(' ')}: install them by hand and run the tests again`)
    process.exit(1)
  }
}

/** What this system's packages do not have is done without. */
function installOptional(): void {
  const names = Object.keys(optional).flatMap((file) => (hasLibrary(file) ? [] : optional[file]!))
  if (names.length === 0 || !isRoot) return
  console.log(`# installing ${names.join(' ')}`)
  apt(['update', '-q'])
  for (const name of names)
    if (apt(['install', '-qy', '--no-install-recommends', name]).status !== 0)
      console.log(`# without ${name}: it is not in the packages of this system`)
}

function apt(args: readonly string[]): { status: number | null; output: string } {
  const result = spawnSync('apt-get', args, {
    env: { ...env, RUNLEVEL: '1', DEBIAN_FRONTEND: 'noninteractive' },
    encoding: 'utf8',
  })
  return { status: result.status, output: `${result.stdout ?? ''}${result.stderr ?? ''}` }
}

/** How a net test is started: as root as it is, else inside user, network and mount namespaces; undefined when those are not allowed. */
function netPrefix(): string[] | undefined {
  if (isRoot) return []
  const prefix = ['unshare', '--user', '--map-root-user', '--net', '--mount', 'sh', '-c']
  const probe = spawnSync(prefix[0]!, [...prefix.slice(1), 'mount -t tmpfs tmpfs /run && exec 3<>/dev/net/tun'], {
    env,
  })
  return probe.status === 0 ? [...prefix, 'mount -t tmpfs tmpfs /run && exec "$0" "$@"'] : undefined
}

function run(command: string[], limitSeconds: number): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command[0]!, command.slice(1), { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const keep = (chunk: Buffer) => (output += chunk.toString())
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    const limit = setTimeout(() => {
      output += `\nstopped: it ran longer than ${limitSeconds} s\n`
      child.kill('SIGTERM')
      setTimeout(() => child.kill('SIGKILL'), 5_000).unref()
    }, limitSeconds * 1_000)
    child.on('error', (error) => (output += `\n${error.message}\n`))
    child.on('close', (code) => {
      clearTimeout(limit)
      resolve({ code, output })
    })
  })
}

/** Top-level results of a TAP stream are the tests of its file. */
function tally(output: string, code: number | null): Tally {
  const result: Tally = { passed: 0, failed: 0, skipped: 0 }
  for (const line of output.split('\n')) {
    const match = /^(not )?ok \d+/.exec(line)
    if (match === null) continue
    if (/ # (SKIP|TODO)/i.test(line)) result.skipped++
    else if (match[1] === undefined) result.passed++
    else result.failed++
  }
  if (result.failed === 0 && (code !== 0 || result.passed + result.skipped === 0)) result.failed++
  return result
}

async function runFile({ level, command, name }: Job): Promise<void> {
  const started = process.hrtime.bigint()
  const { code, output } = await run(command, level === 'net' ? 420 : 240)
  const count: Tally =
    level === 'check' ? { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 } : tally(output, code)
  total.passed += count.passed
  total.failed += count.failed
  total.skipped += count.skipped
  const seconds = (Number(process.hrtime.bigint() - started) / 1e9).toFixed(1)
  console.log(
    `${count.failed > 0 ? 'FAIL' : 'ok  '} ${name} (${count.passed} passed${count.failed ? `, ${count.failed} failed` : ''}${count.skipped ? `, ${count.skipped} skipped` : ''}; ${seconds} s)`,
  )
  for (const line of output.split('\n'))
    if (/^(ok|not ok).* # SKIP/i.test(line)) console.log(`     skipped: ${line.replace(/^(not )?ok \d+ -? ?/, '')}`)
  if (count.failed > 0) {
    failures.push(name)
    console.log(output.split('\n').slice(-150).join('\n').replace(/^/gm, '     | '))
  }
}

function testFiles(level: Level): string[] {
  const folder = join(here, level)
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.js'))
    .map((file) => join(folder, file))
    .sort()
}

const words = process.argv.slice(2)
const chosen = levels.filter((level) => words.includes(level))
const parts = words.filter((word) => !levels.some((level) => level === word))
const wanted = (name: string) => parts.length === 0 || parts.some((part) => name.includes(part))

interface Job {
  readonly level: Level
  readonly name: string
  readonly command: string[]
}
const jobs: Job[] = []
const net = netPrefix()
for (const level of chosen.length > 0 ? chosen : levels) {
  if (level === 'check') {
    jobs.push({ level, name: 'eslint', command: ['npx', '--no-install', 'eslint', '.'] })
    jobs.push({
      level,
      name: 'prettier',
      command: ['npx', '--no-install', 'prettier', '--check', '--log-level', 'warn', '.'],
    })
    continue
  }
  for (const file of testFiles(level)) {
    const name = relative(here, file).replace(/\.js$/, '')
    if (level === 'net' && net === undefined) {
      total.skipped++
      console.log(`skip ${name}: this user may not make network namespaces with a TUN device (run the tests as root)`)
    } else
      jobs.push({
        level,
        name,
        command: [...(level === 'net' ? net! : []), process.execPath, '--enable-source-maps', file],
      })
  }
}

installPackages()
const queue = jobs.filter((job) => wanted(job.name))
async function inPairs(jobs: Job[]): Promise<void> {
  const worker = async () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await runFile(job)
  }
  await Promise.all([worker(), worker()])
}
const isAlone = ({ name }: Job) => alone.includes(name)
await inPairs(queue.filter(({ level }) => level !== 'net'))
await inPairs(queue.filter((job) => job.level === 'net' && !isAlone(job)))
for (const job of queue.filter(isAlone)) await runFile(job)

if (failures.length > 0) console.log(`failed: ${failures.join(' ')}`)
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed > 0 ? 1 : 0
