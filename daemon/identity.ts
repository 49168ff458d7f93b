import { Authority, nextSerial } from '../lib/crypto/authority.js'
import { HostKey } from '../lib/crypto/host-key.js'
import { isMembershipProblem, issueMembership, MEMBERSHIP_SECONDS, type Membership } from '../lib/crypto/membership.js'
import type { NetworkProfile } from '../lib/crypto/network-profile.js'
import type { Primitives } from '../lib/crypto/primitives.js'
import { SEED_LENGTH } from '../lib/crypto/signing-key.js'
import { parseToken, type InviteToken, type TokenProblem } from '../lib/crypto/token.js'
import { TokenLedger } from '../lib/crypto/token-ledger.js'
import { TrustStore } from '../lib/crypto/trust.js'
import { labelProblem } from '../lib/service/service-id.js'
import type { Joined } from '../lib/session/join-client.js'
import { CaracalError, type ErrorCode } from './errors.js'
import type { StateDirectory } from './state-files.js'

/** Who this host is, in which network, and what it may do there. */
export interface Identity {
  readonly hostKey: HostKey
  readonly trust: TrustStore
  /** The present one: it is renewed from time to time. */
  membership: Membership
  /** The network's authority, where its key lies on this host. */
  readonly authority: Authority | undefined
  /** Tokens given out here; hosts that are no issuers have an empty one. */
  readonly ledger: TokenLedger
  /** What joining told of other members. */
  readonly joined: Joined | undefined
}

export interface IdentityWish {
  /** Host name. */
  readonly name: string
  /** Name of the network to create. */
  readonly create: string | undefined
  /** Token to join with. */
  readonly join: string | undefined
  /** Of a network to create. */
  readonly pool: string
  readonly zone: string
}

export interface IdentityComponents {
  readonly state: StateDirectory
  readonly primitives: Primitives
  /** Seconds since the epoch. */
  readonly wallNow: () => number
  /** Joins over the network; rejects with CARACAL_E_JOIN and the like. */
  readonly join: (hostKey: HostKey, token: InviteToken, name: string) => Promise<Joined>
}

export const stateFile = {
  hostKey: 'host-key',
  authorityKey: 'authority-key',
  trust: 'trust',
  tokens: 'tokens',
} as const

const YEAR = 366 * 86_400
/** What is left to a host that is a member no more. */
export const rejoin = 'join again with a new token (`caracal invite` on an issuer) and an empty --state'
const AUTHORITY_YEARS = 20
/** The issuer gave nothing away to the key that asked. */
const refusals: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'CARACAL_E_TOKEN',
  'CARACAL_E_TOKEN_EXPIRED',
  'CARACAL_E_TOKEN_USED',
  'CARACAL_E_NAME_TAKEN',
])
const seed = (bytes: Uint8Array) => (bytes.length === SEED_LENGTH ? bytes : undefined)

/** This host's identity from its state directory; made by creating a network or joining one where there is none yet. */
export async function openIdentity(wish: IdentityWish, components: IdentityComponents): Promise<Identity> {
  const { state, primitives, wallNow } = components
  const trust = await state.read(stateFile.trust, (bytes) => TrustStore.decode(primitives, bytes))
  const ledger = (await state.read(stateFile.tokens, (bytes) => TokenLedger.decode(bytes))) ?? new TokenLedger()
  const hostSeed = await state.read(stateFile.hostKey, seed)
  const authoritySeed = await state.read(stateFile.authorityKey, seed)
  // A member may be started with its token for ever: only who is to join with it needs one that is still good.
  const isMember = trust?.membership !== undefined
  const token = wish.join === undefined ? undefined : readToken(primitives, wish.join, isMember ? 0 : wallNow())
  if (isMember) {
    refuseOther(state, trust, wish, token)
    if (hostSeed === undefined) throw incomplete(state, stateFile.hostKey)
    const hostKey = new HostKey(primitives, hostSeed)
    const authority = authoritySeed === undefined ? undefined : new Authority(primitives, authoritySeed)
    const membership = ownMembership(trust, wallNow())
    if (membership.host !== hostKey.id) throw incomplete(state, stateFile.hostKey)
    return { hostKey, trust, membership, authority, ledger, joined: undefined }
  }
  // A second network would replace the only key of the first.
  if (authoritySeed !== undefined) throw incomplete(state, stateFile.trust)
  const hostKey = hostSeed === undefined ? HostKey.generate(primitives) : new HostKey(primitives, hostSeed)
  if (token !== undefined) {
    // Before the token is spent, so that a repetition is the same host's.
    if (hostSeed === undefined) await state.write(stateFile.hostKey, hostKey.seed())
    try {
      return await joinNetwork(wish, components, hostKey, token, ledger)
    } catch (error) {
      const refused = error instanceof CaracalError && refusals.has(error.code)
      if (refused && hostSeed === undefined) await state.remove(stateFile.hostKey)
      throw error
    }
  }
  if (wish.create !== undefined) return createNetwork(wish, wish.create, components, hostKey, ledger)
  throw new CaracalError(
    'CARACAL_E_NO_NETWORK',
    `this host is in no network yet (${state.path})`,
    'create one with `caracal up --create NAME`, or join one with `caracal up --join TOKEN`',
  )
}

