import { openIssuer, type Issuer } from '../crypto/authority.js'
import type { Primitives } from '../crypto/primitives.js'
import type { RevocationList } from '../crypto/revocations.js'
import { openStamp, type Stamp } from '../crypto/stamp.js'
import { toHex, type HostId, type NetworkId } from '../wire/ids.js'
import type { Title } from './ownership.js'
import type { NameClaim } from './registration.js'

/** Issuer certificates whose signature has been checked. */
const CERTIFICATES_MAX = 256

/** Reads the stamps of claims: whether they are genuine, and what they are worth now. */
export class Stamps {
  readonly #c
  /** By their bytes: few issuers sign many stamps. undefined: not the authority's. */
  readonly #certificates = new Map<string, Issuer | undefined>()

  constructor(components: {
    readonly primitives: Primitives
    readonly network: NetworkId
    /** Public key. */
    readonly authority: Uint8Array
    readonly revocations: RevocationList
  }) {
    this.#c = components
  }

  /** The claim's stamp, if it is one of this network for this host and name. */
  open(host: HostId, { service, stamp }: Pick<NameClaim, 'service' | 'stamp'>): Stamp | undefined {
    if (stamp === undefined) return undefined
    const { primitives, network } = this.#c
    return openStamp(primitives, stamp, { network, service, host }, (certificate) => this.#issuer(certificate))
  }

  /**
   * What the stamp is worth. Of an issuer that was revoked, what it stamped before the revocation still ranks above claims without a stamp, or the revocation would put all names it ever
   * stamped up for whoever comes first; but below the stamps of issuers that stand, since whoever has its key can back-date. Its later stamps are worth nothing: undefined.
   */
  title({ time, issuer }: Stamp): Title | undefined {
    const revokedAt = this.#c.revocations.issuerRevokedAt(issuer.host, issuer.serial)
    if (revokedAt === undefined) return { time, firm: true }
    return time < revokedAt ? { time, firm: false } : undefined
  }

  #issuer(certificate: Uint8Array): Issuer | undefined {
    const key = toHex(certificate)
    if (this.#certificates.has(key)) return this.#certificates.get(key)
    const issuer = openIssuer(this.#c.primitives, certificate, this.#c.authority)
    const [oldest] = this.#certificates.keys()
    if (this.#certificates.size >= CERTIFICATES_MAX && oldest !== undefined) this.#certificates.delete(oldest)
    this.#certificates.set(key, issuer)
    return issuer
  }
}
