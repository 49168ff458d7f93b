import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { type Test } from 'tap'
import { z } from 'zod'
import { collect, Lab, type LabOptions } from '../../cli/lab/lab.js'
import { joinByLinks } from './emulator/lab-links.js'
import type { EmulatedLink, LinkOptions } from './emulator/link.js'

// Hosts take seconds to build, and servers to start: tap's 30 s a file are too few.
tap.setTimeout(400_000)

export interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** The compiled command line. */
export const cliMain = fileURLToPath(new URL('../../cli/main.js', import.meta.url))

const servicesShape = z.object({
  services: z.array(
    z.object({ name: z.string(), instances: z.array(z.object({ host: z.string(), state: z.string() })) }),
  ),
})

export interface FixtureOptions extends Partial<LabOptions> {
  /** Each two hosts are joined by an emulated link of these settings, instead of all by a switch. */
  readonly link?: LinkOptions
}

/** A lab for one test file: real daemons in namespaces, every process ended and every namespace gone at its end, failed or not. */
export class Fixture {
  readonly #children = new Set<ChildProcess>()

  private constructor(
    readonly lab: Lab,
    readonly folder: string,
    /** In the order of the pairs: the first host's, the second one's with those behind it… */
    readonly links: readonly EmulatedLink[],
  ) {}

  static async up(t: Test, names: readonly string[], options: FixtureOptions = {}): Promise<Fixture> {
    const folder = mkdtempSync(join(tmpdir(), 'caracal-net-'))
    const { link, ...labOptions } = options
    const links: EmulatedLink[] = []
    const lab = await Lab.up(names, {
      ...labOptions,
      ...(link === undefined ? {} : { join: async (lab) => void links.push(...(await joinByLinks(lab, link))) }),
      directory: join(folder, 'lab'),
    })
    for (const { seed } of links) t.comment(`emulated link of seed ${seed}`)
    const fixture = new Fixture(lab, folder, links)
    t.teardown(() => fixture.down())
    return fixture
  }

  async down(): Promise<void> {
    for (const child of this.#children) {
      child.kill('SIGKILL')
      // What the program itself had started may hold on to its output.
      child.stdout?.destroy()
      child.stderr?.destroy()
    }
    await this.lab.down()
    await Promise.all(this.links.map((link) => link.close()))
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Runs a program on a host to its end. */
  async run(host: string, command: readonly string[] | string, limitMs = 60_000): Promise<Result> {
    const words = typeof command === 'string' ? ['sh', '-c', command] : command
    const child = this.lab.spawn(host, words, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.add(child)
    const limit = setTimeout(() => child.kill('SIGKILL'), limitMs)
    const result = await collect(child)
    clearTimeout(limit)
    this.#children.delete(child)
    return result
  }

  /** Runs `caracal` on a host to its end, whatever its exit status. */
  caracal(host: string, ...words: string[]): Promise<Result> {
    return this.run(host, [process.execPath, cliMain, ...words])
  }

  /** Starts a server on a host; resolves when its output (either stream) matches, or at once without a pattern. */
  async start(host: string, command: readonly string[] | string, ready?: RegExp): Promise<ChildProcess> {
    const words = typeof command === 'string' ? ['sh', '-c', `exec ${command}`] : command
    const child = this.lab.spawn(host, words, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.add(child)
    let output = ''
    await new Promise<void>((resolve, reject) => {
      const look = (chunk: Buffer) => {
        if (output.length < 1e6) output += chunk.toString()
        if (ready?.test(output)) resolve()
      }
      child.stdout?.on('data', look)
      child.stderr?.on('data', look)
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`${words.join(' ')} ended with ${code}: ${output.slice(-500)}`)))
      if (ready === undefined) resolve()
    })
    return child
  }

  /** Starts a program on a host that is told something on its stdin. */
  open(host: string, command: readonly string[]): ChildProcess {
    const child = this.lab.spawn(host, command, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#children.add(child)
    return child
  }

  /** Waits until a TCP port of the host answers on an address of its own. */
  async listening(host: string, port: number, address = '127.0.0.1'): Promise<void> {
    const probe = `require('net').connect(${port},'${address}').on('connect',()=>process.exit(0)).on('error',()=>process.exit(1))`
    await this.until(`port ${port} of ${host} listens`, async () => {
      return (await this.run(host, [process.execPath, '-e', probe])).code === 0
    })
  }

  /** Waits until the host knows exactly these hosts as healthy instances of the service. */
  async knows(host: string, service: string, instances: readonly string[]): Promise<void> {
    const wanted = [...instances].sort().join()
    await this.until(`${host} knows ${service} on ${wanted || 'no host'}`, async () => {
      const { services } = servicesShape.parse(JSON.parse((await this.caracal(host, 'services', '--json')).out))
      const known = services.find((s) => s.name === service)?.instances ?? []
      return (
        known
          .filter((i) => i.state === 'up')
          .map((i) => i.host)
          .sort()
          .join() === wanted
      )
    })
  }

  /** Waits for a condition; throws with its name when it does not come true in time. */
  async until(what: string, condition: () => boolean | Promise<boolean>, limitMs = 15_000): Promise<void> {
    const deadline = performance.now() + limitMs
    while (!(await condition())) {
      if (performance.now() > deadline) throw new Error(`waited ${limitMs} ms in vain until ${what}`)
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
}
