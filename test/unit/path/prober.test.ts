import { test } from 'tap'
import { PROBE_BYTES } from '../../../lib/path/cadence.js'
import { isPinned } from '../../../lib/path/address-record.js'
import { decodeLocator, encodeLocator, formatLocator } from '../../../lib/path/locator.js'
import { PeerTable } from '../../../lib/path/peers.js'
import { PathProber } from '../../../lib/path/prober.js'
import { proberDefaults, type ProberOptions } from '../../../lib/path/prober-options.js'
import type { PathCommit } from '../../../lib/path/prober-sink.js'
import { ADDRESS_LOCAL } from '../../../lib/wire/batch.js'
import { hostId } from '../../../lib/wire/ids.js'

const OLD = '10.0.0.1:7474'
const NEW = '10.0.0.2:7474'
const THIRD = '10.0.0.3:7474'
const { activeIntervalMs, idleIntervalMs, quietMs, deadAfterMs, doubtfulAfterMs } = proberDefaults

function record(place: string): Uint8Array {
  const [address, port] = place.split(':')
  return encodeLocator({ address: address!, port: Number(port) })
}

const own = (address: string) => ({ record: record(`${address}:1`), deprecated: false })

/** A prober with one peer that answers after `delay` from where it is, unless it is silent. */
class World {
  now = 1_000
  readonly peers
  readonly peer
  readonly prober: PathProber
  readonly probes: { readonly at: number; readonly to: string; readonly token: Uint8Array }[] = []
  readonly events: string[] = []
  readonly holds: string[] = []
  readonly lossy: PathCommit[] = []
  /** Bytes that wait, and those that went to somewhere unproven. */
  waiting = 0
  readonly spent: string[] = []
  /** This host has a route to the peer. */
  routed = true
  /** Where the peer is; undefined: nowhere. */
  home: string | undefined = OLD
  delay = 10
  /** Places where it answers too, or later, with the time that takes. */
  delays: Record<string, number> = {}
  /** What probes say of how long ago the peer was heard. */
  readonly heardAgo: (number | undefined)[] = []
  lose: (probe: number) => boolean = () => false
  #token = 0
  #echoes: { readonly at: number; readonly from: string; readonly token: Uint8Array }[] = []

  constructor(options: Partial<ProberOptions> = {}, self = 1) {
    this.peers = new PeerTable(hostId(new Uint8Array(32).fill(self)), 8)
    this.peer = this.peers.add(hostId(new Uint8Array(32).fill(2)))
    this.prober = new PathProber(
      {
        peers: this.peers,
        randomBytes: (length) => Uint8Array.from({ length }, (_, i) => (i === 0 ? ++this.#token : 7)),
        isRouted: () => this.routed,
        sink: {
          sendProbe: (_peer, slot, token, _bytes, heardAgo) => {
            this.heardAgo.push(heardAgo)
            this.sent(slot, token.slice())
          },
          liveness: (_peer, state, now) => this.events.push(`${state} ${now}`),
          committed: (commit, now) => {
            this.events.push(`moved ${this.place(commit.to)} ${now} ${commit.reason}`)
            if (commit.lossy) this.lossy.push(commit)
          },
          held: (_peer, now) => this.holds.push(`held ${now}`),
          released: (_peer, now) => this.holds.push(`released ${now}`),
          spend: (_peer, slot, bytes) => this.#spend(this.place(slot), bytes),
          settled: ({ reason }, stall) => this.events.push(`settled ${stall} ${reason}`),
          gone: () => undefined,
          drop: (reason) => this.events.push(reason),
        },
      },
      options,
    )
  }

  place(slot: number): string {
    return formatLocator(decodeLocator(this.peers.addresses.record(slot))!)
  }
  get current(): string | undefined {
    const slot = this.peers.pathSlot[this.peer]!
    return slot < 0 ? undefined : this.place(slot)
  }

  hear(from: string, traffic = true): void {
    this.prober.heard(this.peer, record(from), 0, this.now, traffic)
    if (traffic) this.prober.flowed(this.peer, this.now)
  }
  echo(from: string, token: Uint8Array): void {
    this.prober.echoed(this.peer, token, record(from), 0, this.now)
  }

  /** Frames of flows come from OLD all the time, and go. */
  talk(ms: number): void {
    for (const end = this.now + ms; this.now < end;) {
      this.prober.active(this.peer, this.now)
      this.hear(OLD)
      this.runFor(10)
    }
  }

  runFor(ms: number): void {
    const until = this.now + ms
    for (;;) {
      const next = Math.min(this.prober.nextTimeout(), this.#echoes[0]?.at ?? Infinity)
      if (next > until) break
      this.now = Math.max(this.now, next)
      const due = this.#echoes.filter(({ at }) => at <= this.now)
      this.#echoes = this.#echoes.filter(({ at }) => at > this.now)
      for (const { from, token } of due) {
        this.hear(from, false)
        this.echo(from, token)
      }
      if (this.prober.nextTimeout() <= this.now) this.prober.handleTimeout(this.now)
    }
    this.now = until
    this.prober.handleTimeout(until)
  }

  #spend(to: string, bytes: number): number {
    const spent = Math.min(this.waiting, bytes)
    this.waiting -= spent
    if (spent > 0) this.spent.push(`${to} ${spent}`)
    return spent
  }

  sent(slot: number, token: Uint8Array): void {
    const to = this.place(slot)
    this.probes.push({ at: this.now, to, token })
    const several = Object.keys(this.delays).length > 0
    const delay = several ? this.delays[to] : to === this.home ? this.delay : undefined
    if (delay === undefined || this.lose(this.probes.length)) return
    this.#echoes.push({ at: this.now + delay, from: to, token })
    this.#echoes.sort((a, b) => a.at - b.at)
  }
}

test('the handshake’s address is the first path; the peer is alive', (t) => {
  const w = new World()
  t.equal(w.prober.liveness(w.peer), undefined)
  w.prober.established(w.peer, record(OLD), w.now)
  t.equal(w.current, OLD)
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.equal(w.prober.heardAt(w.peer), w.now)
  t.end()
})

test('probes of the peer bring forth no others; what flows and stops does', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(1_000)
  const during = (step: () => void) => {
    const before = w.probes.length
    for (let i = 0; i < 20; i++) {
      step()
      w.runFor(100)
    }
    return w.probes.length - before
  }
  t.equal(
    during(() => w.prober.heard(w.peer, record(OLD), 0, w.now)),
    10,
    'one each 200 ms',
  )
  t.ok(during(() => w.hear(OLD)) >= 19, 'one each time')
  t.end()
})

test('a peer that somebody else looks after is probed once a second, and not at once', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(10_000)
  w.prober.active(w.peer, w.now)
  w.prober.attend(w.peer, true, w.now)
  const before = w.probes.length
  w.runFor(990)
  t.equal(w.probes.length - before, 0)
  w.runFor(5_000)
  t.equal(w.probes.length - before, 5)
  t.end()
})

