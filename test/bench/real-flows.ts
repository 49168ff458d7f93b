// Two real daemons in namespaces, and connections by the thousand between them without a program's socket: see syns.py. The hosts' kernels never see a packet of these.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { collect, Lab } from '../../cli/lab/lab.js'
import { ControlClient } from '../../daemon/control/client.js'
import type { StatusResponse } from '../../daemon/control/protocol.js'
import { FIRST, putFirst, used, userAndSystem } from './processor-time.js'

const HOSTS = ['h1', 'h2'] as const
const DEVICE = 'caracal0'
const SERVICE = 'syns'
const FIRST_PORT = 7_100
const PORTS = 8
/** Source ports a destination port; see syns.py. */
const SPAN = 64_000
export const FLOWS_MAX = PORTS * SPAN
const READY_MS = 20_000
/** Compiled programs do not lie beside what they are compiled from. */
const program = fileURLToPath(new URL('../../../test/bench/syns.py', import.meta.url))
const sentShape = z.object({
  sent: z.number(),
  answered: z.number(),
  /** Answers that came again; and that the sender did not read in time. */
  again: z.number(),
  unread: z.number(),
  seconds: z.number(),
})
const linkShape = z.array(z.object({ stats64: z.object({ tx: z.object({ dropped: z.number() }) }) })).min(1)
export type Sent = z.infer<typeof sentShape>

/** What both daemons had done at a time. */
export interface Reading {
  readonly at: number
  /** Processor time, ns; and that spent in programs' own code, in clock ticks, µs. */
  readonly time: number
  readonly userUs: number
  readonly status: readonly StatusResponse[]
  /** Packets of programs that found the queue of a TUN full. */
  readonly queueFull: number
}

export class RealFlows {
  readonly #addresses = new Map<string, string>()
  #next = 0

  private constructor(
    readonly lab: Lab,
    private readonly source: string,
    private readonly pids: readonly number[],
    private readonly clients: readonly ControlClient[],
    private readonly stub: ChildProcess,
  ) {}

  /** @param capacity flows that the hosts have room for */
  static async up(folder: string, subnet: string, capacity: number): Promise<RealFlows> {
    const settings = join(folder, 'settings.yaml')
    mkdirSync(folder, { recursive: true })
    // One host may have half of another one's table.
    writeFileSync(settings, `limits: { flows: ${2 * capacity + 10_000} }\n`)
    const lab = await Lab.up(HOSTS, {
      directory: join(folder, 'lab'),
      subnet,
      upArguments: () => ['--config', settings],
    })
    for (const host of HOSTS) {
      const ports = `${FIRST_PORT}-${FIRST_PORT + PORTS - 1}`
      lab.script(
        host,
        `nft -f - <<'end'
         table inet syns {
           chain in {
             type filter hook prerouting priority raw
             iifname ${DEVICE} tcp dport ${ports} drop
             iifname ${DEVICE} tcp sport ${ports} drop
           }
         }
         end`.replaceAll(/\n +/g, '\n'),
      )
    }
    const words = [...FIRST, 'python3', program, 'answer', DEVICE, String(FIRST_PORT), String(PORTS)]
    const stub = lab.spawn('h2', words, { stdio: ['pipe', 'pipe', 'inherit'] })
    await Promise.race([
      once(stub.stdout!, 'data'),
      once(stub, 'exit').then(() => Promise.reject(new Error('what answers the SYNs has ended'))),
    ])
    const clients = await Promise.all(HOSTS.map((host) => ControlClient.connect(lab.path(host, 'control.sock'))))
    const status = await Promise.all(clients.map((one) => one.call('status', {})))
    const source = status[0]!.addresses.self.v4
    if (source === null) throw new Error('no IPv4 address')
    const pids = status.map(({ pid }) => pid)
    pids.forEach(putFirst)
    const flows = new RealFlows(lab, source, pids, clients, stub)
    await flows.expose(SERVICE, ...Array.from({ length: PORTS }, (_, i) => FIRST_PORT + i))
    return flows
  }

  /** Offers a service of h2; resolves when h1 knows it. */
  async expose(name: string, ...ports: readonly number[]): Promise<void> {
    await this.lab.caracal('h2', 'expose', name, ...ports.flatMap((port) => ['--tcp', String(port)]))
    const client = this.clients[0]!
    for (const deadline = performance.now() + READY_MS; ;) {
      const { services } = await client.call('services', {})
      if (services.some((one) => one.name === name && one.instances.some(({ state }) => state === 'up'))) break
      if (performance.now() > deadline) throw new Error(`h1 did not learn of ${name} within ${READY_MS} ms`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const { v4 } = (await client.call('resolve', { name })).addresses
    if (v4 === null) throw new Error(`${name} has no IPv4 address`)
    this.#addresses.set(name, v4)
  }

  /** By which h1 reaches the service. */
  addressOf(name: string): string {
    const address = this.#addresses.get(name)
    if (address === undefined) throw new Error(`${name} is not exposed`)
    return address
  }

  /** Opens so many connections more. With `acknowledge` as far as their ends are concerned, else to the first answer. */
  async open(count: number, rate: number, acknowledge: boolean): Promise<Sent> {
    const begin = this.#next
    this.#next += count
    if (this.#next > FLOWS_MAX) throw new RangeError(`more than ${FLOWS_MAX} flows`)
    const numbers = [FIRST_PORT, PORTS, begin, count, rate].map(String)
    const words = [...FIRST, 'python3', program, 'send', DEVICE, this.source, this.addressOf(SERVICE), ...numbers]
    const child = this.lab.spawn('h1', acknowledge ? [...words, 'ack'] : words, { stdio: ['ignore', 'pipe', 'pipe'] })
    const { code, out, err } = await collect(child)
    if (code !== 0) throw new Error(`what sends SYNs ended with ${code}: ${err}`)
    return sentShape.parse(JSON.parse(out))
  }

  async read(): Promise<Reading> {
    const status = await Promise.all(this.clients.map((client) => client.call('status', {})))
    const time = this.pids.reduce((sum, pid) => sum + used(pid).time, 0)
    const at = performance.now()
    const queueFull = HOSTS.reduce((sum, host) => {
      const link: unknown = JSON.parse(this.lab.script(host, `ip -j -s link show ${DEVICE}`))
      return sum + linkShape.parse(link)[0]!.stats64.tx.dropped
    }, 0)
    const userUs = this.pids.reduce((sum, pid) => sum + userAndSystem(pid)[0], 0)
    return { at, time, userUs, status, queueFull }
  }

  /** What answers the SYNs is needed no more. */
  async answered(): Promise<void> {
    const ended = once(this.stub, 'exit')
    this.stub.stdin!.end()
    await ended
  }

  async down(): Promise<void> {
    for (const client of this.clients) client.close()
    await this.lab.down()
  }
}
