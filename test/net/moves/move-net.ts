import { spawnSync } from 'node:child_process'
import { enter, labEnvironment } from '../../../cli/lab/holder.js'
import { Lab, type LabOptions } from '../../../cli/lab/lab.js'
import { ControlClient } from '../../../daemon/control/client.js'
import type { PathInfo } from '../../../daemon/control/shapes.js'
import { EmulatedLink, type LinkOptions } from '../emulator/link.js'
import { AskedProgram, monotonicNow } from './asked-program.js'

export interface MoveNetOptions extends Pick<LabOptions, 'directory' | 'progress' | 'upArguments'> {
  readonly hosts: readonly string[]
  /** Each host has so many network interfaces, eth0 and eth1, each in a network of its own: 1 or 2. */
  readonly networks: 1 | 2
  /** The links from the hosts to the router are emulated, with these settings. */
  readonly link?: LinkOptions
  /** Of the underlay; default 4. */
  readonly family?: 4 | 6
  /** The router masquerades the first host. IPv4. */
  readonly nat?: boolean
}

/** When a change of the network was asked for, and when the kernel had made it; see {@link monotonicNow}. */
export interface Changed {
  readonly asked: number
  readonly made: number
}

/** Addresses of a host on one network that are used one after the other. */
const HALF = 120
/** No port of the daemons. */
const NAT_PORTS = '20000-60000'
const ADDRESS_COMMANDS_ACKNOWLEDGED = 'link show dev lo'

/**
 * Hosts of a lab that a router joins, whose addresses and links can be changed at a known moment. Network n of the router is 10.(80+n).0.0/16, or fd8n::/16, host h has 10.(80+n).h.0/24
 * or fd8n::h:0:0/96 of it in two halves, so that an address that goes takes no other one with it:
 *
 *     h1 eth0 ── r0h1 ┐        ┌ r0h2 ── eth0 h2
 *        eth1 ── r1h1 ┴ router ┴ r1h2 ── eth1
 */
export class MoveNet {
  readonly #batches = new Map<string, AskedProgram>()
  readonly #clients = new Map<string, ControlClient>()
  /** Number of the address that the host has now, by host and network. */
  readonly #numbers = new Map<string, number>()
  readonly #silent = new Set<number>()
  readonly #links: EmulatedLink[] = []
  #lab: Lab | undefined

  private constructor(private readonly options: MoveNetOptions) {}

  static async up(options: MoveNetOptions): Promise<MoveNet> {
    const net = new MoveNet(options)
    const { hosts, directory, progress, upArguments } = options
    try {
      // The last one invites the others: the first may be where nobody reaches it unasked.
      await Lab.up(hosts.toReversed(), {
        directory,
        ...(progress === undefined ? {} : { progress }),
        ...(upArguments === undefined ? {} : { upArguments }),
        join: (lab) => net.#join(lab),
      })
      return net
    } catch (error) {
      await net.close()
      throw error
    }
  }