test('the round trip is measured by the echo, and smoothed', (t) => {
  const w = new World()
  w.delay = 40
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(300)
  t.equal(w.peers.rttMs[w.peer], 40)
  w.delay = 80
  w.runFor(activeIntervalMs)
  t.equal(w.peers.rttMs[w.peer], 45)
  w.runFor(30_000)
  t.ok(w.peers.rttMs[w.peer]! > 79)
  t.equal(w.peers.leastRttMs[w.peer], 80)
  t.end()
})

test('a round trip longer than the interval between probes is measured, too', (t) => {
  const w = new World()
  w.delay = 3 * activeIntervalMs + 50
  w.peers.rttMs[w.peer] = w.delay
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(5_000)
  t.equal(w.peers.rttMs[w.peer], 650)
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

test('an active peer is probed closely for a while, an idle one now and then', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(1_000)
  w.probes.length = 0
  w.runFor(120_000)
  // In turns of two seconds.
  t.equal(w.probes.length, Math.floor(120_000 / (idleIntervalMs - 1_000)), 'idle')
  for (const { at } of w.probes) t.equal((at - w.probes[0]!.at) % 2_000, 0)
  w.probes.length = 0
  for (let i = 0; i < 30; i++) {
    w.prober.asked(w.peer, undefined, record(OLD), 0, w.now)
    w.runFor(10_000)
  }
  t.equal(w.probes.length, 5, 'a peer that probes this host is probed now and then')
  w.probes.length = 0
  w.prober.active(w.peer, w.now)
  w.runFor(10_000)
  t.ok(w.probes.length >= 48 && w.probes.length <= 51, `active: ${w.probes.length}`)
  w.runFor(60_000)
  w.probes.length = 0
  w.runFor(30_000)
  t.ok(w.probes.length <= 3, `idle again: ${w.probes.length}`)
  t.end()
})

test('one lost probe does not make an idle peer a doubtful one', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(1_000)
  w.events.length = 0
  w.lose = (n) => n % 3 === 0
  w.runFor(600_000)
  t.strictSame(w.events, [])
  t.end()
})

test('silence of an active peer: doubtful, then dead', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(1_050)
  w.events.length = 0
  w.home = undefined
  const since = w.now
  w.runFor(2_000)
  t.strictSame(
    w.events.map((text) => text.split(' ')[0]),
    ['doubtful', 'dead'],
  )
  const [doubtful, dead] = w.events.map((text) => Number(text.split(' ')[1]) - since)
  const roundTrips = 2 * w.delay
  t.ok(
    doubtful! >= doubtfulAfterMs && doubtful! <= doubtfulAfterMs + activeIntervalMs + roundTrips,
    `doubtful after ${doubtful}`,
  )
  t.ok(dead! >= deadAfterMs && dead! <= deadAfterMs + activeIntervalMs + roundTrips, `dead after ${dead}`)
  t.ok(dead! <= 1_000)
  t.end()
})

test('a peer whose frames stop is probed without waiting for the next regular probe', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(activeIntervalMs * 5 + 10)
  w.probes.length = 0
  for (let i = 0; i < 60; i++) {
    w.hear(OLD)
    w.runFor(20)
  }
  t.ok(w.probes.length <= 6, `${w.probes.length} while they come`)
  const stopped = w.now
  w.probes.length = 0
  w.hear(OLD)
  w.runFor(activeIntervalMs)
  t.ok(w.probes[0]!.at <= stopped + quietMs + w.delay, `${w.probes[0]!.at - stopped} ms after the last one`)
  t.ok(w.probes.length <= 2, 'and once')
  t.end()
})

