import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import type { Test } from 'tap'
import { systemEnvironment } from '../../daemon/command.js'
import { EmulatedLink, type LinkEnd, type LinkOptions } from './emulator/link.js'

export interface Finished {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

let made = 0

/** Bare network namespaces for one test; they and all that was started in them are gone at its end, failed or not. */
export class Namespaces {
  readonly #names: string[] = []
  readonly #children = new Set<ChildProcess>()
  readonly #links: EmulatedLink[] = []

  constructor(t: Test) {
    t.teardown(() => this.close())
  }

  /** A namespace with its loopback up; returns its name. */
  add(): string {
    const name = `caracal-${++made}-${process.pid}`
    this.#here('ip', ['netns', 'add', name])
    this.#names.push(name)
    this.run(name, 'ip link set lo up')
    return name
  }

  /** A wire between two namespaces, called `wire` at both ends, with an address (and prefix length) of each family at each end. */
  wire(a: string, b: string, addressesA: readonly string[], addressesB: readonly string[]): void {
    this.#here('ip', ['link', 'add', 'wire', 'netns', a, 'type', 'veth', 'peer', 'name', 'wire', 'netns', b])
    for (const [name, addresses] of [
      [a, addressesA],
      [b, addressesB],
    ] as const) {
      for (const address of addresses) {
        this.run(name, `ip address add ${address} dev wire${address.includes(':') ? ' nodad' : ''}`)
      }
      // Without link-local addresses nothing changes or is sent by itself.
      this.run(name, 'ip link set wire addrgenmode none up')
    }
  }

  /** An emulated link between two namespaces, called `wire` at both ends, with addresses (and prefix lengths) at each end. */
  async link(
    a: string,
    b: string,
    addressesA: readonly string[],
    addressesB: readonly string[],
    options: LinkOptions = {},
  ): Promise<EmulatedLink> {
    const end = (netns: string, addresses: readonly string[]): LinkEnd => ({
      enter: ['ip', 'netns', 'exec', netns],
      netns,
      device: 'wire',
      addresses: addresses.map((address) => (address.includes(':') ? `${address} nodad` : address)),
    })
    const link = await EmulatedLink.between(end(a, addressesA), end(b, addressesB), options)
    this.#links.push(link)
    return link
  }

  /** Runs a shell command to its end; throws when its status is not 0. Returns its stdout. */
  run(namespace: string, command: string, input = ''): string {
    const args = ['netns', 'exec', namespace, 'sh', '-c', command]
    const result = spawnSync('ip', args, { env: systemEnvironment(), encoding: 'utf8', input, timeout: 60_000 })
    if (result.status !== 0) throw new Error(`${command}: status ${result.status}: ${result.stdout}${result.stderr}`)
    return result.stdout
  }

  /** Starts a program; it is killed at the end of the test at the latest. */
  start(namespace: string, command: readonly string[], stderr: 'inherit' | 'ignore' = 'inherit'): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', namespace, ...command], {
      env: systemEnvironment(),
      stdio: ['pipe', 'pipe', stderr],
    })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }

  async close(): Promise<void> {
    const ends = [...this.#children].map((child) => new Promise((resolve) => child.once('exit', resolve)))
    for (const child of this.#children) child.kill('SIGKILL')
    await Promise.all([...ends, ...this.#links.map((link) => link.close())])
    for (const name of this.#names.splice(0)) spawnSync('ip', ['netns', 'delete', name], { env: systemEnvironment() })
  }

  #here(program: string, args: readonly string[]): void {
    const result = spawnSync(program, args, { env: systemEnvironment(), encoding: 'utf8' })
    if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr}`)
  }
}

/** Resolves with the first line of the child's stdout that starts with `word`, without the word; rejects when it ends before. */
export function lineOf(child: ChildProcess, word: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const ended = (status: number | null) =>
      reject(new Error(`the program ended (${status}) before it said ${word}: ${text}`))
    const look = (chunk: Buffer) => {
      text += chunk.toString()
      const line = text.split('\n').find((one, i, all) => i < all.length - 1 && one.startsWith(`${word} `))
      if (line === undefined) return
      child.stdout?.off('data', look)
      child.off('exit', ended)
      resolve(line.slice(word.length + 1))
    }
    child.stdout?.on('data', look)
    child.once('exit', ended)
  })
}
