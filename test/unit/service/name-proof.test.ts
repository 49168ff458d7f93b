import { test } from 'tap'
import { OwnerKey } from '../../../lib/crypto/owner.js'
import { formatProof, isProven, parseProof, PROOF_TEXT_LENGTH, proveName } from '../../../lib/service/name-proof.js'
import { keyName, parseServiceName, plainLabels } from '../../../lib/service/service-id.js'
import { host, idOf, primitives } from './fixtures.js'

test('a proof comes back from its text, and is for one key, name and host', async (t) => {
  const key = OwnerKey.generate(primitives)
  const service = idOf(keyName(key.publicKey).text)
  const proof = proveName(key, service, host('h1'))
  const text = formatProof(proof)
  t.equal(text.length, PROOF_TEXT_LENGTH)
  t.match(text, /^[A-Za-z0-9_-]+$/)
  t.strictSame(parseProof(text), proof)
  t.ok(isProven(primitives, key.publicKey, proof))
  t.notOk(isProven(primitives, key.publicKey, { ...proof, host: host('h2') }))
  t.notOk(isProven(primitives, key.publicKey, { ...proof, service: idOf('web') }))
  t.notOk(isProven(primitives, OwnerKey.generate(primitives).publicKey, proof))
  t.equal(parseProof(`${text.slice(0, -1)}`), undefined)
  t.equal(parseProof(`B${text.slice(1)}`), undefined, 'another version')
  t.equal(parseProof(''), undefined)
})

test('a key comes back from its file, and a slip in it is noticed', async (t) => {
  const key = OwnerKey.generate(primitives)
  const text = key.text(primitives)
  const read = (file: string) => OwnerKey.parse(primitives, file)
  t.strictSame(read(`# mine\n\n ${text}\n`)?.publicKey, key.publicKey)
  const at = 30
  t.equal(read(text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)), undefined)
  t.equal(read(`${text}\n${text}`), undefined)
  t.equal(read(`${text} more`), undefined)
  t.equal(read('# nothing'), undefined)
  t.equal(read(text.replace('1', '2')), undefined, 'another version')
  t.equal(read(`${'#'.repeat(1_100)}\n${text}`), undefined)
})

test('a self-certifying name has a spelling of letters, digits and hyphens', async (t) => {
  const name = keyName(new Uint8Array(32).fill(9))
  const plain = plainLabels(name.text)
  t.match(plain, /^k--[a-z2-7]{52}$/)
  t.strictSame(parseServiceName(plain), name)
  t.strictSame(parseServiceName(plain.toUpperCase()), name)
  t.equal(plainLabels('web'), 'web')
  t.match(parseServiceName('k--web'), { kind: 'labels' })
  t.match(parseServiceName(`${plain.slice(0, -1)}b`), { problem: /last digit/ }, 'spare bits that are not zero')
})
