import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { pathsShape } from '../../daemon/control/shapes.js'
import { CaracalError } from '../../daemon/errors.js'
import { builtFile } from '../../daemon/our-files.js'
import { demoBody } from './demo-body.js'
import { collect, Lab } from './lab.js'

export interface DemoOptions {
  readonly print: (line: string) => void
  /** Keep the lab up when done, for looking around. */
  readonly keep?: boolean
}

const resultShape = z.object({
  host: z.string(),
  bytes: z.number(),
  hash: z.string(),
  longestGapMs: z.number(),
  lines: z.number(),
  whole: z.boolean(),
})
type Result = z.infer<typeof resultShape>

const STREAM_MS = 3_000
const serverFile = builtFile('cli/lab/demo-server.js')
const clientFile = builtFile('cli/lab/demo-client.js')

/**
 * Three hosts on this machine: two serve `web`, the third calls it by name with an ordinary program, keeps a stream open while its own address is taken away and replaced,
 * and sees an instance leave. Resolves with the exit status.
 */
export async function runDemo({ print, keep = false }: DemoOptions): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-demo-'))
  let lab: Lab | undefined
  const stop = () => {
    void (lab?.down() ?? Promise.resolve()).then(() => process.exit(130))
  }
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  try {
    print('Three hosts, each a network namespace with a daemon of its own:')
    lab = await Lab.up(['h1', 'h2', 'h3'], { directory, progress: (line) => print(`  ${line}`) })
    await play(lab, print)
    if (keep) print(`The lab stays: CARACAL_LAB=${directory} caracal lab exec h1 -- bash, and caracal lab down.`)
    return 0
  } finally {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
    if (!keep) {
      await lab?.down()
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

async function play(lab: Lab, print: (line: string) => void): Promise<void> {
  const servers = await Promise.all(['h2', 'h3'].map((name) => startServer(lab, name)))
  try {
    for (const name of ['h2', 'h3']) await lab.caracal(name, 'expose', 'web', '--tcp', '80:8080')
    await known(lab, 'h1', 2)
    const url = `http://web.${lab.host('h1').zone ?? 'svc.internal'}`
    print('')
    print(`h2 and h3 expose "web". h1 calls it by name: GET ${url}/body`)
    const seen = new Set<string>()
    let body: Result | undefined
    for (let i = 0; i < 8; i++) {
      body = await fetch(lab, `${url}/body`)
      seen.add(body.host)
    }
    const expected = createHash('sha256').update(demoBody()).digest('hex')
    if (body === undefined || body.hash !== expected) {
      throw new CaracalError('CARACAL_E_LAB', `the body came with hash ${body?.hash ?? 'none'} instead of ${expected}`)
    }
    print(`  answered by ${[...seen].sort().join(' and ')}, each connection bound at its first packet`)
    print(`  ${body.bytes} bytes, sha256 ${body.hash}`)

    print('')
    print(`h1 opens a stream with a line every 5 ms, and in its middle loses its address ${lab.host('h1').address}:`)
    const stream = await moveUnderStream(lab, `${url}/stream?for=${STREAM_MS}`)
    print(
      `  ${stream.lines} of ${STREAM_MS / 5} lines arrived, ${stream.whole ? 'in order, none missing' : 'NOT WHOLE'}`,
    )
    print(`  longest gap ${stream.longestGapMs.toFixed(1)} ms; the program noticed nothing`)
    const { remote, reason } = await pathTo(lab, stream.host, 'h1')
    print(`  on ${stream.host}, caracal paths h1 says: ${remote}, ${reason}`)
    if (!stream.whole || stream.lines !== STREAM_MS / 5) {
      throw new CaracalError('CARACAL_E_LAB', 'the stream did not survive the move', 'see `caracal doctor`')
    }

    print('')
    print(`The instance on ${stream.host} leaves:`)
    await lab.caracal(stream.host, 'unexpose', 'web')
    await known(lab, 'h1', 1)
    const rest = new Set<string>()
    for (let i = 0; i < 4; i++) rest.add((await fetch(lab, `${url}/body`)).host)
    print(`  new connections go to ${[...rest].join(', ')}`)
    if (rest.has(stream.host))
      throw new CaracalError('CARACAL_E_LAB', `${stream.host} was still chosen after it had left`)
  } finally {
    for (const server of servers) server.kill('SIGKILL')
  }
}

async function startServer(lab: Lab, name: string) {
  const child = lab.spawn(name, [process.execPath, serverFile, '8080', name], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('error', reject)
    child.once('exit', () => reject(new CaracalError('CARACAL_E_LAB', `the web server of ${name} did not start`)))
  })
  return child
}

async function fetch(lab: Lab, url: string): Promise<Result> {
  const child = lab.spawn('h1', [process.execPath, clientFile, url], { stdio: ['ignore', 'pipe', 'pipe'] })
  return result(await collect(child))
}

async function moveUnderStream(lab: Lab, url: string): Promise<Result> {
  const child = lab.spawn('h1', [process.execPath, clientFile, url], { stdio: ['ignore', 'pipe', 'pipe'] })
  const done = collect(child)
  await new Promise<void>((resolve) => {
    child.stdout?.once('data', () => resolve())
    child.once('close', () => resolve())
  })
  await new Promise((resolve) => setTimeout(resolve, STREAM_MS / 3))
  const old = lab.host('h1').address
  const fresh = old.replace(/\d+$/, '101')
  const gateway = old.replace(/\d+$/, '254')
  lab.script(
    'h1',
    `ip addr del ${old}/24 dev eth0
     ip addr add ${fresh}/24 dev eth0
     ip route replace default via ${gateway}`,
  )
  return result(await done)
}

/** Where the host's frames to another one go, and why. */
async function pathTo(lab: Lab, name: string, other: string): Promise<{ remote: string; reason: string }> {
  const { paths } = pathsShape.parse(JSON.parse(await lab.caracal(name, 'paths', other, '--json')))
  const path = paths.find(({ inUse }) => inUse)
  if (path !== undefined) return path
  throw new CaracalError('CARACAL_E_LAB', `${name} has no path to ${other}`, 'see `caracal doctor`')
}

function result({ code, out, err }: { code: number; out: string; err: string }): Result {
  if (code !== 0) throw new CaracalError('CARACAL_E_LAB', `the client on h1 failed (${err.trim()})`)
  return resultShape.parse(JSON.parse(out.trimEnd().split('\n').at(-1)!))
}

/** Waits until the host knows this many healthy instances of web. */
async function known(lab: Lab, name: string, instances: number): Promise<void> {
  const deadline = performance.now() + 10_000
  while (performance.now() < deadline) {
    const services = servicesShape.parse(JSON.parse(await lab.caracal(name, 'services', '--json')))
    const web = services.services.find((service) => service.name === 'web')
    if (web?.instances.filter((instance) => instance.state === 'up').length === instances) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new CaracalError('CARACAL_E_LAB', `${name} did not learn of ${instances} instances of web within 10 s`)
}

const servicesShape = z.object({
  services: z.array(z.object({ name: z.string(), instances: z.array(z.object({ state: z.string() })) })),
})