test('no answer to a probe: others follow once it is overdue, fewer later, and on all paths', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.prober.candidate(w.peer, record(NEW), w.now)
  w.runFor(300)
  w.home = undefined
  w.probes.length = 0
  w.runFor(activeIntervalMs + 2 * w.delay + 100)
  const times = (to: string) => w.probes.filter((probe) => probe.to === to).map(({ at }) => at)
  const [first, second] = times(OLD)
  t.equal(second! - first!, 40)
  t.equal(times(NEW)[0], second, 'the other path with the second')
  w.runFor(5_000)
  t.equal(w.prober.liveness(w.peer), 'dead')
  t.ok(times(OLD).length <= 10 + 5_000 / activeIntervalMs, `${times(OLD).length} probes`)
  w.home = NEW
  w.runFor(10_000 + w.delay)
  t.equal(w.current, NEW, 'what the peer has named is tried for the second time')
  t.end()
})

test('what this host slept through is not held against its peers', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.events.length = 0
  w.home = undefined
  w.prober.handleTimeout((w.now = w.prober.nextTimeout()))
  w.now += 3_000
  w.prober.handleTimeout(w.now)
  t.strictSame(w.events, [])
  w.runFor(deadAfterMs + 2 * w.delay)
  t.equal(w.prober.liveness(w.peer), 'dead', 'what comes after is')
  t.end()
})

test('silence of an idle peer is noticed with the next probe', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(1_000)
  w.events.length = 0
  w.home = undefined
  w.runFor(idleIntervalMs + deadAfterMs + 2 * activeIntervalMs + 20)
  t.strictSame(
    w.events.map((text) => text.split(' ')[0]),
    ['doubtful', 'dead'],
  )
  t.end()
})

test('long silence without a probe outstanding says nothing', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(1_000)
  w.events.length = 0
  w.prober.handleTimeout(w.now + 5)
  t.strictSame(w.events, [])
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

test('any frame of the peer brings it back to life', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.home = undefined
  w.runFor(3_000)
  t.equal(w.prober.liveness(w.peer), 'dead')
  w.hear(OLD)
  t.equal(w.prober.liveness(w.peer), 'alive')
  w.home = OLD
  w.runFor(1_000)
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

test('frames from a new address move nothing until a probe of ours has come back from there', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.probes.length = 0
  w.events.length = 0
  w.hear(NEW)
  t.equal(w.current, OLD)
  t.strictSame(
    w.probes.map(({ to }) => to),
    [NEW],
  )
  w.echo(OLD, w.probes[0]!.token)
  t.equal(w.current, OLD, 'an echo from elsewhere proves nothing')
  w.echo(NEW, new Uint8Array(16))
  t.equal(w.current, OLD, 'nor does a guess')
  w.now += 20
  w.echo(NEW, w.probes[0]!.token)
  t.equal(w.current, NEW)
  t.strictSame(w.events, [`moved ${NEW} ${w.now} peer-moved`, 'settled 490 peer-moved'])
  t.equal(w.peers.rttMs[w.peer], 20, 'the round trip is the new path’s')
  t.end()
})

test('a peer that has moved is not followed back by what was still on its way', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.hear(OLD)
  w.hear(NEW)
  w.now += 1
  w.echo(NEW, w.probes.at(-1)!.token)
  t.equal(w.current, NEW)
  w.probes.length = 0
  // What overtook it: this host asks whether the peer is there as well.
  w.now += 1
  w.hear(OLD)
  const [late] = w.probes.filter(({ to }) => to === OLD)
  t.ok(late)
  w.hear(NEW)
  w.echo(OLD, late!.token)
  t.equal(w.current, NEW, 'it is')
  for (let ms = 0; ms < 100; ms += 5) {
    w.now += 5
    w.hear(NEW)
  }
  t.equal(w.current, NEW)
  for (let ms = 0; ms < 40; ms += 5) {
    w.now += 5
    w.hear(OLD)
  }
  t.equal(w.current, OLD, 'when it really sends from there again, it is followed')
  t.end()
})

test('a peer that moves says until when it heard this host, and all that went to it before counts as arrived', (t) => {
  for (const told of [true, false]) {
    const w = twoHomes(9)
    w.talk(3_000)
    w.runFor(30)
    w.hear(NEW, false)
    if (told) w.prober.asked(w.peer, 400, record(NEW), 0, w.now)
    const at = w.now
    w.hear(NEW)
    t.equal(w.current, NEW)
    const [commit] = w.lossy
    t.equal(commit?.reason, 'peer-moved')
    const ago = at - commit!.reachedAt
    if (told) t.ok(ago > 400 && ago < 500, `what was sent in the last ${ago} ms may be lost`)
    else t.ok(ago < 400, 'without a word what was sent since a probe came back')
  }
  t.end()
})

test('what a peer says that it heard is not believed when copies went to where it seemed to be', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.hear(NEW)
  w.prober.asked(w.peer, 1, record(NEW), 0, w.now)
  w.now += 20
  w.echo(NEW, w.probes.at(-1)!.token)
  t.equal(w.current, NEW)
  t.ok(w.lossy[0]!.reachedAt < w.now - 100)
  t.end()
})

