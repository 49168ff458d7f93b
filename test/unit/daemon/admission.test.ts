import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { Admission } from '../../../daemon/admission.js'
import { stateFile } from '../../../daemon/identity.js'
import { noLog } from '../../../daemon/log.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { isMembershipProblem } from '../../../lib/crypto/membership.js'
import { revokeAsIssuer } from '../../../lib/crypto/revocations.js'
import { TokenLedger } from '../../../lib/crypto/token-ledger.js'
import { fromHex } from '../../../lib/wire/ids.js'
import { ask, folder, primitives, requestOf, RigNetwork, stateIn, tokenOf, wallNow, type Rig } from './rig.js'

const invitation = (changes: Partial<{ tags: string[]; uses: number; expiresAt: number }> = {}) => ({
  tags: [],
  uses: 1,
  expiresAt: wallNow() + 600,
  ...changes,
})

/** The ledger as the next daemon finds it after a crash at this moment. */
function onDisk({ files }: Rig, t: Parameters<typeof folder>[0]): Promise<TokenLedger | undefined> {
  const copy = folder(t)
  writeFileSync(join(copy, stateFile.tokens), readFileSync(join(files.path, stateFile.tokens)), { mode: 0o600 })
  return stateIn(t, copy).then((state) => state.read(stateFile.tokens, (bytes) => TokenLedger.decode(bytes)))
}

test('a token says where to ask and what the host will be', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const expiresAt = wallNow() + 60
  const token = tokenOf(await h1.admission.invite(invitation({ tags: ['web', 'db'], expiresAt }), wallNow()))
  t.equal(token.issuer, h1.host.id)
  t.strictSame(token.tags, ['web', 'db'])
  t.strictSame(token.locators, ['192.0.2.1:7474'])
  t.equal(token.expiry, Math.floor(expiresAt))
  t.match((await onDisk(h1, t))?.find(token.tokenId, h1.host.id, wallNow()), { usesLeft: 1 }, 'written down first')
})

test('who comes with it becomes a member', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation({ tags: ['web'] }), wallNow()))
  const key = HostKey.generate(primitives)
  const grant = ask(h1, token, key, 'h2')
  if (typeof grant === 'string' || 'refusal' in grant) throw new Error('refused')
  t.match(grant.profile, { name: 'home' })
  t.strictSame(grant.locators, [{ host: h1.host.id, locator: '192.0.2.1:7474' }])
  const membership = h1.identity.trust.verify(grant.membership, wallNow())
  if (isMembershipProblem(membership)) throw new Error(membership.detail)
  t.match(membership, { host: key.id, name: 'h2', tags: ['web'] })
  t.equal(h1.names.nameOfHost(key.id), 'h2', 'known here at once')
})

test('a use is on disk before the answer', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation({ uses: 2 }), wallNow()))
  const [a, b, c] = [1, 2, 3].map(() => HostKey.generate(primitives))
  for (const [key, name] of [
    [a!, 'h2'],
    [b!, 'h3'],
  ] as const) {
    ask(h1, token, key, name)
    const ledger = await onDisk(h1, t)
    t.not(ledger?.find(token.tokenId, key.id, wallNow()), 'unknown')
  }
  t.equal((await onDisk(h1, t))?.find(token.tokenId, c!.id, wallNow()), 'used-up')
  t.equal(ask(h1, token, c!, 'h4'), 'used-up')
})

