// What of a daemon needs nothing that only one process can have: the host and what is around it, out of what the state directory says. A daemon that is to take over from another one has it put together when
// that one stops, and programs do not wait for it.

import { availableParallelism } from 'node:os'
import type { Primitives } from '../lib/crypto/primitives.js'
import { FlowMemory } from '../lib/flow/flow-memory.js'
import { Host } from '../lib/host/host.js'
import { PEER_CAPACITY, type HostEvents } from '../lib/host/host-options.js'
import { PeerTable } from '../lib/path/peers.js'
import { JoinIssuer } from '../lib/session/join-issuer.js'
import { Admission } from './admission.js'
import type { DaemonOptions } from './config.js'
import type { CounterFile } from './counter-file.js'
import type { Daemon, HandedCounters } from './daemon.js'
import { openIdentity, stateFile, type Identity, type IdentityComponents } from './identity.js'
import { Instances } from './instances.js'
import { FlowFile } from './keeper/flow-file.js'
import { Lanes, lanesFor } from './lanes/lanes.js'
import type { Log } from './log.js'
import type { NativeCodec } from './native-codec.js'
import { native } from './native.js'
import { linkMtu } from './own-locators.js'
import { DeviceIo, monotonicNow } from './packet-loop.js'
import { StateDirectory } from './state-files.js'
import { readClaims, readMappings } from './state-writes.js'
import { tableMemory } from './table-memory.js'
import { wallNow } from './wall-clock.js'

/** Longer than services take to be restored, the first probe of each included. */
const LOADING_MS = 10_000

/** What the host asks for only once it runs, and then it is there. */
export class Late {
  daemon: Daemon | undefined
  counters: Readonly<Record<keyof HandedCounters, CounterFile>> | undefined

  get running(): Daemon {
    return there(this.daemon)
  }
  get counting(): Readonly<Record<keyof HandedCounters, CounterFile>> {
    return there(this.counters)
  }
}

export interface Parts {
  readonly files: StateDirectory
  readonly identity: Identity
  readonly flowFile: FlowFile | undefined
  /** Not open yet. */
  readonly lanes: Lanes
  /** Without any device yet. */
  readonly io: DeviceIo
  readonly instances: Instances
  readonly admission: Admission
  /** Without its flows yet: {@link Host.takeFlows}. */
  readonly host: Host
  readonly late: Late
}

export interface PartsComponents {
  readonly options: DaemonOptions
  readonly log: Log
  readonly primitives: Primitives
  readonly codec: NativeCodec
  readonly files: StateDirectory
  readonly join: IdentityComponents['join']
  /** Memory of so many bytes for the flow table of that owner; undefined: it is to be this process's own. */
  readonly flowFile: (owner: string, bytes: number) => FlowFile | undefined
}

/** Throws CaracalErrors. */
export async function makeParts(components: PartsComponents): Promise<Parts> {
  const { options, log, primitives, codec, files, join } = components
  const { config } = options
  const wish = { name: config.name, create: options.create, join: options.join, pool: config.pool, zone: config.zone }
  const identity = await openIdentity(wish, { state: files, primitives, wallNow, join })
  const { trust, hostKey } = identity
  const [mappings, claims] = await Promise.all([readMappings(files), readClaims(files)])
  const io = new DeviceIo()
  const lanes = new Lanes({
    count: lanesFor(config.loop.lanes, availableParallelism()) - 1,
    sockets: config.offload,
    aead: config.aead,
    recordBytes: PeerTable.recordBytes(PEER_CAPACITY),
  })
  io.lanes = lanes
  const flowBytes = FlowMemory.bytesFor(config.limits.flows, PEER_CAPACITY)
  const flowFile = components.flowFile(`${trust.network} ${hostKey.id}`, flowBytes)
  const late = new Late()
  const events: HostEvents = {
    mappingChanged: () => late.daemon?.writes.mappings(),
    localAddressesChanged: () => late.daemon?.localAddressesChanged(),
    peer: (host, what, detail, move) => late.running.peerEvent(host, what, detail, move),
    revocationsChanged: () => void late.running.writes.trust(),
    namesRuled: () => void late.running.writes.trust(),
    claimsChanged: () => late.running.writes.claims(),
    renewed: (what) => late.running.renewed(what),
    renewalFailed: (detail) => log.warn({ detail }, "this host's membership could not be renewed; it is tried again"),
    expelled: (what, detail) => late.running.expelled(what, detail),
    dropped: (reason, packet) => late.daemon?.tap.dropped(reason, packet),
    remember: () => late.running.knownHosts.changed(),
  }
  const instances: Instances = new Instances({
    state: files,
    served: (service, family) => host.addresses.served(service, family),
    changed: (instance) => late.running.instanceChanged(instance),
    now: monotonicNow,
  })
  const admission = new Admission({
    identity,
    primitives,
    files,
    locators: () => late.daemon?.locators ?? [],
    hosts: () => late.running.host,
    log,
  })
  const issuer = new JoinIssuer({
    primitives,
    hostKey,
    network: trust.network,
    authority: admission,
    sendDatagram: (bytes, address) => io.underlay?.sendOne(bytes, address),
  })
  const host: Host = new Host(
    {
      primitives,
      codec,
      ...(lanes.count === 0 ? {} : { lanes: lanes.host }),
      hostKey,
      trust,
      io,
      events,
      endpoints: instances,
      flowMemory: flowFile?.memory ?? tableMemory(flowBytes),
      tableMemory,
      wallNow,
      random: Math.random,
      nextStamp: () => BigInt(late.counting.stamps.next()),
      sequence: {
        next: () => late.counting.sequences.next(),
        raise: (above) => late.counting.sequences.raise(above),
      },
      issuer,
      authority: identity.authority,
      pathMtu: (address) => linkMtu(native().routeMtu(address), config.tun.mtu),
      isRouted: (address) => native().routeMtu(address) >= 0,
    },
    {
      flowCapacity: config.limits.flows,
      restore: 'later',
      mappings,
      claims,
      loadingUntil: monotonicNow() + LOADING_MS,
    },
  )
  return { files, identity, flowFile, lanes, io, instances, admission, host, late }
}

/** As they will be if the daemon that has the state directory changes nothing in it any more; undefined: they can only be made when it is ours. */
export async function makePartsAhead(
  components: Omit<PartsComponents, 'files' | 'join' | 'flowFile'>,
): Promise<Parts | undefined> {
  const { config } = components.options
  if (!config.keeper.on) return undefined
  const join = () => Promise.reject(new Error('who is to join has nothing to take over'))
  const flowFile = (owner: string, bytes: number) => {
    const file = FlowFile.peek(owner, bytes)
    if (file === undefined) throw new Error('there are no flows to take over')
    return file
  }
  try {
    const parts = await makeParts({ ...components, files: StateDirectory.peek(config.state), join, flowFile })
    parts.host.flows.table.preview()
    return parts
  } catch {
    return undefined
  }
}

/** Whether they are as they would be if they were made now, when the state directory is ours. */
export async function areCurrent({ files, identity, flowFile }: Parts): Promise<boolean> {
  if (flowFile?.isThere !== true) return false
  const { changed } = files
  if (changed.some((name) => name !== stateFile.trust)) return false
  // It has the time of its last writing in it.
  return changed.length === 0 || (await files.read(stateFile.trust, (bytes) => identity.trust.followed(bytes))) === true
}

function there<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the host ran before its daemon was there')
  return part
}