test('the peer is told how long ago it was heard when this host leaves a way that works', (t) => {
  for (const works of [true, false]) {
    const w = twoHomes(9)
    w.talk(3_000)
    const at = w.now
    if (works) {
      w.prober.candidate(w.peer, record(OLD), w.now, 1_000, 'deprecated')
      w.prober.review(w.peer, w.now)
    } else delete w.delays[OLD]
    while (w.current === OLD && w.now < at + 1_000) w.runFor(10)
    t.equal(w.current, NEW)
    const said = w.heardAgo.filter((ago) => ago !== undefined && ago < Infinity)
    t.equal(said.length, works ? 1 : 0)
    if (works) t.ok(said[0]! >= 10 && said[0]! <= w.now - at + 20, `${said[0]} ms`)
  }
  t.end()
})

test('a challenge is no lever: one probe, however many frames come', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.probes.length = 0
  for (let i = 0; i < 1_000; i++) w.hear(NEW)
  t.equal(w.probes.length, 1)
  t.end()
})

test('a challenge that is lost is repeated once, and the peer followed', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = NEW
  const challenges = () => w.probes.filter(({ to }) => to === NEW).length
  w.lose = () => challenges() === 1
  w.hear(NEW)
  w.runFor(20 + w.delay)
  t.equal(w.current, NEW)
  t.end()
})

test('challenges that nothing answers are two, however long the peer lives elsewhere', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.probes.length = 0
  w.hear(NEW)
  w.runFor(10_000)
  t.equal(w.probes.filter(({ to }) => to === NEW).length, 2)
  t.equal(w.current, OLD)
  t.end()
})

test('two hosts that probe each other on a path that neither prefers come to rest', (t) => {
  const w = new World()
  w.delay = 300
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(5_000)
  w.probes.length = 0
  for (let i = 0; i < 50; i++) {
    w.hear(NEW, false)
    w.runFor(w.delay)
  }
  t.equal(w.probes.filter(({ to }) => to === NEW).length, 1)
  t.end()
})

test('a token is good once, and for its own path', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.hear(NEW)
  const { token } = w.probes.at(-1)!
  w.echo(NEW, token)
  t.equal(w.current, NEW)
  w.now += activeIntervalMs
  w.hear(OLD)
  const back = w.probes.at(-1)!
  t.equal(back.to, OLD)
  w.echo(OLD, back.token)
  t.equal(w.current, OLD)
  w.echo(NEW, token)
  t.equal(w.current, OLD)
  t.end()
})

test('an echo older than what the path in use has proven since does not move back', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.runFor(500)
  w.hear(NEW)
  const challenge = w.probes.at(-1)!
  w.now += 1
  w.prober.suspect(w.peer, w.now)
  w.runFor(activeIntervalMs + 50)
  w.echo(NEW, challenge.token)
  t.equal(w.current, OLD)
  t.end()
})

test('a peer that has moved is followed, and answers are never sent to where it was', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = NEW
  w.hear(NEW)
  w.runFor(100)
  t.equal(w.current, NEW)
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

test('a doubtful peer is looked for on all its paths', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = NEW
  w.hear(NEW)
  w.runFor(500)
  t.equal(w.current, NEW)
  w.home = OLD
  w.runFor(1_500)
  t.equal(w.current, OLD, 'the old path works again')
  t.end()
})

test('where a peer says that it is comes into use when it falls silent where it was', (t) => {
  const w = new World()
  w.prober.candidate(w.peer, record(NEW), w.now)
  t.equal(w.prober.nextTimeout(), Infinity, 'of a peer that is not watched it says nothing')
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.prober.candidate(w.peer, record(NEW), w.now)
  t.equal(w.current, OLD)
  w.home = NEW
  w.runFor(deadAfterMs)
  t.equal(w.current, NEW)
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

test('a peer given up for dead is looked for at once where it says it is now', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.home = undefined
  w.runFor(60_000)
  t.equal(w.prober.liveness(w.peer), 'dead')
  w.home = NEW
  w.runFor(activeIntervalMs)
  w.prober.candidate(w.peer, record(NEW), w.now)
  w.runFor(idleIntervalMs)
  t.equal(w.current, NEW)
  t.end()
})

test('paths are bounded; the one in use stays', (t) => {
  const w = new World({ pathsMax: 3 })
  w.prober.established(w.peer, record(OLD), w.now)
  for (let i = 0; i < 100; i++) w.hear(`10.1.0.${i + 1}:5`)
  t.equal(w.prober.paths(w.peer).length, 3)
  t.equal(w.current, OLD)
  const slots = w.prober.paths(w.peer).map(({ slot }) => w.place(slot))
  t.ok(slots.includes(OLD))
  t.ok(slots.includes('10.1.0.100:5'))
  const free = new Set<number>()
  for (let slot = 0; slot >= 0;) {
    slot = w.peers.addresses.acquire(record(`10.2.0.${free.size + 1}:6`))
    if (slot >= 0) free.add(slot)
  }
  t.equal(free.size, w.peers.addresses.capacity - 3, 'addresses of former paths are free again')
  t.end()
})

test('what is not watched is left alone', (t) => {
  const w = new World()
  w.hear(OLD)
  w.echo(OLD, new Uint8Array(16))
  w.prober.active(w.peer, w.now)
  w.prober.suspect(w.peer, w.now)
  w.prober.forget(w.peer)
  t.equal(w.prober.slotOf(w.peer, record(OLD), 0, w.now), -1)
  t.strictSame(w.prober.paths(w.peer), [])
  t.equal(w.prober.nextTimeout(), Infinity)
  t.equal(w.probes.length, 0)
  t.end()
})

test('a forgotten peer has no path, and none of its addresses is held', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.hear(NEW)
  w.prober.forget(w.peer)
  t.equal(w.current, undefined)
  t.equal(w.prober.liveness(w.peer), undefined)
  t.equal(w.prober.nextTimeout(), Infinity)
  t.equal(w.peers.addresses.acquire(record('10.9.9.9:9')), 1, 'slots are used again')
  t.end()
})

