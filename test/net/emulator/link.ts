import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { systemEnvironment } from '../../../daemon/command.js'
import { changed, linkReportShape, WIRE, type Direction, type LinkChanges } from './settings.js'

const main = fileURLToPath(new URL('main.js', import.meta.url))
/** More than the emulator leaves unread for a while; what does not fit is lost in the kernel and counted there. */
const QUEUE_PACKETS = 20_000
const droppedShape = z.tuple([z.object({ stats64: z.object({ tx: z.object({ dropped: z.number() }) }) })])

/** Where a link ends. */
export interface LinkEnd {
  /** Words that run a command in that namespace. */
  readonly enter: readonly string[]
  /** The network namespace as `ip link set … netns` takes it: its name, or a process in it. */
  readonly netns: string
  /** Name of the network interface. */
  readonly device: string
  /** Arguments of `ip address add … dev DEVICE`. */
  readonly addresses: readonly string[]
}

export interface LinkOptions extends LinkChanges {
  /** Of the devices; default 1,500. What `mtu` says of the link itself may be less. */
  readonly deviceMtu?: number
  /** Default: any. A link of the same seed does the same to the same packets. */
  readonly seed?: number
}

export interface LinkReport extends z.infer<typeof linkReportShape> {
  /** Packets that the device at that end lost because the emulator did not read them in time. */
  readonly unread: Readonly<Record<'a' | 'b', number>>
}

let made = 0

/** A link between two network namespaces on which packets fare as on a real one: they take time, get lost, come twice or out of order. A process of its own. */
export class EmulatedLink {
  readonly #answers: ((line: string) => void)[] = []

  private constructor(
    readonly a: LinkEnd,
    readonly b: LinkEnd,
    readonly seed: number,
    private readonly child: ChildProcess,
  ) {
    if (child.stdout === null) throw new Error('the emulator has no stdout')
    createInterface({ input: child.stdout }).on('line', (line) => this.#answers.shift()?.(line))
    child.once('exit', () => {
      for (const answer of this.#answers.splice(0)) answer('failed "the emulator has ended"')
    })
  }

  /** Makes the devices at both ends, with their addresses, and joins them. */
  static async between(a: LinkEnd, b: LinkEnd, options: LinkOptions = {}): Promise<EmulatedLink> {
    const { deviceMtu = 1_500, seed = randomInt(2 ** 31), ...changes } = options
    const settings = changed(WIRE, changes)
    const onItsWay = `emu${process.pid % 100_000}-${++made}`
    const words = [
      process.execPath,
      main,
      a.device,
      onItsWay,
      String(deviceMtu),
      String(seed),
      JSON.stringify(settings),
    ]
    const child = spawn(a.enter[0]!, [...a.enter.slice(1), ...words], {
      env: systemEnvironment(),
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const link = new EmulatedLink(a, b, seed, child)
    try {
      await link.#answer('ready')
      ip(a, 'link', 'set', onItsWay, 'netns', b.netns, 'name', b.device)
      for (const end of [a, b]) {
        // Without link-local addresses nothing is sent by itself; a device that is up has one already.
        ip(end, 'link', 'set', end.device, 'addrgenmode', 'none', 'txqueuelen', String(QUEUE_PACKETS))
        for (const address of end.addresses) ip(end, 'address', 'add', ...address.split(' '), 'dev', end.device)
      }
      for (const end of [a, b]) ip(end, 'link', 'set', end.device, 'up')
      return link
    } catch (error) {
      await link.close()
      throw error
    }
  }

  /** Changes one direction, or both. */
  async set(changes: LinkChanges, direction?: Direction): Promise<void> {
    await this.#ask({ set: changes, direction })
  }
  cut(direction?: Direction): Promise<void> {
    return this.set({ cut: true }, direction)
  }
  mend(direction?: Direction): Promise<void> {
    return this.set({ cut: false }, direction)
  }

  /** What became of all packets until now. */
  async report(): Promise<LinkReport> {
    const unread = (end: LinkEnd) => {
      const [{ stats64 }] = droppedShape.parse(JSON.parse(ip(end, '-s', '-j', 'link', 'show', 'dev', end.device)))
      return stats64.tx.dropped
    }
    const report = linkReportShape.parse(await this.#ask({ report: true }))
    return { ...report, unread: { a: unread(this.a), b: unread(this.b) } }
  }

  /** Ends the emulator; the devices go with it. */
  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    await new Promise<void>((resolve) => {
      this.child.once('exit', () => resolve())
      this.child.kill('SIGKILL')
    })
  }

  #ask(command: unknown): Promise<unknown> {
    const answer = this.#answer('answer')
    this.child.stdin?.write(`${JSON.stringify(command)}\n`)
    return answer
  }

  #answer(word: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#answers.push((line) => {
        if (line.startsWith(`${word} `)) resolve(JSON.parse(line.slice(word.length + 1)))
        else reject(new Error(`the emulated link of ${this.a.device} and ${this.b.device}: ${line}`))
      })
    })
  }
}

function ip(end: LinkEnd, ...args: string[]): string {
  const words = [...end.enter, 'ip', ...args]
  const result = spawnSync(words[0]!, words.slice(1), { env: systemEnvironment(), encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`ip ${args.join(' ')}: ${result.stderr}${result.error?.message ?? ''}`)
  return result.stdout
}
