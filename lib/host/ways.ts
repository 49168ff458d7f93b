// The ways to the peers: by which their frames go, what those carry, and where peers see this host.
//
//   PathProber ──▶ committed, held, released ──┬▶ Replay, and what waits: what the old way swallowed, or was kept from it
//   Rebinding ◀──▶ peers: addresses change     ├▶ PathMtus, LanePaths: measured anew
//   ReflexiveAddresses ◀── echoes              └▶ MoveNotes: why

import { LanePaths } from '../path/lane-paths.js'
import { decodeLocator, locatorRecord, type Locator } from '../path/locator.js'
import { PathMtus } from '../path/path-mtus.js'
import type { PeerTable } from '../path/peers.js'
import { PathProber } from '../path/prober.js'
import type { Liveness, PathCommit, ProberSink } from '../path/prober-sink.js'
import { Rebinding } from '../path/rebinding.js'
import { ReflexiveAddresses } from '../path/reflexive.js'
import type { Directory } from '../service/directory.js'
import type { Established } from '../session/session-sink.js'
import type { SessionTable } from '../session/session-table.js'
import { ADDRESS_RECORD } from '../wire/batch.js'
import { INNER_HEADER, Kind, PROBE_TOKEN } from '../wire/constants.js'
import type { DropReason } from '../wire/drop.js'
import type { HostId } from '../wire/ids.js'
import type { DataPath } from './data-path.js'
import type { HostClock } from './host-clock.js'
import type { HostComponents, HostOptions } from './host-options.js'
import { MoveNotes, moveText } from './move-notes.js'
import {
  CONTROL_CLASS,
  echoFrame,
  heardAgoIn,
  isOfWayInUse,
  ownFrame,
  probeFrame,
  SEALED_MORE,
  seenByEcho,
} from './own-frames.js'
import { Pings } from './pings.js'

export interface WaysComponents {
  readonly host: HostComponents
  readonly clock: HostClock
  readonly peers: PeerTable
  readonly directory: Directory
  readonly dataPath: DataPath
  readonly sessions: SessionTable
  /** Whether the peer answers is another thing now. */
  readonly looked: (host: HostId, state: Liveness, now: number) => void
  /** The host has been proven to be there. */
  readonly hint: (host: HostId, locator: Locator, now: number) => void
  /** Of what waits for the peer; {@link ProberSink}. */
  readonly spend: (peer: number, addressSlot: number, bytes: number, now: number) => number
  readonly released: (peer: number, now: number) => void
  /** Peers agree that they see this host there, and at no other address than those and its own. */
  readonly seenAt: (locators: readonly Locator[], now: number) => void
  readonly drop: (reason: DropReason) => void
}

export class Ways implements ProberSink {
  readonly prober: PathProber
  readonly rebinding: Rebinding
  readonly moveNotes: MoveNotes
  readonly lanePaths: LanePaths
  readonly pathMtus: PathMtus
  readonly reflexive: ReflexiveAddresses
  readonly #c: WaysComponents
  readonly #peers: PeerTable
  readonly #dataPath: DataPath
  readonly #pings = new Pings()

