// Daemons without a kernel: identity, host, packet loop and what else the daemon wires together, over devices in memory and folders that the test removes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { Admission } from '../../../daemon/admission.js'
import type { ExposeRequest } from '../../../daemon/control/protocol.js'
import { FakeNetwork, FakeTun } from '../../../daemon/fake-devices.js'
import { openIdentity, type Identity } from '../../../daemon/identity.js'
import { Instances } from '../../../daemon/instances.js'
import { noLog } from '../../../daemon/log.js'
import { Names } from '../../../daemon/names.js'
import { DeviceIo, monotonicNow, PacketLoop } from '../../../daemon/packet-loop.js'
import { StateDirectory } from '../../../daemon/state-files.js'
import { Underlay } from '../../../daemon/underlay.js'
import type { Viewed } from '../../../daemon/views.js'
import type { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem } from '../../../lib/crypto/membership.js'
import { IPV4_POOL, ZONE } from '../../../lib/crypto/network-profile.js'
import { PortableCodec, portableAeads } from '../../../lib/crypto/portable-codec.js'
import { parseToken, type InviteToken } from '../../../lib/crypto/token.js'
import { TrustStore } from '../../../lib/crypto/trust.js'
import { FlowMemory } from '../../../lib/flow/flow-memory.js'
import { Host } from '../../../lib/host/host.js'
import type { Locator } from '../../../lib/path/locator.js'
import { parseServiceName, serviceIdOf } from '../../../lib/service/service-id.js'
import type { Joined } from '../../../lib/session/join-client.js'
import type { JoinGrant, JoinRefusal, JoinRequest } from '../../../lib/session/join-payload.js'
import type { ServiceId } from '../../../lib/wire/ids.js'
import { sodium as primitives } from '../../tools/sodium.js'
import { table } from './socket-tables.js'

export { primitives }
const FLOWS = 256
const PEERS = 64
const PATIENCE_MS = 10_000

export const wallNow = (): number => Date.now() / 1000

/** A folder of the test's own. */
export function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-rig-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export async function stateIn(t: Test, path: string): Promise<StateDirectory> {
  const state = await StateDirectory.open(path)
  t.teardown(() => state.close())
  return state
}

/** The underlay that hosts of a test share. */
export class RigNetwork {
  readonly wire = new FakeNetwork()
  readonly rigs: Rig[] = []

  constructor(readonly t: Test) {}

  /** The first host: it creates the network. */
  async create(name = 'h1'): Promise<Rig> {
    const files = await stateIn(this.t, join(folder(this.t), 'state'))
    const wish = { name, create: 'home', join: undefined, pool: IPV4_POOL, zone: ZONE }
    const join_ = () => Promise.reject(new Error('nothing to join'))
    const identity = await openIdentity(wish, { state: files, primitives, wallNow, join: join_ })
    await files.release()
    return this.#rig(files, identity)
  }

  /** One more host, let in by `issuer`. */
  async join(issuer: Rig, name: string, tags: readonly string[] = []): Promise<Rig> {
    const files = await stateIn(this.t, join(folder(this.t), 'state'))
    const text = await issuer.admission.invite({ tags, uses: 1, expiresAt: wallNow() + 600 }, wallNow())
    const wish = { name, create: undefined, join: text, pool: IPV4_POOL, zone: ZONE }
    const ask = (key: HostKey, token: InviteToken) => Promise.resolve(admitted(issuer, key, token, name))
    return this.#rig(files, await openIdentity(wish, { state: files, primitives, wallNow, join: ask }))
  }

  #rig(files: StateDirectory, identity: Identity): Rig {
    const locator = { address: `192.0.2.${this.rigs.length + 1}`, port: 7474 }
    const rig = new Rig(this, files, identity, locator)
    this.rigs.push(rig)
    return rig
  }

  /** Lets packets travel until it holds. */
  async until(condition: () => boolean): Promise<void> {
    for (const end = monotonicNow() + PATIENCE_MS; !condition();) {
      if (monotonicNow() > end) throw new Error('it did not come about')
      this.wire.deliver()
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }

  /** Each host knows where the first one is and has a session with it. */
  async connect(): Promise<void> {
    const [first, ...others] = this.rigs
    if (first === undefined) return
    for (const other of others) {
      other.host.neighbours.hint(first.host.id, first.locator, monotonicNow())
      other.loop.wake()
    }
    const up = (a: Rig, b: Rig) => (a.host.peers.sealSlot[a.host.peers.indexOf(b.host.id)] ?? -1) >= 0
    const known = (a: Rig, b: Rig) => a.host.directory.record(b.host.id, 'locators') !== undefined
    await this.until(() => others.every((o) => up(first, o) && up(o, first) && known(o, first) && known(first, o)))
  }
}

/** What a daemon consists of, and `viewed` as the control socket sees it. */
export class Rig {
  readonly tun = new FakeTun('caracal0')
  readonly host: Host
  readonly instances: Instances
  readonly admission: Admission
  readonly underlay: Underlay
  readonly io: DeviceIo
  readonly names: Names
  readonly loop: PacketLoop
  /** Such as `up h2`. */
  readonly events: string[] = []
  readonly failures: unknown[] = []
  /** Folder of this host's socket tables. */
  readonly sockets: string
  /** Where others reach it; empty: nowhere. */
  locators: Locator[]

