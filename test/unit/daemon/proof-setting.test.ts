import { test } from 'tap'
import { ownNameOf, proofOf } from '../../../daemon/proof-setting.js'
import { OwnerKey } from '../../../lib/crypto/owner.js'
import { formatProof, parseProof, proveName } from '../../../lib/service/name-proof.js'
import { keyName, serviceIdOf } from '../../../lib/service/service-id.js'
import { networkId, type NetworkId } from '../../../lib/wire/ids.js'
import { host, network, primitives } from '../service/fixtures.js'

const [h1, h2] = [host('h1'), host('h2')]
const key = OwnerKey.generate(primitives)
const name = keyName(key.publicKey)
const check = { primitives, network, host: h1, showHost: (id: string) => (id === h1 ? 'h1' : 'h2') }
const proof = (by = key, at: NetworkId = network, to = h1, of = name) =>
  formatProof(proveName(by, serviceIdOf(of, at, primitives), to))

test('what a registration carries', async (t) => {
  t.equal(proofOf('web', undefined, check), undefined)
  t.equal(proofOf(ownNameOf(h1), undefined, check), undefined, 'its own')
  t.strictSame(proofOf(name.text, proof(), check), parseProof(proof())?.signature)
  t.strictSame(proofOf(`k--${name.text.slice(1)}`, proof(), check), parseProof(proof())?.signature)
})

test('what is wrong is said', async (t) => {
  const other = OwnerKey.generate(primitives)
  const cases: [name: string, proof: string | undefined, message: RegExp][] = [
    ['web', proof(), /web is no self-certifying name: leave out the proof/],
    [
      name.text,
      undefined,
      /only the holder of its key says who .+: have its holder run `caracal key proof FILE --host h1`/,
    ],
    [ownNameOf(h2), undefined, /only the holder of its key/],
    [name.text, '', /this is no proof/],
    [name.text, `${proof()}A`, /this is no proof/],
    [name.text, proof(key, networkId('7'.repeat(64))), /for another network/],
    [name.text, proof(key, network, h1, keyName(other.publicKey)), /for another name than ~/],
    [name.text, proof(key, network, h2), /for the host h2, and this is h1/],
    [name.text, proof(other), /not signed with the key of ~/],
  ]
  for (const [text, given, message] of cases)
    t.throws(() => proofOf(text, given, check), { code: 'CARACAL_E_PROOF', message })
  t.throws(() => proofOf('~abc', proof(), check), { code: 'CARACAL_E_NAME' })
})
