import { test, type Test } from 'tap'
import { Admission } from '../../../daemon/admission.js'
import { joinNetwork } from '../../../daemon/joining.js'
import { noLog } from '../../../daemon/log.js'
import { monotonicNow } from '../../../daemon/packet-loop.js'
import { Underlay } from '../../../daemon/underlay.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { InviteToken } from '../../../lib/crypto/token.js'
import { encodeLocator, formatLocator, type Locator } from '../../../lib/path/locator.js'
import { JoinIssuer } from '../../../lib/session/join-issuer.js'
import { ADDRESS_RECORD, DATAGRAM_WORDS, datagramBatch } from '../../../lib/wire/batch.js'
import { HandshakeView } from '../../../lib/wire/handshake.js'
import { primitives, RigNetwork, tokenOf, wallNow, type Rig } from './rig.js'

const SHORT = { giveUpMs: 300, retryMs: 40 }

function open(t: Test, address = '127.0.0.1'): Underlay {
  const underlay = Underlay.open([{ address, port: 0 }])
  t.teardown(() => underlay.close())
  return underlay
}

interface Office {
  readonly issuer: Rig
  /** Requests that were heard. */
  readonly heard: () => number
  invite(uses?: number, tags?: readonly string[]): Promise<InviteToken>
}

interface OfficeOptions {
  /** So many requests are lost on their way. */
  readonly deaf?: number
  /** Seconds that it is ahead. */
  readonly clock?: number
  /** Places that its tokens name first. */
  readonly places?: readonly Locator[]
}

/** An issuer's daemon on real sockets. */
async function office(t: Test, { deaf = 0, clock = 0, places = [] }: OfficeOptions = {}): Promise<Office> {
  const issuer = await new RigNetwork(t).create()
  const underlay = open(t)
  const { identity, files } = issuer
  const admission = new Admission({
    identity,
    primitives,
    files,
    locators: () => [...places, ...underlay.locals],
    hosts: () => issuer.host,
    log: noLog,
  })
  const joins = new JoinIssuer({
    primitives,
    hostKey: identity.hostKey,
    network: identity.trust.network,
    authority: admission,
    sendDatagram: (bytes, address) => underlay.sendOne(bytes, address),
  })
  const batch = datagramBatch(8)
  let heard = 0
  underlay.onReadable(batch, () => {
    for (let i = 0; i < batch.count; i++) {
      const [offset, length] = batch.desc.subarray(i * DATAGRAM_WORDS)
      const view = HandshakeView.check(batch.data, offset!, length!)
      if (typeof view === 'string') throw new Error(view)
      if (heard++ < deaf) continue
      const address = batch.addresses.slice(i * ADDRESS_RECORD, (i + 1) * ADDRESS_RECORD)
      joins.answer(view, address, monotonicNow(), wallNow() + clock)
    }
  })
  return {
    issuer,
    heard: () => heard,
    invite: async (uses = 1, tags = []) =>
      tokenOf(await admission.invite({ tags, uses, expiresAt: wallNow() + 600 }, wallNow())),
  }
}

/** The same token with something else in it. */
function changed(token: InviteToken, changes: Partial<InviteToken>, secret: Uint8Array): InviteToken {
  const { network, authority, profile, issuer, locators, expiry, tokenId, tags } = token
  return new InviteToken({ network, authority, profile, issuer, locators, expiry, tokenId, tags, ...changes }, secret)
}

const key = () => HostKey.generate(primitives)

test('a host joins over the network', async (t) => {
  const { invite, issuer } = await office(t)
  const hostKey = key()
  const joined = await joinNetwork(open(t), primitives, hostKey, await invite(1, ['web']), 'h2')
  t.match(joined.membership, { host: hostKey.id, name: 'h2', tags: ['web'] })
  t.strictSame(joined.profile, issuer.identity.trust.profile)
  t.strictSame(joined.locators, [{ host: issuer.host.id, locator: '192.0.2.1:7474' }])
  t.equal(issuer.names.hostNamed('h2'), hostKey.id)
})

