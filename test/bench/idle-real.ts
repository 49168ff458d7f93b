// What real daemons cost that have nothing to do: `npm run bench:idle -- --real [SECONDS]`. Two hosts in namespaces, one of which has a service; counted is the processor time of
// each daemon, all threads, as the scheduler has it, and how often its threads were woken.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { statusShape } from '../../daemon/control/shapes.js'
import { Lab } from '../../cli/lab/lab.js'

const HOSTS = ['h1', 'h2'] as const
const PORT = 9_200
/** What of the beginning is left out, s. */
const SETTLING = 20

interface Used {
  /** ns */
  readonly time: number
  readonly wakes: number
}

/** Of all threads of a process. */
function used(pid: number): Used {
  let [time, wakes] = [0, 0]
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    time += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    wakes += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1])
  }
  return { time, wakes }
}

export async function idleReal(seconds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'caracal-idle-'))
  const lab = await Lab.up(HOSTS, { directory: join(folder, 'lab'), subnet: '10.79.0' })
  const serve = `require('node:net').createServer().listen(${PORT}, '::', () => console.log('listening'))`
  const server = lab.spawn('h2', [process.execPath, '-e', serve], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await new Promise((resolve) => server.stdout?.once('data', resolve))
    await lab.caracal('h2', 'expose', 'idle', '--tcp', String(PORT))
    const pids = await Promise.all(
      HOSTS.map(async (host) => statusShape.parse(JSON.parse(await lab.caracal(host, 'status', '--json'))).pid),
    )
    await pause(SETTLING * 1_000)
    const before = pids.map(used)
    const started = performance.now()
    await pause(seconds * 1_000)
    const after = pids.map(used)
    const passed = (performance.now() - started) / 1_000
    const hosts = HOSTS.map((host, i) => ({
      host,
      percent: (after[i]!.time - before[i]!.time) / 1e7 / passed,
      wakesPerSecond: (after[i]!.wakes - before[i]!.wakes) / passed,
    }))
    for (const [i, { host, percent, wakesPerSecond }] of hosts.entries()) {
      const what = `${host}, ${i === 0 ? 'no service' : 'one service'}`
      console.log(`${what.padEnd(20)} ${percent.toFixed(3)} % of a core   ${wakesPerSecond.toFixed(1)} wakes a second`)
    }
    console.log(JSON.stringify({ seconds: passed, hosts }))
  } finally {
    server.kill('SIGKILL')
    await lab.down()
    rmSync(folder, { recursive: true, force: true })
  }
}