test('answers go to where a question came from, be it new', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  t.equal(w.place(w.prober.slotOf(w.peer, record(NEW), 0, w.now)), NEW)
  t.equal(w.current, OLD)
  t.end()
})

test("when the host's links change, all paths of a peer that matters are probed at once", (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.candidate(w.peer, record(NEW), w.now, 1_000)
  w.runFor(2 * idleIntervalMs)
  const idle = w.probes.length
  w.prober.linksChanged(w.now)
  w.runFor(1)
  t.equal(w.probes.length, idle, 'of an idle one none')
  w.prober.active(w.peer, w.now)
  w.runFor(activeIntervalMs / 2)
  const before = w.probes.length
  w.prober.linksChanged(w.now)
  w.runFor(0)
  t.strictSame(
    w.probes.slice(before).map(({ at, to }) => [at, to]),
    [OLD, NEW].map((place) => [w.now, place]),
  )
  t.end()
})

/** A world in which the peer answers at both places, the second one after `delay`. */
function twoHomes(delay: number, self = 1): World {
  const w = new World({}, self)
  w.delays = { [OLD]: 10, [NEW]: delay }
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.candidate(w.peer, record(NEW), w.now, 1_000)
  w.prober.active(w.peer, w.now)
  return w
}

test('a standby is kept warm while the peer matters, and taken when the path in use is silent', (t) => {
  const w = twoHomes(10)
  w.runFor(30_000)
  t.equal(w.current, OLD)
  const beside = w.probes.filter(({ to, at }) => to === NEW && at > 10_000).length
  t.ok(beside >= 10 && beside <= 20, `${beside} probes in 20 s`)
  delete w.delays[OLD]
  const at = w.now
  for (let ms = 0; ms < 1_000 && w.current === OLD; ms += 10) {
    w.prober.active(w.peer, w.now)
    w.runFor(10)
  }
  t.equal(w.current, NEW)
  t.ok(w.now - at <= 300, `after ${w.now - at} ms`)
  t.ok(w.events.some((event) => event.startsWith(`moved ${NEW}`) && event.endsWith('silent')))
  t.notOk(
    w.events.some((event) => event.startsWith('dead') || event.startsWith('doubtful')),
    'before anybody doubts the peer',
  )
  t.end()
})

test('a path that falls silent is left within three round trips and a little, also when an earlier probe was lost', (t) => {
  const w = twoHomes(80)
  w.delays[OLD] = 80
  w.talk(3_000)
  w.lose = () => true
  const lost = w.probes.length
  while (w.probes.length === lost) {
    w.hear(OLD)
    w.runFor(10)
  }
  w.hear(OLD)
  w.lose = () => false
  delete w.delays[OLD]
  const at = w.now
  for (let ms = 0; ms < 1_000 && w.current === OLD; ms += 10) w.runFor(10)
  t.equal(w.current, NEW)
  t.ok(w.now - at <= 240, `after ${w.now - at} ms`)
  t.end()
})

test('of the paths beside a silent one that is taken which still answers, however good another one was', (t) => {
  const w = twoHomes(9)
  w.delays[THIRD] = 15
  w.prober.candidate(w.peer, record(THIRD), w.now, 1_000)
  w.talk(4_000)
  t.equal(w.prober.paths(w.peer).filter(({ state }) => state === 'proven').length, 3)
  t.equal(w.current, OLD)
  delete w.delays[OLD]
  delete w.delays[NEW]
  const at = w.now
  for (let ms = 0; ms < 1_000 && w.current === OLD; ms += 10) w.runFor(10)
  t.equal(w.current, THIRD)
  t.ok(w.now - at <= 300, `after ${w.now - at} ms`)
  t.end()
})

test('a path that only one direction of is dead is left although the peer is heard by it', (t) => {
  const w = twoHomes(10)
  w.runFor(3_000)
  delete w.delays[OLD]
  const at = w.now
  for (let ms = 0; ms < 3_000 && w.current === OLD; ms += 10) {
    w.prober.active(w.peer, w.now)
    w.hear(OLD)
    w.runFor(10)
  }
  t.equal(w.current, NEW)
  t.ok(w.now - at <= 1_500, `after ${w.now - at} ms`)
  const [commit] = w.lossy
  t.ok(commit!.reachedAt <= at && commit!.reachedAt > at - 2 * activeIntervalMs, 'what went that way since is lost')
  t.end()
})

