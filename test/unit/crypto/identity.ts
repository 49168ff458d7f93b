// A network for tests: its authority, an issuer, and what they sign.
import { Authority } from '../../../lib/crypto/authority.js'
import { HostKey } from '../../../lib/crypto/host-key.js'
import { issueMembership } from '../../../lib/crypto/membership.js'
import { RevocationList } from '../../../lib/crypto/revocations.js'
import { sodium as primitives } from '../../tools/sodium.js'

export { primitives }
/** 2026-01-01T00:00:00Z */
export const NOW = 1_767_225_600
export const DAY = 86_400

export class TestNetwork {
  readonly authority = Authority.generate(primitives)
  readonly issuer = HostKey.generate(primitives)
  readonly certificate: Uint8Array
  readonly revocations = new RevocationList(primitives, this.authority.publicKey)

  constructor(tags: readonly string[] = ['*']) {
    this.certificate = this.authority.certifyIssuer({
      host: this.issuer.id,
      tags,
      notBefore: NOW - DAY,
      notAfter: NOW + 365 * DAY,
      serial: 1,
    })
  }

  member(host: HostKey, changes: Partial<Parameters<typeof issueMembership>[3]> = {}): Uint8Array {
    return issueMembership(
      primitives,
      this.issuer,
      { certificate: this.certificate, authority: this.authority.publicKey },
      { host: host.id, name: 'h2', tags: ['web'], notBefore: NOW, notAfter: NOW + 30 * DAY, serial: 10, ...changes },
    )
  }

  check(wallNow = NOW) {
    return { authority: this.authority.publicKey, wallNow, revocations: this.revocations }
  }
}
