import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { CaracalError } from '../../../daemon/errors.js'
import { openIdentity, stateFile, type Identity, type IdentityWish } from '../../../daemon/identity.js'
import { StateDirectory } from '../../../daemon/state-files.js'
import { Authority } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem, issueMembership } from '../../../lib/crypto/membership.js'
import { revokeAsAuthority } from '../../../lib/crypto/revocations.js'
import { IPV4_POOL, ZONE } from '../../../lib/crypto/network-profile.js'
import { InviteToken, tokenPsk } from '../../../lib/crypto/token.js'
import { TrustStore } from '../../../lib/crypto/trust.js'
import type { Joined } from '../../../lib/session/join-client.js'
import { folder, primitives } from './rig.js'

const NOW = 1_767_225_600
const DAY = 86_400
const CREATE: IdentityWish = { name: 'h1', create: 'home', join: undefined, pool: IPV4_POOL, zone: ZONE }
const OPEN: IdentityWish = { ...CREATE, create: undefined }
type Join = (hostKey: HostKey, token: InviteToken, name: string) => Promise<Joined>
const noJoin: Join = () => Promise.reject(new Error('joined without need'))

/** One life of a daemon on the state folder. */
async function life(path: string, wish: IdentityWish, { now = NOW, join = noJoin } = {}): Promise<Identity> {
  const state = await StateDirectory.open(path)
  try {
    const identity = await openIdentity(wish, { state, primitives, wallNow: () => now, join })
    await state.release()
    return identity
  } finally {
    await state.close()
  }
}

/** An issuer elsewhere, its network, and a token. */
function office(host: HostKey = HostKey.generate(primitives)) {
  const authority = Authority.generate(primitives)
  const profile = { name: 'work', ipv4Pool: '10.64.0.0/16', zone: 'work.test' }
  const validity = { notBefore: NOW - DAY, notAfter: NOW + 365 * DAY }
  const certificate = authority.certifyIssuer({ host: host.id, tags: ['*'], serial: 1, ...validity })
  const trust = new TrustStore(primitives, { authority: authority.publicKey, profile })
  const secret = primitives.randomBytes(32)
  const token = (expiry = NOW + 3600) =>
    new InviteToken(
      {
        network: trust.network,
        authority: authority.publicKey,
        profile,
        issuer: host.id,
        locators: ['192.0.2.1:7474'],
        expiry,
        tokenId: primitives.randomBytes(16),
        tags: ['web'],
      },
      secret,
    ).text(primitives)
  const asked: string[] = []
  const admit =
    (changes: { readonly notBefore?: number; readonly notAfter?: number } = {}): Join =>
    (key, given, name) => {
      asked.push(`${key.id} ${name}`)
      if (!primitives.equal(given.psk(primitives), tokenPsk(primitives, secret))) throw new Error('another secret')
      const times = { notBefore: NOW, notAfter: NOW + 30 * DAY, ...changes }
      const member = { host: key.id, name, tags: ['web'], serial: 9, ...times }
      const bytes = issueMembership(primitives, host, { certificate, authority: authority.publicKey }, member)
      const membership = trust.verify(bytes, times.notBefore)
      if (isMembershipProblem(membership)) throw new Error(membership.detail)
      return Promise.resolve({ membership, profile, locators: [], issuerWallNow: NOW })
    }
  return { token, admit, asked, network: trust.network }
}

async function errorOf(promise: Promise<unknown>): Promise<CaracalError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (error instanceof CaracalError) return error
  throw new Error('no CaracalError', { cause: error })
}

const place = (t: Test) => join(folder(t), 'state')

test('a network is created, and found again', async (t) => {
  const path = place(t)
  const first = await life(path, CREATE)
  t.match(first.membership, { name: 'h1', tags: [], host: first.hostKey.id })
  t.strictSame(first.trust.profile, { name: 'home', ipv4Pool: IPV4_POOL, zone: ZONE })
  t.equal(first.authority?.network, first.trust.network)
  t.ok(first.trust.issuerCertificate, 'it can invite')
  for (const file of [stateFile.hostKey, stateFile.authorityKey, stateFile.trust]) {
    t.equal(statSync(join(path, file)).mode & 0o777, 0o600, file)
  }
  const again = await life(path, OPEN, { now: NOW + DAY })
  t.equal(again.hostKey.id, first.hostKey.id)
  t.equal(again.trust.network, first.trust.network)
  t.equal(again.authority?.network, first.trust.network)
  t.strictSame(again.membership.bytes, first.membership.bytes)
})

test('a network of a daemon that does not come up is none', async (t) => {
  const path = place(t)
  const state = await StateDirectory.open(path)
  await openIdentity(CREATE, { state, primitives, wallNow: () => NOW, join: noJoin })
  await state.close()
  t.match(await errorOf(life(path, OPEN)), { code: 'CARACAL_E_NO_NETWORK', next: /--create NAME.*--join TOKEN/ })
})