test('of two paths that work the one in use stays, unless the other is clearly better for long; one end decides', (t) => {
  for (const [self, delay, place] of [
    [1, 9, OLD],
    [3, 9, OLD],
    [3, 2, OLD],
    [1, 2, NEW],
  ] as const) {
    const w = twoHomes(delay, self)
    for (let s = 0; s < 20; s++) {
      w.prober.active(w.peer, w.now)
      w.runFor(1_000)
    }
    t.equal(w.current, place, `host ${self}, ${delay} ms`)
  }
  t.end()
})

test('a path whose address is about to go is left before it goes', (t) => {
  const w = twoHomes(50)
  w.runFor(1_000)
  t.equal(w.current, OLD)
  w.prober.candidate(w.peer, record(OLD), w.now, 0, 'deprecated')
  w.prober.review(w.peer, w.now)
  t.equal(w.current, NEW)
  t.ok(w.events.at(-1)?.endsWith('deprecated'), w.events.at(-1) ?? '')
  t.end()
})

test('a peer that goes on sending from an address that is about to go is not followed back to it', (t) => {
  const w = twoHomes(10)
  w.runFor(3_000)
  w.prober.candidate(w.peer, record(OLD), w.now, PROBE_BYTES, 'deprecated')
  w.prober.review(w.peer, w.now)
  t.equal(w.current, NEW)
  for (let ms = 0; ms < 500; ms += 10) {
    w.hear(OLD)
    w.runFor(10)
  }
  t.strictSame(
    w.events.filter((event) => event.startsWith('moved')).map((event) => event.split(' ')[3]),
    ['established', 'deprecated'],
  )
  t.strictSame(w.holds, [], 'and nothing waits for it')
  t.end()
})

test('attack: where a forged source points, no more than three times the bytes go, however long the peer is silent', (t) => {
  const w = new World()
  const BYTES = 40
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.prober.heard(w.peer, record(NEW), 0, w.now, true, BYTES)
  w.home = undefined
  for (let s = 0; s < 600; s++) {
    w.prober.active(w.peer, w.now)
    w.runFor(1_000)
  }
  const sent = w.probes.filter(({ to }) => to === NEW).length * PROBE_BYTES
  t.ok(sent > 0 && sent <= 3 * BYTES, `${sent} bytes for ${BYTES}`)
  t.equal(w.current, OLD)
  t.end()
})

test('an address that the peer has named and nobody answers at is tried more and more seldom, until the peer names it again', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.candidate(w.peer, record(NEW), w.now)
  const triedAt = (ms: number) => {
    const from = w.probes.length
    for (const end = w.now + ms; w.now < end;) {
      w.prober.active(w.peer, w.now)
      w.runFor(1_000)
    }
    return w.probes.slice(from).flatMap(({ at, to }) => (to === NEW ? [at] : []))
  }
  const between = (times: readonly number[]) => times.slice(1).map((at, i) => Math.round((at - times[i]!) / 1_000))
  const doubled = [10, 20, 40, 80, 160, 300, 300]
  t.strictSame(between(triedAt(1_100_000).slice(-8)), doubled)
  const named = w.now
  w.prober.announced(w.peer, [record(NEW)], w.now)
  const again = triedAt(700_000)
  t.ok(again[0]! <= named + 5_000)
  t.strictSame(between(again), [5, 10, 20, 40, 80, 160, 300])
  t.end()
})

test('frames wait while the path in use is silent and there is no other, until something comes by it', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = undefined
  w.runFor(200)
  t.equal(w.holds.length, 0, 'some probes that are overdue say little')
  w.runFor(400)
  t.equal(w.holds.length, 1)
  t.equal(w.peers.addressSlot[w.peer], -1)
  t.equal(w.current, OLD)
  w.runFor(3_000)
  t.equal(w.holds.length, 1)
  w.home = OLD
  w.runFor(activeIntervalMs + 2 * w.delay)
  t.match(w.holds.at(-1), /^released/)
  t.equal(w.peers.addressSlot[w.peer], w.peers.pathSlot[w.peer])
  t.end()
})

test('with a standby that works nothing waits', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.delays = { [OLD]: 10, [NEW]: 15 }
  w.prober.candidate(w.peer, record(NEW), w.now)
  w.runFor(1_000)
  w.delays = { [NEW]: 15 }
  w.runFor(2_000)
  t.equal(w.current, NEW)
  t.strictSame(w.holds, [])
  t.end()
})

test('frames wait from the moment at which the peer has left its address, until the next is proven', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = NEW
  w.delay = 60
  w.prober.candidate(w.peer, record(OLD), w.now, 100, 'gone')
  w.prober.candidate(w.peer, record(NEW), w.now, 100)
  w.prober.review(w.peer, w.now)
  t.strictSame(w.holds, [`held ${w.now}`])
  w.hear(OLD)
  t.equal(w.holds.length, 1, 'what was on its way says nothing')
  w.runFor(60)
  t.strictSame(w.holds, ['held 1500', 'released 1560'])
  t.equal(w.current, NEW)
  t.end()
})