  constructor(components: WaysComponents, options: Pick<HostOptions, 'prober' | 'pathMtu'>) {
    const { host, peers, dataPath, sessions } = components
    this.#c = components
    this.#peers = peers
    this.#dataPath = dataPath
    const randomBytes = (length: number) => host.primitives.randomBytes(length)
    const isRouted = (record: Uint8Array) => host.isRouted?.(record) ?? true
    this.prober = new PathProber({ peers, randomBytes, isRouted, sink: this }, options.prober)
    this.rebinding = new Rebinding({
      ...{ self: host.hostKey.id, peers, prober: this.prober },
      nextSequence: () => host.sequence.next(),
      send: (peer, slot, body) => {
        dataPath.wayFrame(peer, slot, ownFrame(Kind.move, body), CONTROL_CLASS)
        sessions.answerSent(peer)
      },
      datagramBytes: (body) => INNER_HEADER + body.length + SEALED_MORE,
      drop: (reason) => this.drop(reason),
    })
    this.moveNotes = new MoveNotes(peers)
    this.lanePaths = new LanePaths({
      peers,
      randomBytes,
      sendProbe: (peer, lane, slot, token, inUse) => {
        dataPath.laneFrame(peer, lane, slot, probeFrame(token, inUse), CONTROL_CLASS)
      },
      settle: () => host.lanes?.settle() ?? true,
    })
    this.pathMtus = new PathMtus(
      {
        ...{ peers, randomBytes },
        linkMtu: (record) => host.pathMtu?.(record) ?? 0,
        // Not for the session to wait for: that such a probe is not answered says nothing of the peer.
        sendProbe: (peer, slot, token, room, inUse) =>
          void dataPath.wayFrame(peer, slot, probeFrame(token, inUse, room), CONTROL_CLASS),
      },
      options.pathMtu,
      options.prober?.pathsMax,
    )
    this.reflexive = new ReflexiveAddresses((records, now) =>
      components.seenAt(
        records.flatMap((record) => decodeLocator(record) ?? []),
        now,
      ),
    )
  }

  // ---- What comes ----

  /** Packets of flows have come by the path in use. */
  flowedInUse(peer: number, now: number): void {
    const { pathSlot, addresses } = this.#peers
    const slot = pathSlot[peer]!
    if (slot < 0) return
    this.prober.heard(peer, addresses.records, slot * ADDRESS_RECORD, now)
    this.prober.flowed(peer, now)
  }

  /** A frame of so many bytes has come by a lane above the first; the rest as in {@link PathProber.heard}. */
  heardAside(
    peer: number,
    lane: number,
    records: Uint8Array,
    record: number,
    now: number,
    traffic: boolean,
    bytes: number,
  ): void {
    const elsewhere = this.lanePaths.heardAside(peer, lane, records, record, now, bytes)
    if (elsewhere === undefined) this.prober.heardAside(peer, now)
    else this.prober.heard(peer, elsewhere.record, 0, now, traffic, elsewhere.bytes)
  }

  /** A probe has come, by this lane from the record at `record`: it is answered by the lane, to there. */
  probed(peer: number, lane: number, body: Uint8Array, records: Uint8Array, record: number, now: number): void {
    if (body.length < PROBE_TOKEN) return this.drop('bad-frame')
    if (lane === 0) this.prober.asked(peer, heardAgoIn(body), records, record, now)
    this.#echo(peer, lane, body.subarray(0, PROBE_TOKEN), records, record, now)
    if (lane > 0 && !isOfWayInUse(body)) this.#laneTried(peer, now)
    this.#c.sessions.answerSent(peer)
  }