  get lab(): Lab {
    if (this.#lab === undefined) throw new Error('the lab is not up')
    return this.#lab
  }
  get hosts(): readonly string[] {
    return this.options.hosts
  }

  async close(): Promise<void> {
    for (const client of this.#clients.values()) client.close()
    await Promise.all([...this.#batches.values()].map((batch) => batch.close()))
    await this.#lab?.down()
    await Promise.all(this.#links.map((link) => link.close()))
  }

  /** The host's address on the network, or what it is to be after so many changes of it. */
  address(host: string, network = 0, ahead = 0): string {
    return addressOf(this.#family, this.#index(host), network, this.#number(host, network) + ahead)
  }

  /** `ip` commands that give the host its next address there, with the routes by it; without making it the host's current one. */
  adding(host: string, network = 0): string[] {
    const next = this.address(host, network, 1)
    return [`address add ${this.#given(next)} dev eth${network}`, ...this.routing(host, network, 1)]
  }

  /** `ip` commands that make the host send by the gateway of that address. */
  routing(host: string, network = 0, ahead = 0): string[] {
    return [`route replace ${this.#route(host, network, ahead)}`]
  }

  /** `ip` commands that undo that. */
  unrouting(host: string, network = 0): string[] {
    return [`route del ${this.#route(host, network, 0)}`]
  }

  /** `ip` commands that take the host's current address there away. */
  removing(host: string, network = 0): string[] {
    return [`address del ${this.#withLength(this.address(host, network))} dev eth${network}`]
  }

  /** The host's next address is its current one from now on. */
  advance(host: string, network = 0): void {
    this.#numbers.set(`${host} ${network}`, this.#number(host, network) + 1)
  }

  /** Runs `ip` commands on a host, or on the router, in a process that is there already. */
  async ip(where: string | undefined, commands: readonly string[]): Promise<Changed> {
    const batch = await this.#batch(where)
    const asked = monotonicNow()
    await batch.ask([...commands, ADDRESS_COMMANDS_ACKNOWLEDGED].join('\n'))
    return { asked, made: monotonicNow() }
  }

  /** Runs a program in the router's namespaces; its stdout. Throws when it fails. */
  onRouter(...words: string[]): string {
    const [command = '', ...rest] = [...enter(this.lab.switchHolder), ...words]
    const result = spawnSync(command, rest, { env: labEnvironment(), encoding: 'utf8' })
    if (result.status !== 0) throw new Error(`${words.join(' ')}: ${result.stderr}${result.error?.message ?? ''}`)
    return result.stdout
  }

  /** The networks that {@link silence} is in force on. */
  get silent(): readonly number[] {
    return [...this.#silent]
  }

  /** All packets of the network are lost at the router, without any host's being told. */
  silence(network: number): Promise<Changed> {
    this.#silent.add(network)
    return this.ip(
      undefined,
      this.hosts.map((_, i) => `rule add pref ${10 + i} iif ${routerDevice(i, network)} blackhole`),
    )
  }

  /** Ends {@link silence}. */
  mend(network: number): Promise<Changed> {
    this.#silent.delete(network)
    return this.ip(
      undefined,
      this.hosts.map((_, i) => `rule del pref ${10 + i} iif ${routerDevice(i, network)} blackhole`),
    )
  }

  /** Round trip of the bare network between the first two hosts, ms. */
  roundTrip(): number {
    const [a = '', b = ''] = this.hosts
    const printed = this.lab.script(a, `ping -q -i 0.02 -c 20 ${this.address(b)}`)
    const average = /= [\d.]+\/([\d.]+)\//.exec(printed)?.[1]
    if (average === undefined) throw new Error(`ping said ${printed}`)
    return Number(average)
  }

  /** A connection to the host's daemon, kept as long as that lives. */
  async control(host: string): Promise<ControlClient> {
    const open = this.#clients.get(host)
    if (open !== undefined) return open
    const client = await ControlClient.connect(this.lab.path(host, 'control.sock'))
    this.#clients.set(host, client)
    void client.closed.then(() => {
      if (this.#clients.get(host) === client) this.#clients.delete(host)
    })
    return client
  }

  /** The host's paths to another one. */
  async paths(host: string, other: string): Promise<PathInfo[]> {
    const { paths } = await (await this.control(host)).call('paths', {})
    return paths.filter((path) => path.host === other)
  }

  /** Where the host's frames to the other one go now, `address:port`. */
  async inUse(host: string, other: string): Promise<string | undefined> {
    return (await this.paths(host, other)).find(({ inUse }) => inUse)?.remote
  }

  /** Exposes a service on a host; resolves with its domain name when the first host knows of it. */
  async serve(
    name: string,
    host: string,
    ports: readonly { readonly protocol: 'tcp' | 'udp'; readonly port: number }[],
  ): Promise<string> {
    const server = await this.control(host)
    const wanted = ports.map(({ protocol, port }) => ({ protocol, port, local: port }))
    const { domain } = await server.call('expose', { name, ports: wanted })
    const client = await this.control(this.hosts[0]!)
    const known = await this.within(15_000, async () => {
      const { services } = await client.call('services', {})
      const instances = services.filter((service) => service.name === name).flatMap((service) => service.instances)
      return instances.some((instance) => instance.host === host && instance.state === 'up')
    })
    if (!known) throw new Error(`${this.hosts[0]} does not learn of ${name} on ${host}`)
    return domain
  }

  /** Waits for a condition; false: it did not come true in time. */
  async within(limitMs: number, condition: () => boolean | Promise<boolean>, everyMs = 20): Promise<boolean> {
    for (const deadline = monotonicNow() + limitMs; !(await condition());) {
      if (monotonicNow() > deadline) return false
      await new Promise((resolve) => setTimeout(resolve, everyMs))
    }
    return true
  }

  #route(host: string, network: number, ahead: number): string {
    const gateway = gatewayOf(this.#family, this.#index(host), network, this.#number(host, network) + ahead)
    const far = this.#family === 4 ? `10.${80 + network}.0.0/16` : `fd8${network}::/16`
    return `${network === 0 ? 'default' : far} via ${gateway} dev eth${network}`
  }

  get #family(): 4 | 6 {
    return this.options.family ?? 4
  }

  #withLength(address: string): string {
    return `${address}/${this.#family === 4 ? 25 : 112}`
  }

  /** An address that is of use at once. */
  #given(address: string): string {
    return `${this.#withLength(address)}${this.#family === 4 ? '' : ' nodad'}`
  }

  #index(host: string): number {
    const index = this.hosts.indexOf(host)
    if (index < 0) throw new RangeError(`no host ${host}`)
    return index
  }

  #number(host: string, network: number): number {
    return this.#numbers.get(`${host} ${network}`) ?? 0
  }

  async #batch(where: string | undefined): Promise<AskedProgram> {
    const key = where ?? ''
    const running = this.#batches.get(key)
    if (running !== undefined) return running
    const holder = where === undefined ? this.lab.switchHolder : this.lab.host(where).holder
    // One line for each command that shows something, as soon as it is run.
    const words = [...enter(holder), 'stdbuf', '-oL', 'ip', '-o', '-batch', '-']
    const batch = AskedProgram.start(`ip on ${where ?? 'the router'}`, words)
    this.#batches.set(key, batch)
    // From now on it does not need to be started.
    await batch.ask(ADDRESS_COMMANDS_ACKNOWLEDGED)
    return batch
  }

  async #join(lab: Lab): Promise<void> {
    this.#lab = lab
    const { networks, link, nat } = this.options
    this.onRouter('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
    for (const host of lab.hosts) {
      const i = this.#index(host.name)
      for (let network = 0; network < networks; network++) {
        const device = `eth${network}`
        const far = routerDevice(i, network)
        const own = [this.#given(this.address(host.name, network))]
        const gateways = [0, 1].map((number) => this.#given(gatewayOf(this.#family, i, network, number)))
        if (link === undefined) {
          this.onRouter('ip', 'link', 'add', far, 'type', 'veth', 'peer', 'name', device, 'netns', `${host.holder.pid}`)
          await this.ip(undefined, [...gateways.map((one) => `address add ${one} dev ${far}`), `link set ${far} up`])
          await this.ip(host.name, [...own.map((one) => `address add ${one} dev ${device}`), `link set ${device} up`])
        } else {
          const end = (holder: typeof host.holder, name: string, addresses: readonly string[]) => ({
            enter: enter(holder),
            netns: String(holder.pid),
            device: name,
            addresses,
          })
          const [a, b] = [end(host.holder, device, own), end(lab.switchHolder, far, gateways)]
          this.#links.push(await EmulatedLink.between(a, b, link))
        }
        await this.ip(host.name, this.routing(host.name, network))
      }
    }
    if (nat === true) this.#masquerade()
  }

  /** The first host is behind the router's address; what comes to it unasked is dropped. */
  #masquerade(): void {
    const inside = '10.80.1.0/24'
    this.onRouter(
      'nft',
      `add table ip nat
       add chain ip nat out { type nat hook postrouting priority srcnat ; }
       add rule ip nat out ip saddr ${inside} oifname != "${routerDevice(0, 0)}" meta l4proto udp masquerade to :${NAT_PORTS} fully-random
       add chain ip nat pass { type filter hook forward priority filter ; }
       add rule ip nat pass ip daddr ${inside} ct state new drop
       add chain ip nat in { type filter hook input priority filter ; }
       add rule ip nat in meta l4proto udp drop`.replace(/^ +/gm, ''),
    )
  }
}

function routerDevice(host: number, network: number): string {
  return `r${network}h${host + 1}`
}
function addressOf(family: 4 | 6, host: number, network: number, number: number): string {
  const [half, within] = [number % 2, 1 + (Math.floor(number / 2) % HALF)]
  return family === 4
    ? `10.${80 + network}.${host + 1}.${half * 128 + within}`
    : `fd8${network}::${host + 1}:${half}:${within.toString(16)}`
}
function gatewayOf(family: 4 | 6, host: number, network: number, number: number): string {
  const half = number % 2
  return family === 4 ? `10.${80 + network}.${host + 1}.${half * 128 + 126}` : `fd8${network}::${host + 1}:${half}:fe`
}
