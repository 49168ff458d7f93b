import { randomFillSync } from 'node:crypto'
import { loadSodium } from '../../lib/crypto/sodium.js'

/** The portable primitives, with randomness of the system: for tests that run no host with seeded ones. */
export const sodium = await loadSodium((length) => randomFillSync(new Uint8Array(length)))