  /** The peer may use the lane from now on, or wants to know where this host's first one is seen. */
  #laneTried(peer: number, now: number): void {
    this.lanePaths.joins(now)
    this.#dataPath.frameTo(peer, this.#peers.pathSlot[peer]!, ownFrame(Kind.empty), CONTROL_CLASS)
  }

  #echo(peer: number, lane: number, token: Uint8Array, records: Uint8Array, record: number, now: number): void {
    if (lane === 0) {
      const frame = echoFrame(token, records, record)
      const to = this.prober.slotOf(peer, records, record, now, frame.length + SEALED_MORE)
      this.#dataPath.wayFrame(peer, to, frame, CONTROL_CLASS)
      return
    }
    const { addresses } = this.#peers
    const slot = addresses.acquire(records, record)
    if (slot < 0) return this.drop('send-failed')
    this.#dataPath.laneFrame(peer, lane, slot, ownFrame(Kind.probeEcho, token), CONTROL_CLASS)
    addresses.release(slot)
  }

  /** A probe's echo has come, likewise. */
  echoed(peer: number, lane: number, body: Uint8Array, records: Uint8Array, record: number, now: number): void {
    if (body.length < PROBE_TOKEN) return this.drop('bad-frame')
    const token = body.subarray(0, PROBE_TOKEN)
    if (lane > 0) {
      this.lanePaths.echoed(peer, lane, token, now)
      return
    }
    const seen = seenByEcho(body)
    if (seen !== undefined) this.reflexive.seen(peer, seen, now)
    if (this.pathMtus.echoed(peer, token, now) || this.#pings.answered(peer, token, now)) return
    const beside = this.prober.echoed(peer, token, records, record, now)
    if (beside >= 0) this.pathMtus.beside(peer, beside, true, now)
  }

  /** A message about addresses has come. Returns whether the way to the peer is another one, or in doubt. */
  moveReceived(peer: number, body: Uint8Array, records: Uint8Array, record: number, now: number): boolean {
    return this.rebinding.receive(peer, body, INNER_HEADER + body.length + SEALED_MORE, records, record, now)
  }

  // ---- Sessions and records ----

  /** A session with the peer stands. */
  established(peer: number, session: Established, now: number): void {
    const known = this.prober.liveness(peer) === undefined
    if (known || !session.rekey || session.afresh || this.#peers.addressSlot[peer]! < 0)
      this.prober.established(peer, session.address, now)
    this.pathMtus.use(peer, now)
    // What lies between may be another way.
    if (!session.rekey || session.afresh) this.pathMtus.hint(peer, now, true)
    const { lanes } = this.#peers
    if (lanes > 1 && session.rekey && !session.afresh) this.lanePaths.offer(peer, this.#c.sessions.lanePorts(peer), now)
    else this.#renewLanes(peer, now)
  }

  /** There is no session with the peer any more. */
  forget(peer: number): void {
    this.lanePaths.forget(peer, this.#c.clock.now)
    this.pathMtus.forget(peer)
    this.prober.forget(peer)
    this.rebinding.forget(peer)
    this.moveNotes.forget(peer)
    this.reflexive.forget(peer)
    this.#dataPath.replay.forget(peer)
  }

  /** A flow or bind concerns the peer. `longest`: plaintext of frames that go to it. */
  used(peer: number, now: number, longest: number): void {
    this.prober.active(peer, now)
    this.pathMtus.used(peer, now, longest)
  }

  /** What the peer's records say about where it is are paths to fall back to. */
  offer(peer: number): void {
    if (peer <= 0) return
    const records = this.#c.directory
      .locatorsOf(this.#peers.hostId(peer))
      .flatMap((locator) => locatorRecord(locator) ?? [])
    this.prober.announced(peer, records, this.#c.clock.now)
  }

  /** This host can be reached there. Returns whether that is new. */
  setLocators(locators: readonly (Locator & { readonly deprecated?: boolean })[], now: number): boolean {
    const own = locators.flatMap((locator) => {
      const record = locatorRecord(locator)
      return record === undefined ? [] : { record, deprecated: locator.deprecated === true }
    })
    this.moveNotes.setOwn(locators)
    const isNew = this.rebinding.setOwn(own, now)
    if (isNew) this.reflexive.setOwn(own.map(({ record }) => record))
    return isNew
  }

  /** The host's routes have changed: what waited for one goes. */
  routesChanged(now: number): void {
    this.rebinding.routesChanged(now)
  }

  /** The host's links have changed: so may what its paths carry, and which of them work. */
  linksChanged(now: number): void {
    this.prober.linksChanged(now)
    this.pathMtus.linksChanged(now)
  }

  /** One round trip, outside the regular probes; as {@link Host.ping}. */
  ping(peer: number, now: number, answered: (rttMs: number) => void): { cancel(): void } | undefined {
    if (this.#peers.sealSlot[peer]! < 0) return undefined
    const token = this.#c.host.primitives.randomBytes(PROBE_TOKEN)
    const ping = this.#pings.add(peer, token, now, answered)
    if (ping === undefined) return undefined
    this.#dataPath.wayFrame(peer, this.#peers.pathSlot[peer]!, ownFrame(Kind.probe, token), CONTROL_CLASS)
    this.#dataPath.flush(now)
    return ping
  }

  // ---- Time ----

  nextTimeout(): number {
    return Math.min(
      this.prober.nextTimeout(),
      this.rebinding.nextTimeout(),
      this.lanePaths.nextTimeout(),
      this.pathMtus.nextTimeout(),
      this.reflexive.nextTimeout(),
    )
  }

  handleTimeout(now: number): void {
    this.prober.handleTimeout(now)
    this.rebinding.handleTimeout(now)
    this.lanePaths.handleTimeout(now)
    this.pathMtus.handleTimeout(now)
    this.reflexive.handleTimeout(now)
  }

  // ---- ProberSink ----

  sendProbe(peer: number, addressSlot: number, token: Uint8Array, bytes = 0, heardAgo?: number): void {
    const inUse = addressSlot === this.#peers.pathSlot[peer]
    // Where the peer is known to be, a new way shows with its proof what it carries.
    if (!inUse && this.#isProvenPlace(peer, addressSlot))
      this.pathMtus.beside(peer, addressSlot, false, this.#c.clock.now)
    const frame = probeFrame(token, inUse, bytes - SEALED_MORE, heardAgo)
    this.#dataPath.wayFrame(peer, addressSlot, frame, CONTROL_CLASS)
    this.#c.sessions.dataSent(peer, this.#c.clock.now)
  }

  #isProvenPlace(peer: number, addressSlot: number): boolean {
    const { records } = this.#peers.addresses
    return this.prober.remoteOf(peer, records, addressSlot * ADDRESS_RECORD)?.validated === true
  }

  liveness(peer: number, state: Liveness, now: number): void {
    const host = this.#peers.hostId(peer)
    this.#c.host.events.peer(host, state, '')
    this.#c.looked(host, state, now)
  }

  committed(commit: PathCommit, now: number): void {
    const { peer, from, to, reason, lossy, reachedAt, openSince } = commit
    const { events } = this.#c.host
    const host = this.#peers.hostId(peer)
    this.#dataPath.replay.moved(peer, now, lossy, reachedAt, openSince)
    if (reason === 'links-changed') this.pathMtus.renamed(peer, from, to)
    this.pathMtus.use(peer, now)
    if (from >= 0 && !this.prober.paths(peer).some(({ slot }) => slot === from)) this.pathMtus.gone(peer, from)
    // From another own address it is another way.
    if (from === to && lossy) this.pathMtus.hint(peer, now, true)
    this.#renewLanes(peer, now)
    const move = this.moveNotes.committed(commit)
    if (move === undefined || reason === 'links-changed') return
    events.peer(host, 'moved', moveText(move), move)
    const locator = from === to ? undefined : decodeLocator(this.#peers.addresses.record(to))
    if (locator === undefined) return
    this.#c.hint(host, locator, now)
    events.remember()
  }

  settled(commit: PathCommit, stallMs: number): void {
    const move = this.moveNotes.settled(commit, stallMs)
    if (move !== undefined) this.#c.host.events.peer(this.#peers.hostId(commit.peer), 'settled', moveText(move), move)
  }

  spend(peer: number, addressSlot: number, bytes: number, now: number): number {
    const before = this.#dataPath.bytesOut
    const all = this.#dataPath.copyTo(peer, addressSlot, bytes, now)
    const spent = this.#dataPath.bytesOut - before
    // What was sent first arrives first.
    return all ? spent + this.#c.spend(peer, addressSlot, bytes - spent, now) : spent
  }

  held(peer: number, now: number): void {
    this.#dataPath.replay.held(peer, now)
  }

  released(peer: number, now: number): void {
    this.#dataPath.replay.stayed(peer)
    this.#c.released(peer, now)
  }

  gone(peer: number, addressSlot: number): void {
    this.pathMtus.gone(peer, addressSlot)
  }

  drop(reason: DropReason): void {
    this.#c.drop(reason)
  }

  #renewLanes(peer: number, now: number): void {
    if (this.#peers.lanes > 1) this.lanePaths.renew(peer, this.#c.sessions.lanePorts(peer), now)
  }
}
