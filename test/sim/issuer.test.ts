// What members ask of an issuer, in virtual time: stamps of their claims, renewal; and what becomes of those who are members no more.

import tap, { test } from 'tap'
import { revokeAsAuthority } from '../../lib/crypto/revocations.js'
import { sodium } from '../tools/sodium.js'
import { HostWorld, WALL_START, type WorldHost, type WorldOptions } from './host-world.js'
import type { TcpSocket } from './virtual-kernel.js'

// Hours of virtual time take a while on a busy machine.
tap.setTimeout(240_000)

/** h0 is the issuer. The others have tags of their own, so that a name belongs to one of them. */
function network(seed: number, others: number, options: WorldOptions = {}): HostWorld {
  const world = new HostWorld(sodium, seed, { issuer: true, ...options })
  world.add()
  for (let n = 1; n <= others; n++) world.add([`tag${n}`])
  for (const host of world.hosts.slice(1)) host.hints.push(world.hosts[0]!)
  for (const host of world.hosts) host.start()
  if (!world.until(() => world.converged, 10_000)) throw new Error('the hosts did not find each other within 10 s')
  return world
}

const claimOf = (at: WorldHost, of: WorldHost, name: string) => {
  const payload = at.host.directory.record(of.id, `name/${at.world.service(name)}`)?.payload
  return payload?.kind === 'name' ? payload : undefined
}
const claimant = (at: WorldHost, name: string) =>
  at.world.hosts.find(({ id }) => id === at.host.catalogue.byName(name)?.owner.claimant)?.name
const everywhere = (world: HostWorld, condition: (at: WorldHost) => boolean) => () =>
  world.hosts.filter(({ running }) => running).every(condition)

function revoke(world: HostWorld, by: WorldHost, host: WorldHost): void {
  const order = { host: host.id, serial: world.serial, time: Math.floor(world.wallNow) }
  by.trust.revocations.add(revokeAsAuthority(world.authority, order))
  by.enter((engine) => engine.revocationsAdded(world.now))
}

/** Publishes a claim as a host would that lies about when it made it. */
function backDate(host: WorldHost, name: string, since: number): void {
  const service = host.world.service(name)
  const claim = { kind: 'name' as const, service, name, since, tags: [`tag${host.number}`], hosts: [] }
  host.enter((engine) => engine.directory.publish([{ payload: claim }], host.world.now))
}

test('an older member does not get the name of a younger one by back-dating its claim', (t) => {
  const world = network(1, 3)
  const [, younger, older, third] = world.hosts
  younger!.expose('web', 80)
  t.ok(
    world.until(
      everywhere(world, (at) => claimOf(at, younger!, 'web')?.stamp !== undefined),
      5_000,
    ),
    'stamped',
  )
  older!.expose('web', 80)
  backDate(older!, 'web', WALL_START - 80_000)
  world.runFor(5_000)
  t.equal(claimOf(third!, older!, 'web')?.since, WALL_START - 80_000, 'the lie has arrived')
  t.ok(everywhere(world, (at) => claimant(at, 'web') === 'h1')(), 'and is believed nowhere')
  t.equal(claimOf(third!, older!, 'web')?.stamp, undefined, 'it is not stamped')
  t.match(third!.host.catalogue.conflicts(), [{ host: older!.id, reason: 'not-owner' }])

  older!.expose('lie', 81)
  younger!.expose('lie', 81)
  world.runFor(3_000)
  t.equal(claimant(third!, 'lie'), 'h2', 'who really was first has it')
  t.end()
})

test('two that claim at once: whatever the link does, one gets the stamp and all agree', (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const link = { loss: seed % 2 === 0 ? 0.05 : 0, duplicate: 0.1, jitter: 20 }
    const world = network(seed, 3, { link, realCrypto: seed === 1 })
    const [, one, two] = world.hosts
    for (const host of [one!, two!]) host.expose('web', 80)
    const stamped = (at: WorldHost) => [one!, two!].filter((of) => claimOf(at, of, 'web')?.stamp !== undefined)
    t.ok(
      world.until(
        everywhere(world, (at) => stamped(at).length === 1),
        20_000,
      ),
      `seed ${seed}: one is stamped`,
    )
    world.runFor(70_000)
    for (const at of world.hosts) {
      t.equal(stamped(at).length, 1)
      t.equal(claimant(at, 'web'), stamped(at)[0]?.name)
    }
  }
  t.end()
})

test('a stamp survives the restart of its host and of the issuer', (t) => {
  const world = network(2, 2)
  const [issuer, host, other] = world.hosts
  host!.expose('web', 80)
  t.ok(
    world.until(
      everywhere(world, (at) => claimOf(at, host!, 'web')?.stamp !== undefined),
      5_000,
    ),
  )
  const before = claimOf(other!, host!, 'web')
  host!.restart(500)
  issuer!.restart(200)
  world.runFor(5_000)
  t.ok(world.until(() => world.converged, 10_000))
  t.strictSame(claimOf(other!, host!, 'web'), before)
  other!.expose('web', 80)
  world.runFor(120_000)
  t.equal(claimant(issuer!, 'web'), 'h1')
  t.equal(claimOf(issuer!, other!, 'web')?.stamp, undefined)
  host!.enter((engine) => engine.withdraw(world.service('web'), 'web', world.now))
  t.ok(
    world.until(
      everywhere(world, (at) => claimOf(at, other!, 'web')?.stamp !== undefined),
      180_000,
    ),
    'what is given up goes to the next',
  )
  t.end()
})

