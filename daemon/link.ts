// What the kernel is told about the TUN device: its addresses, routes, settings and firewall table, and how all of it is undone.
//
// - self, DNS and served addresses are local addresses of the device (/32, /128);
// - dialled and peer prefixes are routed into it, with the self address as the source programs get;
// - the overlay's pools are blackholes of a worse metric, so that nothing leaves in clear when the device vanishes;
// - route_localnet lets packets that the daemon writes reach servers on 127.0.0.1, and their answers come back out of the device.

import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { CommandError, runCommand, type CommandRunner } from './command.js'
import { CaracalError, messageOf } from './errors.js'
import { findConflicts, parseRoutes, type PoolConflict, type RouteEntry } from './link-conflicts.js'
import { firewallRules, firewallTable, inputObstacles } from './link-firewall.js'

export interface LinkOptions {
  /** Name of the device. */
  readonly tun: string
  readonly mtu: number
  /** Packets (or super-packets) that wait for the daemon. Default 1,000. */
  readonly queueLength?: number
  /** The self address of each family. */
  readonly self: readonly string[]
  /** Further local addresses from the start: DNS server, served addresses. */
  readonly local: readonly string[]
  /** Prefixes routed into the device: dialled and peer. */
  readonly routes: readonly string[]
  /** Everything the overlay owns, both families: blackholed and kept from connection tracking. */
  readonly pools: readonly string[]
}

/** What could not be had; the overlay works without, as far as stated. */
export interface LinkReport {
  readonly ipv6: boolean
  /** The nftables table is there. */
  readonly firewall: boolean
  /** Sentences for the log and `doctor`. */
  readonly warnings: readonly string[]
}

const linkShape = z.array(
  z.looseObject({
    flags: z.array(z.string()).optional(),
    linkinfo: z
      .looseObject({
        info_kind: z.string().optional(),
        info_data: z.looseObject({ persist: z.boolean().optional() }).optional(),
      })
      .optional(),
  }),
)

const addressesShape = z.array(
  z.looseObject({ addr_info: z.array(z.looseObject({ local: z.string().optional() })).optional() }),
)

/** Addresses in the output of `ip -j address show`, as we write them. */
function localAddresses(json: string): string[] {
  return addressesShape
    .parse(JSON.parse(json.trim() || '[]'))
    .flatMap((link) => link.addr_info ?? [])
    .flatMap(({ local }) => local ?? [])
}

/** Metric of our blackhole routes: worse than anybody's, and a mark by which a later daemon with the same device finds them. */
export function blackholeMetric(tun: string): number {
  let hash = 0x811c9dc5
  for (const char of tun) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193)
  return 0x7ca00000 + ((hash >>> 0) & 0xfffff)
}

function isV6(text: string): boolean {
  return text.includes(':')
}

function checkAddress(text: string): string {
  if (!ipaddr.isValid(text) || text.includes('%')) throw new RangeError(`not an IP address: ${text}`)
  return text
}

function checkPrefix(text: string): string {
  if (!ipaddr.isValidCIDR(text)) throw new RangeError(`not a prefix: ${text}`)
  return text
}

/** The link settings of one TUN device. Calls are carried out one after another; the device itself is opened and closed by its owner. */
export class LinkSetup {
  readonly #options: LinkOptions
  readonly #run: CommandRunner
  readonly #metric: number
  readonly #local = new Set<string>()
  #queue: Promise<unknown> = Promise.resolve()
  #ipv6: boolean

  /** Throws RangeError for what is no name, address or prefix. `run` replaces the system's programs in tests. */
  constructor(options: LinkOptions, run: CommandRunner = runCommand) {
    if (!/^[A-Za-z0-9_.-]{1,15}$/.test(options.tun)) throw new RangeError(`not a device name: ${options.tun}`)
    for (const address of [...options.self, ...options.local]) checkAddress(address)
    for (const prefix of [...options.routes, ...options.pools]) checkPrefix(prefix)
    this.#options = options
    this.#run = run
    this.#metric = blackholeMetric(options.tun)
    this.#ipv6 = existsSync('/proc/sys/net/ipv6/conf')
  }

