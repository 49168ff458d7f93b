// Puts a daemon together: on a device of its own, or on what a former daemon has left with its keeper.

import { availableParallelism } from 'node:os'
import { dnsAddress, formatAddress } from '../lib/service/address-plan.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import type { Config, DaemonOptions } from './config.js'
import { CounterFile } from './counter-file.js'
import { Daemon } from './daemon.js'
import { CaracalError } from './errors.js'
import { NativeExpress } from './express.js'
import { HeapCare, ownHeap } from './heap-care.js'
import { joinNetwork } from './joining.js'
import { FlowFile } from './keeper/flow-file.js'
import type { HandedOver } from './keeper/hand-over.js'
import { closeHeld } from './keeper/keeper-link.js'
import { findKeeper, rehearseKeeper } from './keeper/keeper-process.js'
import { deviceOf, keptOf, type Kept } from './keeper/keeping.js'
import { lanesFor } from './lanes/lanes.js'
import { LinkSetup } from './link.js'
import type { Log } from './log.js'
import { native, TunOffload } from './native.js'
import { codecAddon, NativeCodec } from './native-codec.js'
import { PacketLoop } from './packet-loop.js'
import { areCurrent, makeParts, makePartsAhead, type Parts } from './parts.js'
import type { Servers } from './servers.js'
import { StateDirectory } from './state-files.js'
import { StateLock } from './state-lock.js'
import { NativeTun } from './tun.js'
import { Underlay } from './underlay.js'
import type { Undo } from './undo.js'

/** A daemon that is put together, but not at work yet. */
export interface Built {
  readonly daemon: Daemon
  /** What it goes on with; undefined: its device is new. */
  readonly kept: Kept | undefined
  readonly flowFile: FlowFile | undefined
}

/** What was made before another daemon is asked to hand over, since it takes time. */
export interface Prepared {
  readonly codec: NativeCodec
  readonly ahead: Parts | undefined
}

/** With `options.replace` all is done that can be while another daemon has what is to be ours. */
export async function prepare(options: DaemonOptions, log: Log, primitives: Primitives): Promise<Prepared> {
  const { aead } = options.config
  const newCodec = () => new NativeCodec(codecAddon(), aead)
  const codec = newCodec()
  if (!options.replace) return { codec, ahead: undefined }
  await rehearsal(primitives, newCodec)
  const ahead = await makePartsAhead({ options, log, primitives, codec })
  if (ahead !== undefined) await rehearseTaking(ahead)
  return { codec, ahead }
}

async function rehearsal(primitives: Primitives, newCodec: () => NativeCodec): Promise<void> {
  const { rehearse } = await import('./rehearsal.js')
  rehearse(primitives, newCodec)
}

/** What is done when the other daemon has stopped, without any effect. */
async function rehearseTaking(ahead: Parts): Promise<void> {
  const { path } = ahead.files
  await Promise.all([StateLock.rehearse(path), rehearseKeeper(path), areCurrent(ahead)])
}