test('uses are not undone by invitations that are being written', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation({ uses: 1_000 }), wallNow()))
  for (let round = 0; round < 3; round++) {
    let writing = true
    const inviting = h1.admission.invite(invitation(), wallNow()).finally(() => (writing = false))
    let last = HostKey.generate(primitives)
    for (let n = 0; writing; n++) {
      last = HostKey.generate(primitives)
      ask(h1, token, last, `r${round}n${n}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await inviting
    const ledger = await onDisk(h1, t)
    for (const host of [h1.host.id, last.id]) {
      const found = ledger?.find(token.tokenId, host, wallNow())
      const known = h1.identity.ledger.find(token.tokenId, host, wallNow())
      t.strictSame(found, known)
    }
  }
})

test('the same host again uses nothing up', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const key = HostKey.generate(primitives)
  t.ok('membership' in Object(ask(h1, token, key, 'h2')))
  t.ok('membership' in Object(ask(h1, token, key, 'h2')), 'its answer was lost')
  t.ok('membership' in Object(ask(h1, token, key, 'renamed')), 'or it was renamed')
})

test('a name that another host has is refused, and nothing is used up', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const key = HostKey.generate(primitives)
  t.match(ask(h1, token, key, 'h1'), { refusal: 'name-taken', detail: /called h1/ })
  t.match(h1.admission.find(token.tokenId, key.id, wallNow()), { usesLeft: 1 })
  t.ok('membership' in Object(ask(h1, token, key, 'h2')))
})

test('a membership that cannot be signed uses nothing up', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const key = HostKey.generate(primitives)
  t.match(ask(h1, token, key, 'no name'), { refusal: 'denied' })
  t.match(h1.admission.find(token.tokenId, key.id, wallNow()), { usesLeft: 1 })
})

test('an issuer whose disk is full lets nobody in, and lives on', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const blocker = join(h1.files.path, `${stateFile.tokens}.now.tmp`)
  mkdirSync(blocker)
  const key = HostKey.generate(primitives)
  t.match(ask(h1, token, key, 'h2'), { refusal: 'denied', detail: /cannot write/ })
  t.equal(h1.names.hostNamed('h2'), undefined)
  rmSync(blocker, { recursive: true })
  t.ok('membership' in Object(ask(h1, token, key, 'h2')))
})

test('expired and unknown tokens', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const now = wallNow()
  const token = tokenOf(await h1.admission.invite(invitation({ expiresAt: now + 60 }), now))
  const key = HostKey.generate(primitives)
  t.equal(h1.admission.find(token.tokenId, key.id, now + 61), 'expired')
  t.equal(h1.admission.find(new Uint8Array(16), key.id, now), 'unknown')
  const found = h1.admission.find(token.tokenId, key.id, now)
  if (typeof found === 'string') throw new Error(found)
  t.match(
    h1.admission.admit(requestOf(h1, token, key, 'h2'), found, now + 61),
    { refusal: 'expired' },
    'between the two',
  )
})

test('a host that comes back after its revocation in the same second is a member', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const token = tokenOf(await h1.admission.invite(invitation({ uses: 2 }), wallNow()))
  const key = HostKey.generate(primitives)
  ask(h1, token, key, 'h2')
  const { trust, authority, hostKey } = h1.identity
  if (authority === undefined || trust.issuerCertificate === undefined) throw new Error('no authority')
  const found = h1.admission.find(token.tokenId, key.id, wallNow())
  if (typeof found === 'string') throw new Error(found)
  const second = Math.floor(wallNow()) + 1
  const entry = { host: key.id, serial: second * 1000 + 300, time: second }
  const issuer = { certificate: trust.issuerCertificate, network: fromHex(trust.network) }
  t.type(trust.revocations.add(revokeAsIssuer(hostKey, issuer, entry)), 'object')
  const grant = h1.admission.admit(requestOf(h1, token, key, 'h2'), found, second + 0.6)
  if ('refusal' in grant) throw new Error(grant.detail)
  t.notOk(isMembershipProblem(trust.verify(grant.membership, second + 0.6)))
})

test('invitations that cannot be given', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const rejects = (changes: Parameters<typeof invitation>[0], code: string) =>
    t.rejects(h1.admission.invite(invitation(changes), wallNow()), { code }, JSON.stringify(changes))
  await rejects({ tags: ['Not a tag'] }, 'CARACAL_E_USAGE')
  await rejects({ tags: Array.from({ length: 40 }, (_, i) => `t${i}`) }, 'CARACAL_E_USAGE')
  for (const uses of [0, 1.5, 1_001]) await rejects({ uses }, 'CARACAL_E_USAGE')
  h1.locators = []
  await rejects({}, 'CARACAL_E_LISTEN')
  h1.locators = Array.from({ length: 20 }, (_, i) => ({ address: `192.0.2.${i + 1}`, port: 7474 }))
  t.equal(tokenOf(await h1.admission.invite(invitation(), wallNow())).locators.length, 8, 'the first of many places')
  for (let open = 0; open < 19; open++) await h1.admission.invite(invitation({ uses: 1_000 }), wallNow())
  await rejects({ uses: 1_000 }, 'CARACAL_E_BUSY')
})

test('only an issuer invites', async (t) => {
  const network = new RigNetwork(t)
  const h1 = await network.create()
  const h2 = await network.join(h1, 'h2')
  t.ok(h1.admission.isIssuer)
  t.notOk(h2.admission.isIssuer)
  await t.rejects(h2.admission.invite(invitation(), wallNow()), { code: 'CARACAL_E_NOT_ISSUER' })
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const key = HostKey.generate(primitives)
  const found = h1.admission.find(token.tokenId, key.id, wallNow())
  if (typeof found === 'string') throw new Error(found)
  t.match(h2.admission.admit(requestOf(h1, token, key, 'h3'), found, wallNow()), { refusal: 'denied' })
})

test('joins are logged, without the token', async (t) => {
  const h1 = await new RigNetwork(t).create()
  const lines: string[] = []
  const note = (fields: object, message: string) => void lines.push(`${message} ${JSON.stringify(fields)}`)
  const { identity, files } = h1
  let now = 0
  const admission = new Admission({
    identity,
    primitives,
    files,
    locators: () => [],
    hosts: () => h1.host,
    log: { ...noLog, info: note, warn: note },
    now: () => now,
  })
  const token = tokenOf(await h1.admission.invite(invitation(), wallNow()))
  const request = requestOf(h1, token, HostKey.generate(primitives), 'h2')
  admission.joined(request, { membership: new Uint8Array(0), locators: [] })
  admission.joined(request, { refusal: 'name-taken', detail: 'no' })
  t.match(lines, [/^a host has joined .*"name":"h2"/, /^a join was refused .*name-taken/])
  t.notOk(lines.some((line) => line.includes(Buffer.from(token.tokenId).toString('hex'))))
  // Whoever asks again and again does not fill the disk.
  for (let n = 0; n < 500; n++) admission.joined(request, { refusal: 'name-taken', detail: 'no' })
  t.equal(lines.length, 2)
  now = 10_000
  admission.joined(request, { refusal: 'name-taken', detail: 'no' })
  t.match(lines[2], /a join was refused .*"unlogged":500/)
})