test('a network has a name', async (t) => {
  for (const create of ['', 'Home!', '-x', 'a'.repeat(64)]) {
    const path = place(t)
    t.match(await errorOf(life(path, { ...CREATE, create })), { code: 'CARACAL_E_USAGE' }, create)
    t.equal((await life(path, CREATE)).trust.profile.name, 'home', 'nothing was left behind')
  }
})

test('a second network on the same state is refused', async (t) => {
  const path = place(t)
  const { trust } = await life(path, CREATE)
  const error = await errorOf(life(path, { ...CREATE, create: 'other' }))
  t.match(error, { code: 'CARACAL_E_NETWORK_EXISTS', what: /the network home already/ })
  const { token } = office()
  t.match(await errorOf(life(path, { ...OPEN, join: token() })), {
    code: 'CARACAL_E_NETWORK_EXISTS',
    what: /the token is for work/,
  })
  t.equal((await life(path, OPEN)).trust.network, trust.network)
})

test('a host joins with a token, and may keep it in its command line', async (t) => {
  const path = place(t)
  const { token, admit, asked, network } = office()
  const text = token()
  const wish = { ...OPEN, name: 'h2', join: text }
  const identity = await life(path, wish, { join: admit() })
  t.match(identity.membership, { name: 'h2', tags: ['web'], network })
  t.match(identity.trust.profile, { name: 'work', zone: 'work.test' }, "the issuer's, not our own settings")
  t.equal(identity.authority, undefined)
  t.ok(identity.joined)
  const again = await life(path, wish, { now: NOW + 20 * DAY })
  t.equal(again.hostKey.id, identity.hostKey.id)
  t.equal(again.joined, undefined)
  t.equal(asked.length, 1, 'the token has expired long since, and nobody was asked')
})

test('a join that had no answer is repeated by the same host', async (t) => {
  const path = place(t)
  const { token, admit, asked } = office()
  const wish = { ...OPEN, name: 'h2', join: token() }
  const lost: Join = async (key, given, name) => {
    await admit()(key, given, name)
    throw new CaracalError('CARACAL_E_JOIN', 'no answer')
  }
  t.match(await errorOf(life(path, wish, { join: lost })), { code: 'CARACAL_E_JOIN' })
  await life(path, wish, { join: admit() })
  t.equal(asked.length, 2)
  t.equal(asked[0], asked[1], 'so that one use of the token is enough')
})

test('a refused join leaves nothing behind', async (t) => {
  const path = place(t)
  const { token } = office()
  for (const code of ['CARACAL_E_TOKEN_USED', 'CARACAL_E_NAME_TAKEN'] as const) {
    const refuse: Join = () => Promise.reject(new CaracalError(code, 'no'))
    t.match(await errorOf(life(path, { ...OPEN, join: token() }, { join: refuse })), { code })
    t.throws(() => statSync(join(path, stateFile.hostKey)), { code: 'ENOENT' })
  }
})

test('tokens that are none, or expired, are refused before anybody is asked', async (t) => {
  const { token } = office()
  const good = token()
  for (const [text, code, next] of [
    ['', 'CARACAL_E_TOKEN', /caracal invite/],
    ['hello', 'CARACAL_E_TOKEN', /caracal invite/],
    [good.slice(0, -5), 'CARACAL_E_TOKEN', /copy all of it/],
    [good.replace('caracal1', 'caracal9'), 'CARACAL_E_TOKEN', /upgrade/],
    [token(NOW - 1), 'CARACAL_E_TOKEN_EXPIRED', /new one/],
  ] as const) {
    t.match(await errorOf(life(place(t), { ...OPEN, join: text })), { code, next }, text)
  }
})

test('an expired membership, and a clock that is wrong, are told apart', async (t) => {
  const path = place(t)
  await life(path, CREATE)
  const late = await errorOf(life(path, OPEN, { now: NOW + 400 * DAY }))
  t.match(late, { code: 'CARACAL_E_MEMBERSHIP', what: /expired at .*clock says/, next: /join again/ })
  const other = place(t)
  const { token, admit } = office()
  const ahead = admit({ notBefore: NOW + DAY, notAfter: NOW + 2 * DAY })
  const early = await errorOf(life(other, { ...OPEN, join: token() }, { join: ahead }))
  t.match(early, { what: /not valid before .*clock says/ })
})