  /** Takes back everything of a device that nobody wants any more. Throws RangeError for what is no name of one. */
  static remove(tun: string): Promise<void> {
    return new LinkSetup({ tun, mtu: 1280, self: [], local: [], routes: [], pools: [] }).teardown()
  }

  /**
   * Removes what a killed daemon with the same device left and {@link setup} does not replace in its place: a persistent device that nobody holds, blackhole routes of other pools. Those of ours stay, so that
   * nothing leaves in clear meanwhile. Before the device is opened. Throws CARACAL_E_TUN when the name is a living daemon's device, or no TUN at all.
   */
  cleanStale(): Promise<void> {
    return this.#inTurn(async () => {
      const { tun } = this.#options
      const link = await this.#device()
      if (link !== undefined) {
        if (link.linkinfo?.info_kind !== 'tun') {
          throw new CaracalError(
            'CARACAL_E_TUN',
            `${tun} is a network device of another kind`,
            'choose a name with --tun',
          )
        }
        const held = link.linkinfo.info_data?.persist !== true || (link.flags ?? []).includes('LOWER_UP')
        if (held) {
          throw new CaracalError(
            'CARACAL_E_TUN',
            `the TUN device ${tun} belongs to a running process`,
            'stop that daemon (caracal down), or choose another name with --tun',
          )
        }
        await this.#ip(`link delete dev ${tun}`)
      }
      await this.#removeBlackholes(new Set(this.#pools()))
    })
  }

  /** Addresses and routes of this host that lie in our pools. None of them is ours, if {@link cleanStale} came first. */
  conflicts(): Promise<PoolConflict[]> {
    return this.#inTurn(async () => {
      const addresses = await this.#query(['-j', 'address', 'show'])
      const routes = [await this.#query(['-j', '-4', 'route', 'show', 'table', 'all'])]
      if (this.#ipv6) routes.push(await this.#query(['-j', '-6', 'route', 'show', 'table', 'all']))
      const { tun, pools } = this.#options
      return findConflicts(pools, addresses, routes, { device: tun, route: (route) => this.#isOurBlackhole(route) })
    })
  }

  /** Sets everything up on the open device. On failure (CARACAL_E_TUN) what was done is undone. */
  setup(): Promise<LinkReport> {
    return this.#inTurn(async () => {
      try {
        return await this.#setAll()
      } catch (error) {
        await this.#undo()
        throw error
      }
    })
  }

  /** The device is one that was set up before, and in use: adds what is missing, and takes nothing away in between. On failure (CARACAL_E_TUN) all of it stays. */
  adopt(): Promise<LinkReport> {
    return this.#inTurn(async () => {
      this.#local.clear()
      for (const address of localAddresses(await this.#query(['-j', 'address', 'show', 'dev', this.#options.tun])))
        this.#local.add(address)
      await this.#removeBlackholes(new Set(this.#pools()))
      return this.#setAll()
    })
  }

  /** Commands that take everything back, for who does it in the place of this process. */
  removal(): readonly (readonly string[])[] {
    const { tun } = this.#options
    return [
      ['ip', 'link', 'delete', 'dev', tun],
      ...this.#pools().map((pool) => [
        ...['ip', isV6(pool) ? '-6' : '-4', 'route', 'delete', 'blackhole', pool],
        ...['metric', String(this.#metric)],
      ]),
      ['nft', 'delete', 'table', 'inet', firewallTable(tun)],
    ]
  }

  /** What is so already stays as it is. */
  async #setAll(): Promise<LinkReport> {
    const warnings: string[] = []
    const firewall = await this.#setFirewall(warnings)
    // First what keeps packets in, then what brings them here.
    await this.#ip(...this.#pools().map((pool) => `route replace blackhole ${pool} metric ${this.#metric}`))
    await this.#setSysctls(warnings)
    const { tun, mtu, queueLength } = this.#options
    // Without link-local addresses the kernel stays silent on the device (no router solicitations, no MLD).
    if (this.#ipv6) await this.#ip(`link set dev ${tun} addrgenmode none`)
    await this.#ip(`link set dev ${tun} mtu ${mtu} txqueuelen ${queueLength ?? 1000} up`)
    const self = this.#ours(this.#options.self)
    const local = [...self, ...this.#ours(this.#options.local)]
    const missing = local.filter((address) => !this.#local.has(address))
    await this.#ip(...missing.map((address) => this.#addAddress(address)), ...this.#routeLines(self))
    for (const address of missing) this.#local.add(address)
    return { ipv6: this.#ipv6, firewall, warnings }
  }

  /** Makes addresses local to this host (served ones, of services with an instance here). Those that are so already are left alone. */
  addLocal(addresses: readonly string[]): Promise<void> {
    const wanted = addresses.map(checkAddress)
    return this.#inTurn(async () => {
      const fresh = this.#ours(wanted).filter((address) => !this.#local.has(address))
      await this.#ip(...fresh.map((address) => this.#addAddress(address)))
      for (const address of fresh) this.#local.add(address)
    })
  }

  /** The reverse of {@link addLocal}. */
  removeLocal(addresses: readonly string[]): Promise<void> {
    const unwanted = addresses.map(checkAddress)
    return this.#inTurn(async () => {
      const gone = unwanted.filter((address) => this.#local.has(address))
      for (const address of gone) this.#local.delete(address)
      await this.#ip(...gone.map((address) => `address delete ${this.#host(address)} dev ${this.#options.tun}`))
    })
  }

  /**
   * Chains of other firewall tables that drop incoming packets by default, as `FAMILY TABLE CHAIN`: they need a rule that accepts what comes in by our
   * device. Empty also where nft is not there.
   */
  firewallObstacles(): Promise<string[]> {
    return this.#inTurn(async () => {
      try {
        return inputObstacles(await this.#run('nft', ['-j', 'list', 'chains']), this.#options.tun)
      } catch (error) {
        if (error instanceof CommandError) return []
        throw error
      }
    })
  }

  /** Takes everything back, the device included; never throws for what is gone already. The device's descriptor may be closed before or after. */
  teardown(): Promise<void> {
    return this.#inTurn(() => this.#undo())
  }

  async #undo(): Promise<void> {
    this.#local.clear()
    const link = await this.#device()
    if (link?.linkinfo?.info_kind === 'tun') await this.#attempt(`link delete dev ${this.#options.tun}`)
    await this.#removeTraces()
  }

  /** Blackholes with our mark, but for those of these pools. */
  async #removeBlackholes(staying: ReadonlySet<string>): Promise<void> {
    for (const family of this.#ipv6 ? ['-4', '-6'] : ['-4']) {
      const routes = parseRoutes(await this.#query(['-j', family, 'route', 'show', 'type', 'blackhole']))
      for (const { dst } of routes.filter((route) => this.#isOurBlackhole(route) && !staying.has(route.dst))) {
        await this.#attempt(`route delete blackhole ${dst} metric ${this.#metric}`)
      }
    }
  }

  /** Blackholes with our mark and the firewall table. */
  async #removeTraces(): Promise<void> {
    await this.#removeBlackholes(new Set())
    const table = `table inet ${firewallTable(this.#options.tun)}`
    try {
      // Made first, so that deleting it cannot fail.
      await this.#run('nft', ['-f', '-'], `${table}\ndelete ${table}\n`)
    } catch (error) {
      if (!(error instanceof CommandError)) throw error
    }
  }

  async #setFirewall(warnings: string[]): Promise<boolean> {
    const pools = this.#pools()
    const plan = {
      tun: this.#options.tun,
      pools4: pools.filter((pool) => !isV6(pool)),
      pools6: pools.filter(isV6),
    }
    try {
      await this.#run('nft', ['-f', '-'], firewallRules(plan))
      return true
    } catch (error) {
      if (!(error instanceof CommandError)) throw error
      warnings.push(
        `no firewall table of our own (${messageOf(error)}): overlay traffic is tracked as other traffic is`,
      )
      return false
    }
  }

  async #setSysctls(warnings: string[]): Promise<void> {
    const { tun } = this.#options
    const all = await readFile('/proc/sys/net/ipv4/conf/all/rp_filter', 'utf8').catch(() => '0')
    const settings: [path: string, value: string][] = [
      [`ipv4/conf/${tun}/route_localnet`, '1'],
      // The larger of this and the setting for all devices holds: loose where the host is strict, else off.
      [`ipv4/conf/${tun}/rp_filter`, all.trim() === '1' ? '2' : '0'],
      [`ipv4/conf/${tun}/accept_local`, '0'],
      [`ipv4/conf/${tun}/accept_redirects`, '0'],
      [`ipv4/conf/${tun}/send_redirects`, '0'],
    ]
    if (this.#ipv6) {
      settings.push(
        [`ipv6/conf/${tun}/disable_ipv6`, '0'],
        [`ipv6/conf/${tun}/accept_dad`, '0'],
        [`ipv6/conf/${tun}/dad_transmits`, '0'],
        [`ipv6/conf/${tun}/accept_ra`, '0'],
        [`ipv6/conf/${tun}/autoconf`, '0'],
        [`ipv6/conf/${tun}/accept_redirects`, '0'],
        [`ipv6/conf/${tun}/router_solicitations`, '0'],
      )
    }
    for (const [path, value] of settings) {
      const file = `/proc/sys/net/${path}`
      try {
        if ((await readFile(file, 'utf8')).trim() !== value) await writeFile(file, value)
      } catch (error) {
        warnings.push(`cannot set ${path.replaceAll('/', '.')} to ${value} (${messageOf(error)})`)
      }
    }
  }

  #addAddress(address: string): string {
    // The kernel need not look for doubles: nobody else is on the device. Its own /32 and /128 routes are enough.
    const flags = isV6(address) ? ' nodad noprefixroute' : ''
    return `address replace ${this.#host(address)} dev ${this.#options.tun}${flags}`
  }

  #routeLines(self: readonly string[]): string[] {
    return this.#ours(this.#options.routes).map((prefix) => {
      const source = self.find((address) => isV6(address) === isV6(prefix))
      return `route replace ${prefix} dev ${this.#options.tun}${source === undefined ? '' : ` src ${source}`}`
    })
  }

  #host(address: string): string {
    return isV6(address) ? `${address}/128` : `${address}/32`
  }

  #pools(): string[] {
    return this.#ours(this.#options.pools)
  }

  /** Those of the families that this kernel has. */
  #ours(list: readonly string[]): string[] {
    return list.filter((text) => this.#ipv6 || !isV6(text))
  }

  #isOurBlackhole(route: RouteEntry): boolean {
    return route.type === 'blackhole' && route.metric === this.#metric
  }

  /** The device as the kernel describes it; undefined: there is none. */
  async #device(): Promise<z.infer<typeof linkShape>[number] | undefined> {
    try {
      const json = await this.#run('ip', ['-j', '-d', 'link', 'show', 'dev', this.#options.tun])
      return linkShape.parse(JSON.parse(json.trim() || '[]'))[0]
    } catch (error) {
      if (error instanceof CommandError && error.status === 1) return undefined
      throw this.#failure(error)
    }
  }

  async #query(args: readonly string[]): Promise<string> {
    try {
      return await this.#run('ip', args)
    } catch (error) {
      throw this.#failure(error)
    }
  }

  /** Lines of one `ip -batch`. */
  async #ip(...lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return
    try {
      await this.#run('ip', ['-batch', '-'], lines.join('\n') + '\n')
    } catch (error) {
      throw this.#failure(error, lines)
    }
  }

  /** As #ip, for undoing: what is gone already is as wanted. */
  async #attempt(line: string): Promise<void> {
    try {
      await this.#run('ip', ['-batch', '-'], `${line}\n`)
    } catch (error) {
      if (!(error instanceof CommandError)) throw error
    }
  }

  #failure(error: unknown, lines: readonly string[] = []): unknown {
    if (!(error instanceof CommandError)) return error
    if (error.missing) {
      return new CaracalError('CARACAL_E_TUN', 'the program ip is not installed', 'type: sudo apt-get install iproute2')
    }
    // "Command failed -:3" names the line.
    const number = /Command failed -:(\d+)/.exec(error.complaint)?.[1]
    const line = number === undefined ? lines[0] : lines[Number(number) - 1]
    const reason = error.complaint.replace(/;? ?Command failed -:\d+/, '')
    const what = line === undefined ? `cannot set up ${this.#options.tun}` : `ip ${line}`
    return new CaracalError('CARACAL_E_TUN', `${what}: ${reason}`, undefined, { cause: error })
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work)
    this.#queue = result.catch(() => undefined)
    return result
  }
}
