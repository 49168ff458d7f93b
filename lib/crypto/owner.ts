import { concat, fromBase64url, toBase64url, utf8 } from '../wire/bytes.js'
import type { Primitives } from './primitives.js'
import { SEED_LENGTH, SigningKey } from './signing-key.js'

const WORD = 'caracal-key-1'
const CHECK_LENGTH = 4
const CHECK_LABEL = 'caracal/1 key file'
/** Characters that a key's file may have. */
export const KEY_TEXT_MAX = 1_024

/** The key behind a self-certifying service name (lib/service/service-id.ts gives the name of its public half): who holds it can register there. */
export class OwnerKey extends SigningKey {
  static generate(primitives: Primitives): OwnerKey {
    return new OwnerKey(primitives, primitives.randomBytes(SEED_LENGTH))
  }

  /** A key from the text of its file, in which lines after `#` are for people. Total. undefined: none, or a character was lost or changed. */
  static parse(primitives: Primitives, text: string): OwnerKey | undefined {
    if (text.length > KEY_TEXT_MAX) return undefined
    const lines = text.split('\n').map((line) => line.trim())
    const [line = '', ...more] = lines.filter((one) => one !== '' && !one.startsWith('#'))
    const [word, digits, ...rest] = line.split(/\s+/)
    if (more.length > 0 || rest.length > 0 || word !== WORD || digits === undefined) return undefined
    const bytes = fromBase64url(digits)
    if (bytes?.length !== SEED_LENGTH + CHECK_LENGTH) return undefined
    const seed = bytes.subarray(0, SEED_LENGTH)
    if (!primitives.equal(check(primitives, seed), bytes.subarray(SEED_LENGTH))) return undefined
    return new OwnerKey(primitives, seed)
  }

  /** The secret, for its file only: one line. */
  text(primitives: Primitives): string {
    const seed = this.seed()
    return `${WORD} ${toBase64url(concat([seed, check(primitives, seed)]))}`
  }
}

/** Tells a slip in the text, which would be another key without a word. */
function check(primitives: Primitives, seed: Uint8Array): Uint8Array {
  return primitives.blake2b(concat([utf8(`${CHECK_LABEL}\0`), seed]), 32).slice(0, CHECK_LENGTH)
}