test('a claim made while the issuer is away is stamped when it is back', (t) => {
  const world = network(3, 2)
  const [issuer, host, other] = world.hosts
  issuer!.kill()
  world.runFor(1_000)
  host!.expose('web', 80)
  world.runFor(60_000)
  t.equal(claimOf(other!, host!, 'web')?.stamp, undefined)
  t.equal(claimant(other!, 'web'), 'h1', 'it counts without')
  issuer!.start()
  t.ok(
    world.until(
      everywhere(world, (at) => claimOf(at, host!, 'web')?.stamp !== undefined),
      60_000,
    ),
  )
  t.end()
})

test('memberships are renewed before they expire, and all learn of it', (t) => {
  const options = { membershipSeconds: 900, host: { issuing: { membershipSeconds: 900, renewRetryMs: 20_000 } } }
  const world = network(4, 2, options)
  const [issuer, host, other] = world.hosts
  host!.expose('web', 80)
  const first = new Map(world.hosts.map(({ id, host: { members } }) => [id, members.member(id)!]))
  world.runFor(700_000)
  for (const at of world.hosts) {
    for (const of of world.hosts) {
      const [was, is] = [first.get(of.id)!, at.host.members.member(of.id)!]
      t.match(is, { name: was.name, tags: was.tags, notBefore: was.notBefore })
      t.ok(is.notAfter > was.notAfter + 500, `${at.name} knows that ${of.name} is a member for longer`)
    }
  }
  world.runFor(2_000_000)
  t.ok(world.until(() => world.converged, 5_000))
  for (const at of world.hosts) {
    const lines = at.log.filter((line) => line === 'renewed membership').length
    t.ok(lines >= 3 && lines <= 6, `${at.name} was renewed ${lines} times`)
    t.strictSame(
      at.log.filter((line) => /^(not renewed|expired)/.test(line)),
      [],
    )
    t.strictSame(at.host.catalogue.byName('web')?.owner.claimant, host!.id)
  }
  t.equal(other!.host.members.member(issuer!.id)?.issuer, issuer!.id)
  t.end()
})

test('an issuer with the authority’s key renews its own certificate, and its stamps stay good', (t) => {
  const issuing = { membershipSeconds: 900, certificateSeconds: 2_000, renewRetryMs: 20_000, renewUrgentMs: 20_000 }
  const world = network(7, 1, { membershipSeconds: 900, certificateSeconds: 2_000, host: { issuing } })
  const [issuer, host] = world.hosts
  host!.expose('web', 80)
  world.runFor(4_000_000)
  t.equal(issuer!.log.filter((line) => line === 'renewed certificate').length, 2)
  for (const at of world.hosts) {
    for (const of of world.hosts) t.ok(at.host.members.member(of.id), `${of.name} is a member at ${at.name}`)
    t.match(at.host.catalogue.titleOf(world.service('web'), host!.id), { firm: true })
    t.strictSame(
      at.log.filter((line) => line.startsWith('expired')),
      [],
    )
  }
  t.end()
})

test('without an issuer a membership expires: what is open goes on for the grace, nothing new begins', (t) => {
  const options = { membershipSeconds: 600, host: { issuing: { graceSeconds: 600, graceLookMs: 5_000 } } }
  const world = network(5, 2, options)
  const [issuer, server, client] = world.hosts
  server!.expose('web', 80)
  world.runFor(1_000)
  issuer!.die()
  const open = client!.connect('web', 80)
  const said = (socket: TcpSocket) => {
    const before = socket.received.length
    client!.program(() => socket.write(Uint8Array.of(1, 2, 3)))
    return world.until(() => socket.received.length >= before + 3, 2_000)
  }
  t.ok(said(open))
  // End, skew of the clocks, and minutes in which no session made before is left.
  for (let minute = 0; minute < 20; minute++) {
    world.runFor(60_000)
    if (!said(open)) t.fail(`after ${minute + 1} min nothing comes back`)
  }
  const late = client!.connect('web', 80)
  world.runFor(5_000)
  t.not(late.state, 'established', 'a new connection is refused')
  t.ok(client!.log.some((line) => line.startsWith('expired: its membership expired at')))
  world.runFor(6 * 60_000)
  t.equal(open.state, 'reset', 'the grace is over')
  t.equal(client!.host.sessions.count, 0)
  t.end()
})

test('a revoked host is told so before it is cut off, and stops', (t) => {
  for (let seed = 1; seed <= 8; seed++) {
    const world = network(seed, 3, { link: { loss: seed % 2 === 0 ? 0.05 : 0 } })
    const [issuer, revoked, other] = world.hosts
    revoked!.expose('web', 80)
    world.runFor(1_000)
    // A claim that another host made before: it would go on asking for a stamp.
    other!.expose('shop', 81)
    world.runFor(1_000)
    revoked!.expose('shop', 81)
    world.runFor(1_000)
    const socket = other!.connect('web', 80)
    world.runFor(500)
    revoke(world, issuer!, revoked!)
    world.runFor(1_000)
    const { host, log } = revoked!
    t.match(host.revocation, /^the authority revoked it at 20\d\d-/)
    t.equal(log.filter((line) => line.startsWith('revoked: the authority')).length, 1, 'said once')
    t.equal(socket.state, 'reset')
    t.equal(host.sessions.count, 0)
    t.notOk(host.mayOffer(world.service('another')))
    const lines = log.length
    const frames: string[] = []
    world.filter = ({ from }) => from !== revoked!.address || (frames.push(from), true)
    world.runFor(300_000)
    t.strictSame(log.slice(lines), [], 'it connects to nobody')
    t.equal(frames.length, 0, 'and sends nothing')
    t.notOk(revoked!.host.directory.record(revoked!.id, `service/${world.service('web')}`))
  }
  t.end()
})