test('a clock that was set back does not make an old membership good again', async (t) => {
  const path = place(t)
  await life(path, CREATE)
  const state = await StateDirectory.open(path)
  const { trust, hostKey } = await openIdentity(OPEN, { state, primitives, wallNow: () => NOW, join: noJoin })
  // Another host joined almost a year later: it is not the clock alone that says so.
  const [host, later] = [HostKey.generate(primitives).id, NOW + 330 * DAY]
  const issuer = { certificate: trust.issuerCertificate!, authority: trust.authority }
  const times = { notBefore: later, notAfter: later + 366 * DAY }
  const newcomer = issueMembership(primitives, hostKey, issuer, { host, name: 'h2', tags: [], serial: 2, ...times })
  t.match(trust.verify(newcomer, later), { host })
  trust.observe(NOW + 400 * DAY)
  await state.write(stateFile.trust, trust.encode())
  await state.close()
  t.match(await errorOf(life(path, OPEN)), { code: 'CARACAL_E_MEMBERSHIP', what: /expired/ })
})

test('a clock that was far in the future once does not make everything look expired for ever', async (t) => {
  const path = place(t)
  await life(path, CREATE)
  const state = await StateDirectory.open(path)
  const { trust } = await openIdentity(OPEN, { state, primitives, wallNow: () => NOW, join: noJoin })
  t.equal(trust.observe(NOW + 9_000 * DAY), NOW + 9_000 * DAY, 'it is gone by while it says so')
  await state.write(stateFile.trust, trust.encode())
  await state.close()
  t.match(await life(path, OPEN, { now: NOW + 10 * DAY }), { membership: { name: 'h1' } })
})

test('a host that was revoked is told to begin anew, with a token or without', async (t) => {
  const path = place(t)
  const { authority } = await life(path, CREATE)
  const state = await StateDirectory.open(path)
  const { trust, hostKey, membership } = await openIdentity(OPEN, {
    ...{ state, primitives, wallNow: () => NOW, join: noJoin },
  })
  const entry = { host: hostKey.id, serial: membership.serial, time: NOW }
  t.type(trust.revocations.add(revokeAsAuthority(authority!, entry)), 'object')
  await state.write(stateFile.trust, trust.encode())
  await state.close()
  const line = { code: 'CARACAL_E_MEMBERSHIP', what: 'the membership of h1 has been revoked', next: /an empty --state/ }
  t.match(await errorOf(life(path, OPEN)), line)
  const token = new InviteToken(
    {
      ...{ network: trust.network, authority: trust.authority, profile: trust.profile, issuer: hostKey.id },
      ...{ locators: ['192.0.2.1:7474'], expiry: NOW + 60, tokenId: primitives.randomBytes(16), tags: [] },
    },
    primitives.randomBytes(32),
  ).text(primitives)
  t.match(await errorOf(life(path, { ...OPEN, join: token })), line, 'no token is spent on it')
})

test('a clock far behind is told of', async (t) => {
  const path = place(t)
  await life(path, CREATE)
  // The floor on disk is what the last daemon knew; a store that was put back from an older copy has an older one.
  const state = await StateDirectory.open(path)
  const identity = await openIdentity(OPEN, { state, primitives, wallNow: () => NOW, join: noJoin })
  const store = new TrustStore(primitives, { authority: identity.trust.authority, profile: identity.trust.profile })
  store.adoptMembership(identity.hostKey.id, identity.membership.bytes, NOW)
  await state.write(stateFile.trust, store.encode())
  await state.close()
  t.match(await errorOf(life(path, OPEN, { now: NOW - DAY })), { code: 'CARACAL_E_CLOCK', next: /clock/ })
})

test('files that are damaged or gone are named, and nothing is replaced', async (t) => {
  for (const file of [stateFile.hostKey, stateFile.authorityKey, stateFile.trust]) {
    const path = place(t)
    await life(path, CREATE)
    const whole = readFileSync(join(path, file))
    writeFileSync(join(path, file), whole.subarray(0, -1))
    for (const wish of [OPEN, CREATE]) {
      t.match(await errorOf(life(path, wish)), { code: 'CARACAL_E_STATE_DAMAGED', what: new RegExp(file) })
    }
    writeFileSync(join(path, file), whole)
    await life(path, OPEN)
  }
  for (const file of [stateFile.hostKey, stateFile.trust]) {
    const path = place(t)
    await life(path, CREATE)
    rmSync(join(path, file))
    for (const wish of [OPEN, { ...CREATE, create: 'second' }]) {
      const error = await errorOf(life(path, wish))
      if (file === stateFile.hostKey && wish.create !== undefined) t.match(error, { code: 'CARACAL_E_NETWORK_EXISTS' })
      else t.match(error, { code: 'CARACAL_E_STATE_DAMAGED', what: new RegExp(`not the file ${file}`) })
    }
  }
})

test("another host's key is not taken for this one's", async (t) => {
  const [path, other] = [place(t), place(t)]
  await life(path, CREATE)
  await life(other, CREATE)
  writeFileSync(join(path, stateFile.hostKey), readFileSync(join(other, stateFile.hostKey)))
  t.match(await errorOf(life(path, OPEN)), { code: 'CARACAL_E_STATE_DAMAGED', what: /host-key/ })
})
