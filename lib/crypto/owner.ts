import type { Primitives } from './primitives.js'
import { SEED_LENGTH, SigningKey } from './signing-key.js'

/** The key behind a self-certifying service name (lib/service/service-id.ts gives the name of its public half): who holds it can register there. */
export class OwnerKey extends SigningKey {
  static generate(primitives: Primitives): OwnerKey {
    return new OwnerKey(primitives, primitives.randomBytes(SEED_LENGTH))
  }
}