  constructor(
    network: RigNetwork,
    readonly files: StateDirectory,
    readonly identity: Identity,
    readonly locator: Locator,
  ) {
    const { t } = network
    const { hostKey, trust } = identity
    this.locators = [locator]
    this.sockets = folder(t)
    this.underlay = new Underlay([network.wire.open(locator)])
    const io = (this.io = new DeviceIo())
    io.underlay = this.underlay
    io.tun = this.tun
    let stamp = BigInt(Date.now()) * 1000n
    let sequence = 0
    this.instances = new Instances({
      state: files,
      served: (service, family) => this.host.addresses.served(service, family),
      changed: ({ request, health }) => this.events.push(`${request.name} ${health}`),
      now: monotonicNow,
      listenersFrom: this.sockets,
    })
    this.host = new Host(
      {
        primitives,
        codec: new PortableCodec(portableAeads(primitives)),
        hostKey,
        trust,
        io,
        events: {
          mappingChanged: () => undefined,
          localAddressesChanged: () => undefined,
          peer: (id, what) => this.events.push(`${what} ${this.names.showHost(id)}`),
          revocationsChanged: () => undefined,
          namesRuled: () => undefined,
          claimsChanged: () => undefined,
          renewed: () => undefined,
          renewalFailed: () => undefined,
          expelled: () => undefined,
          dropped: () => undefined,
          remember: () => undefined,
        },
        endpoints: this.instances,
        flowMemory: new ArrayBuffer(FlowMemory.bytesFor(FLOWS, PEERS)),
        wallNow,
        random: Math.random,
        nextStamp: () => ++stamp,
        sequence: {
          next: () => ++sequence,
          raise: (above) => void (sequence = Math.max(sequence, above)),
        },
      },
      { flowCapacity: FLOWS, peerCapacity: PEERS },
    )
    this.names = new Names(this.host)
    this.admission = new Admission({
      identity,
      primitives,
      files,
      locators: () => this.locators,
      hosts: () => this.host,
      log: noLog,
    })
    this.loop = new PacketLoop({
      host: this.host,
      tun: this.tun,
      underlay: this.underlay,
      fault: (error) => this.failures.push(error),
      failed: (error) => this.failures.push(error),
    })
    t.teardown(() => {
      this.loop.stop()
      if (this.failures.length > 0) throw new Error('the packet loop has failed', { cause: this.failures[0] })
    })
    this.loop.start()
    this.host.setLocators(this.locators, monotonicNow())
    this.loop.wake()
  }

  service(name: string): ServiceId {
    const parsed = parseServiceName(name)
    if ('problem' in parsed) throw new Error(parsed.problem)
    return serviceIdOf(parsed, this.identity.trust.network, primitives)
  }

  /** What listens on this host from now on: lines of one kernel table. */
  listening(name: 'tcp' | 'tcp6' | 'udp' | 'udp6', ...rows: readonly string[]): void {
    writeFileSync(join(this.sockets, name), table(...rows))
  }

  /** As `caracal expose`. */
  async expose(request: ExposeRequest): Promise<ServiceId> {
    const service = this.service(request.name)
    const { health } = await this.instances.add(service, request, false)
    const ports = request.ports.map(({ protocol, port, local }) => ({ protocol, port, localPort: local }))
    const { name, priority, weight, move } = request
    this.host.offer({ service, name, priority, weight, move, ports, state: health }, monotonicNow())
    this.loop.wake()
    return service
  }

  get viewed(): Viewed {
    const { host, identity, names, instances, admission, underlay, io, tun, locators } = this
    return {
      ...{ host, identity, names, instances, admission, underlay, io, tun, locators },
      state: 'ready',
      startedAt: monotonicNow() - 1_000,
      config: { dns: { kind: 'none' }, aead: { offer: ['chacha20-poly1305'], implementation: 'openssl' } },
      aeads: ['chacha20-poly1305'],
      lanes: {
        ...{ count: 0, ports: [], framesOut: 0, bytesOut: 0, framesFailed: 0 },
        ...{ packetsNotWritten: 0, packetsNotSealed: 0, datagramsLost: 0 },
      },
      linkReport: { ipv6: true, firewall: true, warnings: [] },
      keeping: { summary: { on: true, pid: 7, descriptors: 3, takeovers: 2 } },
      resolver: { description: 'names are not wired in' },
      log: noLog,
      loopDelay: { read: () => ({ p50Ms: 0.5, p99Ms: 2, maxMs: 3 }) },
    }
  }
}

/** What a host that comes with the token asks. */
export function requestOf(issuer: Rig, token: InviteToken, host: HostKey, name: string): JoinRequest {
  return {
    network: issuer.identity.trust.network,
    issuer: issuer.host.id,
    tokenId: token.tokenId,
    host: host.id,
    name,
    tags: [],
    wallNow: wallNow(),
  }
}

/** The issuer's answer, the token having been found. */
export function ask(issuer: Rig, token: InviteToken, host: HostKey, name: string): JoinGrant | JoinRefusal | string {
  const found = issuer.admission.find(token.tokenId, host.id, wallNow())
  return typeof found === 'string'
    ? found
    : issuer.admission.admit(requestOf(issuer, token, host, name), found, wallNow())
}

export function tokenOf(text: string): InviteToken {
  const token = parseToken(primitives, text, wallNow())
  if ('problem' in token) throw new Error(token.detail)
  return token
}

function admitted(issuer: Rig, host: HostKey, token: InviteToken, name: string): Joined {
  const answer = ask(issuer, token, host, name)
  if (typeof answer === 'string' || 'refusal' in answer) throw new Error(`refused: ${JSON.stringify(answer)}`)
  const profile = answer.profile ?? token.profile
  const store = new TrustStore(primitives, { authority: token.authority, profile })
  const membership = store.verify(answer.membership, wallNow())
  if (isMembershipProblem(membership)) throw new Error(membership.detail)
  return { membership, profile, locators: answer.locators, issuerWallNow: wallNow() }
}