/** Throws CaracalErrors; what is in `undo` is to be run then. `found`: what a former daemon has left is there, and is to stay. */
export async function buildDaemon(
  options: DaemonOptions,
  log: Log,
  primitives: Primitives,
  servers: Servers,
  { codec, ahead }: Prepared,
  before: Pick<HandedOver, 'counters'> | undefined,
  undo: Undo,
  found: () => void,
): Promise<Built> {
  const { config } = options
  const files = ahead?.files ?? (await StateDirectory.open(config.state))
  undo.add(() => files.close())
  const laneCount = lanesFor(config.loop.lanes, availableParallelism())
  const [taken, looked] = await Promise.allSettled([ahead?.files.take(), findKept(files.path, config, laneCount, log)])
  const kept = looked.status === 'fulfilled' ? looked.value : undefined
  if (taken.status === 'rejected') {
    kept?.release()
    kept?.link.close()
    throw taken.reason
  }
  if (looked.status === 'rejected') throw looked.reason
  if (kept !== undefined) {
    found()
    undo.add(() => kept.link.close())
    undo.add(() => kept.release())
  }
  // Nobody waits yet; flows that a former daemon has left would.
  if (kept === undefined && !options.replace) {
    await rehearsal(primitives, () => new NativeCodec(codecAddon(), config.aead))
    native().trimMemory()
  }
  const underlay =
    kept === undefined ? Underlay.open(config.listen, config.offload) : Underlay.take(kept.sockets, config.offload)
  undo.add(() => underlay.close())
  const parts =
    ahead !== undefined && (await areCurrent(ahead))
      ? ahead
      : await makeParts({
          ...{ options, log, primitives, codec, files },
          join: (key, token, name) => joinNetwork(underlay, primitives, key, token, name),
          flowFile: (owner, bytes) => openFlowFile(config, owner, bytes, undo, log),
        })
  const { identity, flowFile, lanes, io, instances, admission, host, late } = parts
  if (parts === ahead && flowFile !== undefined) undo.addOutliving(() => flowFile.remove())
  if (kept !== undefined && kept.host !== host.id) throw otherHost()
  const [stamps, sequences] = await Promise.all([
    CounterFile.open(files, 'stamps', Date.now(), before?.counters.stamps),
    CounterFile.open(files, 'sequences', 1, before?.counters.sequences),
  ])
  late.counters = { stamps, sequences }
  io.underlay = underlay
  undo.add(() => lanes.close())
  lanes.open(underlay.locals, kept?.lanes)
  host.takeFlows(flowFile?.kept === true)
  const { plan } = host.addresses
  const link = new LinkSetup({
    tun: config.tun.name,
    mtu: config.tun.mtu,
    self: [formatAddress(host.addresses.self(4)), formatAddress(host.addresses.self(6))],
    local: [formatAddress(dnsAddress(plan, 4)), formatAddress(dnsAddress(plan, 6))],
    routes: [plan.pool, plan.v6],
    pools: [plan.pool, plan.v6],
  })
  if (kept === undefined) await clearWay(link)
  const device = {
    ...config.tun,
    offload: config.offload.tun,
    vnetHeader: config.offload.vnetHeader,
    multiQueue: lanes.count > 0,
    up: false,
  }
  const tun = new NativeTun(kept === undefined ? device : { ...device, held: kept.queue })
  undo.add(() => tun.close())
  if (!lanes.attach(tun, device))
    log.warn({}, 'the kernel does not let us choose queues by flow: one lane carries everything; as root it does')
  kept?.release()
  io.tun = tun
  const loop = new PacketLoop({
    host,
    tun,
    underlay,
    fault: (error) => log.error({ error }, 'a batch of packets could not be handled'),
    late: (ms) => late.daemon?.loopDelay.record(ms),
    failed: (error) => late.daemon?.fail(error, 'the packet loop failed'),
  })
  undo.add(() => loop.stop())
  const heap = new HeapCare(
    { ...ownHeap, packets: () => host.dataPath.tunPacketsIn + host.dataPath.datagramsIn },
    kept === undefined && !options.replace,
  )
  undo.add(() => heap.stop())
  if (config.loop.express) {
    const express = new NativeExpress({ host, codec, tun, underlay, due: () => loop.passed() })
    undo.add(() => express.close())
  }
  if (config.loop.priority === 'real-time') takeRealTime(log)
  const daemon = new Daemon(
    options,
    config,
    log,
    primitives,
    files,
    identity,
    underlay,
    io,
    host,
    instances,
    admission,
    tun,
    link,
    loop,
    lanes,
    codec.aeads,
    servers,
    undo,
    late.counters,
  )
  late.daemon = daemon
  return { daemon, kept, flowFile }
}

function takeRealTime(log: Log): void {
  try {
    native().setRealTime(true)
  } catch (error) {
    log.warn({ error }, 'packets do not go before other programs as `loop.priority` says: `caracal doctor` tells why')
  }
}

/** What a former daemon has left, if it fits; what does not is given up. Throws CARACAL_E_KEEPER. */
async function findKept(directory: string, config: Config, lanes: number, log: Log): Promise<Kept | undefined> {
  const found = await findKeeper(directory)
  if (found === undefined) return undefined
  const kept = keptOf(found, config, lanes)
  const why = typeof kept === 'string' ? kept : isThere(kept, config) ? undefined : 'its device was removed'
  if (typeof kept !== 'string' && why === undefined) return kept
  log.warn({ why }, 'what the last daemon has left does not fit the configuration: everything is set up anew')
  closeHeld(found.held)
  await found.link.end()
  const device = deviceOf(found)
  // Of our own name it is replaced in its place.
  if (device !== undefined && device !== config.tun.name) await LinkSetup.remove(device)
  return undefined
}

/** Whether the device is there that the queues belong to: whoever holds one of them does not keep it from being removed. */
function isThere({ queue }: Kept, { offload }: Config): boolean {
  try {
    native().close(native().tunTake(queue, TunOffload[offload.tun]).handle)
    return true
  } catch {
    return false
  }
}

/** undefined: the table is to be this process's own memory. */
function openFlowFile({ keeper }: Config, owner: string, bytes: number, undo: Undo, log: Log): FlowFile | undefined {
  if (!keeper.on) {
    FlowFile.forget(owner)
    return undefined
  }
  const file = FlowFile.open(owner, bytes, true, (why) => log.warn({ why }, 'no flow table there'))
  if (file === undefined) log.warn({}, 'no tmpfs has room for the flow table: flows end with this daemon')
  else undo.addOutliving(() => file.remove())
  return file
}

/** A killed daemon's device is removed; another one's, and other users of our pools, stand in the way. */
async function clearWay(link: LinkSetup): Promise<void> {
  await link.cleanStale()
  const conflicts = await link.conflicts()
  if (conflicts.length > 0) {
    const { pool, prefix, kind, device } = conflicts[0]!
    throw new CaracalError(
      'CARACAL_E_ADDRESS_CLASH',
      `the pool ${pool} overlaps the ${kind} ${prefix} of ${device} on this host`,
      `create the network with another pool (setting pool), or remove that ${kind}`,
    )
  }
}

function otherHost(): CaracalError {
  return new CaracalError(
    'CARACAL_E_KEEPER',
    'the keeper in the state directory holds the device of another host',
    'end the process caracal-keeper that has it, then try again',
  )
}