test('requests that are lost are repeated, and use nothing up', async (t) => {
  const { invite, heard } = await office(t, { deaf: 2 })
  const token = await invite()
  const hostKey = key()
  await joinNetwork(open(t), primitives, hostKey, token, 'h2', { retryMs: 20 })
  t.ok(heard() >= 3)
  await joinNetwork(open(t), primitives, hostKey, token, 'h2')
  await t.rejects(joinNetwork(open(t), primitives, key(), token, 'h3', SHORT), { code: 'CARACAL_E_TOKEN_USED' })
})

test('what the issuer has against it is said, with what to do', async (t) => {
  const { invite } = await office(t)
  const token = await invite(5)
  const refused = async (given: InviteToken, name: string, expected: object) => {
    const outcome = await joinNetwork(open(t), primitives, key(), given, name, SHORT).catch((error: unknown) => error)
    t.match(outcome, expected)
  }
  await refused(token, 'h1', { code: 'CARACAL_E_NAME_TAKEN', next: /--name/ })
  const secret = primitives.randomBytes(32)
  await refused(changed(token, {}, secret), 'h2', { code: 'CARACAL_E_TOKEN', what: /does not know this token/ })
  await refused(changed(token, { tokenId: primitives.randomBytes(16) }, secret), 'h2', { code: 'CARACAL_E_TOKEN' })
  await joinNetwork(open(t), primitives, key(), token, 'h2', SHORT)
})

test('clocks that differ too much are named', async (t) => {
  const { invite } = await office(t, { clock: 400 })
  await t.rejects(joinNetwork(open(t), primitives, key(), await invite(), 'h2', SHORT), {
    code: 'CARACAL_E_CLOCK',
    what: /clocks differ/,
  })
})

test('where nobody answers it ends, naming the places', async (t) => {
  const silent = open(t)
  const { invite } = await office(t)
  const place = formatLocator(silent.locals[0]!)
  const token = changed(await invite(), { locators: [place] }, primitives.randomBytes(32))
  const started = performance.now()
  await t.rejects(joinNetwork(open(t), primitives, key(), token, 'h2', SHORT), {
    code: 'CARACAL_E_JOIN',
    what: new RegExp(`does not answer at ${place}`),
    next: /UDP/,
  })
  t.ok(performance.now() - started >= SHORT.giveUpMs)
  const deaf = await office(t, { deaf: 1_000 })
  await t.rejects(joinNetwork(open(t), primitives, key(), await deaf.invite(), 'h2', SHORT), { code: 'CARACAL_E_JOIN' })
})

test('another place of the token is tried while the first is silent', async (t) => {
  const { invite } = await office(t, { places: open(t).locals })
  const token = await invite()
  t.equal(token.locators.length, 2)
  t.match((await joinNetwork(open(t), primitives, key(), token, 'h2')).membership, { name: 'h2' })
})

test('garbage that arrives meanwhile does no harm', async (t) => {
  const { invite } = await office(t, { deaf: 1 })
  const underlay = open(t)
  const noise = open(t)
  const at = encodeLocator(underlay.locals[0]!)
  for (let i = 0; i < 100; i++) noise.sendOne(new Uint8Array(1 + ((i * 13) % 1_200)).fill(i * 7), at)
  for (let type = 0; type < 8; type++) noise.sendOne(Uint8Array.of(type, 1, 0, 0), at)
  t.match((await joinNetwork(underlay, primitives, key(), await invite(), 'h2', { retryMs: 30 })).membership, {
    name: 'h2',
  })
})

test('a name that no host has is refused before anything is sent', async (t) => {
  const { invite, heard } = await office(t)
  await t.rejects(joinNetwork(open(t), primitives, key(), await invite(), 'No Name', SHORT))
  t.equal(heard(), 0)
})