/** Files that belong together are not all there, or not of one host. */
function incomplete(state: StateDirectory, file: string): CaracalError {
  return new CaracalError(
    'CARACAL_E_STATE_DAMAGED',
    `${state.path} holds a network, but not the file ${file} that belongs to it`,
    `put ${file} back from a backup, or give another --state`,
  )
}

function refuseOther(
  state: StateDirectory,
  trust: TrustStore,
  wish: IdentityWish,
  token: InviteToken | undefined,
): void {
  const { name } = trust.profile
  if (wish.create !== undefined) {
    throw new CaracalError(
      'CARACAL_E_NETWORK_EXISTS',
      `this host is in the network ${name} already (${state.path})`,
      'leave out --create, or give another --state',
    )
  }
  if (token !== undefined && token.network !== trust.network) {
    throw new CaracalError(
      'CARACAL_E_NETWORK_EXISTS',
      `this host is in the network ${name} (${state.path}), and the token is for ${token.profile.name}`,
      'give another --state for a second network',
    )
  }
}

function ownMembership(trust: TrustStore, wallNow: number): Membership {
  const membership = trust.verify(trust.membership ?? new Uint8Array(0), trust.observe(wallNow))
  if (!isMembershipProblem(membership)) return membership
  const { problem, detail } = membership
  if (problem === 'not-yet-valid') throw new CaracalError('CARACAL_E_CLOCK', detail, "set this host's clock")
  const next = problem === 'expired' ? `if this host's clock is right, ${rejoin}` : rejoin
  throw new CaracalError('CARACAL_E_MEMBERSHIP', detail, next)
}

async function createNetwork(
  wish: IdentityWish,
  name: string,
  { state, primitives, wallNow }: IdentityComponents,
  hostKey: HostKey,
  ledger: TokenLedger,
): Promise<Identity> {
  const problem = labelProblem(name)
  if (problem !== undefined) {
    throw new CaracalError(
      'CARACAL_E_USAGE',
      `--create: ${JSON.stringify(name)} is no name of a network: ${problem}`,
      'give a name such as home',
    )
  }
  const profile: NetworkProfile = { name, ipv4Pool: wish.pool, zone: wish.zone }
  const authority = Authority.generate(primitives)
  const now = Math.floor(wallNow())
  const serial = nextSerial(now * 1000)
  const trust = new TrustStore(primitives, { authority: authority.publicKey, profile, floor: now })
  const certificate = authority.certifyIssuer({
    host: hostKey.id,
    tags: ['*'],
    notBefore: now,
    notAfter: now + AUTHORITY_YEARS * YEAR,
    serial,
  })
  trust.adoptIssuerCertificate(certificate)
  const bytes = issueMembership(
    primitives,
    hostKey,
    { certificate, authority: authority.publicKey },
    { host: hostKey.id, name: wish.name, tags: [], serial, notBefore: now, notAfter: now + MEMBERSHIP_SECONDS },
  )
  const membership = trust.adoptMembership(hostKey.id, bytes, now)
  if (isMembershipProblem(membership))
    throw new CaracalError('CARACAL_E_MEMBERSHIP', membership.detail, "check this host's clock")
  // A network of a daemon that does not come up is none: the caller releases the state when all is well.
  state.hold()
  await state.write(stateFile.hostKey, hostKey.seed())
  await state.write(stateFile.authorityKey, authority.seed())
  await state.write(stateFile.trust, trust.encode())
  return { hostKey, trust, membership, authority, ledger, joined: undefined }
}

async function joinNetwork(
  wish: IdentityWish,
  { state, primitives, wallNow, join }: IdentityComponents,
  hostKey: HostKey,
  token: InviteToken,
  ledger: TokenLedger,
): Promise<Identity> {
  const joined = await join(hostKey, token, wish.name)
  const trust = new TrustStore(primitives, {
    authority: token.authority,
    profile: joined.profile,
    floor: Math.floor(wallNow()),
  })
  const membership = trust.adoptMembership(hostKey.id, joined.membership.bytes, wallNow())
  if (isMembershipProblem(membership))
    throw new CaracalError('CARACAL_E_MEMBERSHIP', membership.detail, "check this host's clock")
  await state.write(stateFile.trust, trust.encode())
  return { hostKey, trust, membership, authority: undefined, ledger, joined }
}

function readToken(primitives: Primitives, text: string, wallNow: number): InviteToken {
  const token = parseToken(primitives, text, wallNow)
  if (!('problem' in token)) return token
  const code = token.problem === 'expired' ? 'CARACAL_E_TOKEN_EXPIRED' : 'CARACAL_E_TOKEN'
  throw new CaracalError(code, token.detail, tokenRemedies[token.problem])
}

const tokenRemedies: Record<TokenProblem['problem'], string> = {
  malformed: 'copy it again, or ask a member for one: caracal invite',
  truncated: 'copy all of it, it is one line',
  'unsupported-version': 'upgrade the older of the two hosts',
  expired: 'ask a member for a new one: caracal invite',
}