test('control messages go to where the peer says it is, although something still comes from where it was', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = undefined
  w.prober.candidate(w.peer, record(OLD), w.now, 500, 'gone')
  w.prober.candidate(w.peer, record(NEW), w.now, 500)
  w.prober.review(w.peer, w.now)
  w.hear(OLD)
  const to = (bytes: number) => w.place(w.prober.controlSlot(w.peer, bytes, w.now))
  t.equal(to(400), NEW)
  t.equal(to(1_200), OLD, 'no more than three times what told of it')
  t.end()
})

test('while this host has no address of the family everything waits; the next one is used at once', (t) => {
  const w = new World()
  w.prober.setOwn([own('192.0.2.77')], false, w.now)
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.prober.setOwn([], false, w.now)
  t.strictSame(w.holds, ['held 1500'])
  w.home = undefined
  w.runFor(300)
  w.prober.setOwn([own('192.0.2.78')], true, w.now)
  t.strictSame(w.holds, ['held 1500', 'released 1800'])
  t.match(w.events.at(-1), /^moved .* 1800 address-gone/)
  w.prober.setOwn([], false, (w.now += 10))
  w.prober.setOwn([own('192.0.2.78')], false, (w.now += 10))
  t.equal(w.holds.length, 4, 'likewise when the same comes back')
  w.prober.setOwn([], false, (w.now += 10))
  w.now += 100
  w.hear(OLD)
  t.equal(w.holds.length, 6, 'something has come to an address that nobody has told of')
  t.match(w.holds.at(-1), /^released/)
  t.end()
})

test('where an address comes before the route everything waits for that', (t) => {
  const w = new World()
  w.prober.setOwn([own('192.0.2.77')], false, w.now)
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.routed = false
  w.prober.setOwn([], false, w.now)
  w.prober.setOwn([own('192.0.2.78')], true, (w.now += 200))
  t.notOk(w.prober.routesChanged((w.now += 10)))
  t.strictSame(w.holds, ['held 1500'])
  t.strictSame(
    w.prober.paths(w.peer).map(({ state, reason }) => `${state}, ${reason}`),
    ['dead, address-gone'],
  )
  w.routed = true
  t.ok(w.prober.routesChanged((w.now += 10)))
  t.strictSame(w.holds, ['held 1500', 'released 1720'])
  t.match(w.events.at(-1), /^moved .* 1720 address-gone/)
  t.notOk(w.prober.routesChanged(w.now), 'and that is that')
  t.end()
})

test('when the route to a peer goes everything waits for another', (t) => {
  const w = new World()
  w.prober.setOwn([own('192.0.2.77')], false, w.now)
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.routed = false
  w.prober.linksChanged(w.now)
  t.strictSame(w.holds, ['held 1500'])
  t.strictSame(
    w.prober.paths(w.peer).map(({ state, reason }) => `${state}, ${reason}`),
    ['dead, no-route'],
  )
  w.home = undefined
  w.runFor(100)
  t.equal(w.holds.length, 1)
  w.home = OLD
  w.routed = true
  w.prober.routesChanged(w.now)
  t.strictSame(w.holds, ['held 1500', 'released 1600'])
  t.equal(w.peers.addressSlot[w.peer], w.peers.pathSlot[w.peer])
  t.end()
})

test('a peer that sends from elsewhere makes frames wait for the proof of that, but not for long, nor again and again', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.delay = 25
  w.home = NEW
  w.hear(NEW)
  t.strictSame(w.holds, ['held 1500'])
  w.runFor(25)
  t.equal(w.current, NEW)
  t.strictSame(w.holds, ['held 1500', 'released 1525'])
  // Somebody repeats the peer's frames, from where he is.
  w.holds.length = 0
  for (let i = 0; i < 300; i++) {
    w.runFor(10)
    if (w.now % 50 < 10) w.hear('192.0.2.66:6666')
    if (w.now % 100 < 10) w.hear(NEW)
  }
  let held = 0
  for (let i = 0; i + 1 < w.holds.length; i += 2)
    held += Number(w.holds[i + 1]!.split(' ')[1]) - Number(w.holds[i]!.split(' ')[1])
  t.ok(held <= 300, `frames waited for ${held} of 3000 ms`)
  t.equal(w.current, NEW)
  t.not(w.peers.addressSlot[w.peer], undefined)
  w.runFor(2_000)
  t.equal(w.peers.addressSlot[w.peer], w.peers.pathSlot[w.peer])
  t.end()
})

test('attack: what waits goes to where nothing is proven up to three times what came from there, probes and answers included', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = undefined
  w.waiting = 1_000_000
  let came = 0
  let answers = 0
  for (let i = 0; i < 400; i++) {
    const bytes = 60 + ((i * 37) % 1_100)
    came += bytes
    w.prober.heard(w.peer, record(NEW), 0, w.now, i % 3 > 0, bytes)
    if (i % 5 === 0 && w.prober.slotOf(w.peer, record(NEW), 0, w.now, 60) >= 0) answers += 60
    w.runFor(7)
  }
  const probes = w.probes.filter(({ to }) => to === NEW).length * PROBE_BYTES
  const spent = w.spent.reduce((sum, text) => sum + Number(text.split(' ')[1]), 0)
  t.ok(w.spent.every((text) => text.startsWith(NEW)))
  const sent = probes + spent + answers
  t.ok(sent > came && sent <= 3 * came, `${sent} bytes for ${came}`)
  t.equal(w.current, OLD)
  t.end()
})

test('a peer that rests is not looked at, and not taken for dead', (t) => {
  const w = new World()
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  w.runFor(500)
  w.home = undefined
  w.prober.rest(w.peer, w.now + 2_000, w.now)
  w.probes.length = 0
  w.events.length = 0
  w.runFor(1_999)
  t.strictSame(w.probes, [])
  t.strictSame(w.events, [])
  w.home = OLD
  w.prober.rest(w.peer, w.now, w.now)
  w.runFor(1)
  t.equal(w.probes.length, 1, 'but as soon as it is back')
  t.equal(w.prober.liveness(w.peer), 'alive')
  t.end()
})

/** A host with a peer that answers at once to the own address a probe came from; where it names none, from the one that the routes prefer. */
class Routed extends World {
  preferred = '192.0.2.1'
  /** Echoes of probes that name no own address are delivered when this is called; undefined: at once. */
  answers: (() => void)[] | undefined

  static at(address: string): Uint8Array {
    return encodeLocator({ address, port: 7474 }).slice(8, 24)
  }

  /** What comes from the peer's address to that own one. */
  static way(local: string): Uint8Array {
    const way = record(OLD)
    way.set(Routed.at(local), ADDRESS_LOCAL)
    return way
  }

  get from(): string {
    const own = this.peers.addresses.record(this.peers.pathSlot[this.peer]!).subarray(ADDRESS_LOCAL, ADDRESS_LOCAL + 4)
    return own.join('.')
  }

  override sent(slot: number, token: Uint8Array): void {
    super.sent(slot, token)
    const way = this.peers.addresses.record(slot)
    const asks = !isPinned(way)
    if (asks) way.set(Routed.at(this.preferred), ADDRESS_LOCAL)
    const answer = () => this.prober.echoed(this.peer, token, way, 0, this.now)
    if (asks && this.answers !== undefined) this.answers.push(answer)
    else queueMicrotask(answer)
  }

  async pass(ms: number): Promise<void> {
    for (const until = this.now + ms; this.now < until; this.now++) {
      this.prober.handleTimeout(this.now)
      await Promise.resolve()
    }
  }
}

async function routed(): Promise<Routed> {
  const w = new Routed()
  w.home = undefined
  w.prober.setOwn([own('192.0.2.1')], false, w.now)
  w.prober.established(w.peer, record(OLD), w.now)
  w.prober.active(w.peer, w.now)
  await w.pass(500)
  return w
}

test('when the routes come to prefer a new own address it is used before the old one goes', async (t) => {
  const w = await routed()
  t.equal(w.from, '0.0.0.0', 'the only one is not named')
  w.preferred = '192.0.2.2'
  w.prober.setOwn([own('192.0.2.1'), own('192.0.2.2')], false, w.now)
  await w.pass(20)
  t.equal(w.from, '192.0.2.2')
  t.match(w.events.at(-1), /rerouted$/)
  t.strictSame(w.lossy, [], 'nothing is lost by it')
  t.strictSame(w.holds, [])
})

test('a new own address that the routes do not prefer is not used, until they do', async (t) => {
  const w = await routed()
  w.prober.setOwn([own('192.0.2.1'), own('192.0.2.2')], false, w.now)
  await w.pass(300)
  t.equal(w.from, '192.0.2.1')
  w.preferred = '192.0.2.2'
  w.prober.linksChanged(w.now)
  await w.pass(20)
  t.equal(w.from, '192.0.2.2')
})

test('what still comes by a way that was left does not lead back to it, unless the peer stays there', async (t) => {
  const w = await routed()
  w.preferred = '192.0.2.2'
  w.prober.setOwn([own('192.0.2.1'), own('192.0.2.2')], false, w.now)
  await w.pass(20)
  const heard = async (local: string, ms: number) => {
    for (let i = 0; i < ms; i++) {
      w.prober.heard(w.peer, Routed.way(local), 0, w.now)
      await w.pass(1)
    }
  }
  await heard('192.0.2.1', 30)
  t.equal(w.from, '192.0.2.2')
  await heard('192.0.2.1', 300)
  t.equal(w.from, '192.0.2.1')
})

test('a peer that goes to the new own address first is not followed back to the old one, by which it was answered meanwhile', async (t) => {
  const w = await routed()
  w.preferred = '192.0.2.2'
  w.answers = []
  w.prober.setOwn([own('192.0.2.1'), own('192.0.2.2')], false, w.now)
  await w.pass(2)
  t.equal(w.from, '192.0.2.1', 'nobody has said which one the routes prefer')
  w.prober.heard(w.peer, Routed.way('192.0.2.2'), 0, w.now)
  t.equal(w.from, '192.0.2.2')
  t.match(w.events.at(-1), /peer-moved$/)
  for (const answer of w.answers.splice(0)) answer()
  w.answers = undefined
  const moves = w.events.length
  for (let i = 0; i < 30; i++) {
    w.prober.heard(w.peer, Routed.way('192.0.2.1'), 0, w.now)
    await w.pass(1)
  }
  t.equal(w.from, '192.0.2.2')
  t.equal(w.events.length, moves, 'forth and back')
})
