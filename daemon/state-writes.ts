import type { Host } from '../lib/host/host.js'
import { areClaims } from '../lib/host/name-claims.js'
import { savedMappings, type SavedMappings } from '../lib/service/addresses.js'
import { stateFile, type Identity } from './identity.js'
import type { Log } from './log.js'
import type { StateDirectory } from './state-files.js'
import { wallNow } from './wall-clock.js'

const MAPPINGS_FILE = 'addresses'
const CLAIMS_FILE = 'name-claims'

/** Address mappings of before a restart. */
export function readMappings(files: StateDirectory): Promise<SavedMappings | undefined> {
  return files.read(MAPPINGS_FILE, (bytes) => savedMappings.safeParse(parseJson(bytes)).data)
}

/** Name claims of before a restart. */
export function readClaims(files: StateDirectory): Promise<Uint8Array | undefined> {
  return files.read(CLAIMS_FILE, (bytes) => (areClaims(bytes) ? bytes : undefined))
}

/** Brings to disk what the host has learnt. Failures are logged whether or not anybody waits. */
export class StateWrites {
  #mappings: Promise<void> = Promise.resolve()
  #mappingsLost = false

  constructor(
    private readonly c: {
      readonly files: StateDirectory
      readonly identity: Identity
      readonly host: Host
      readonly log: Log
    },
  ) {}

  mappings(): void {
    const { files, host, log } = this.c
    const bytes = Buffer.from(JSON.stringify(host.addresses.exportMappings()))
    this.#mappings = files.write(MAPPINGS_FILE, bytes)
    this.#mappings.catch((error: unknown) => {
      this.#mappingsLost = true
      log.error({ error }, 'address mappings could not be written')
    })
  }

  /** Resolves when the mappings are on disk; what could not be written before is tried again. */
  mappingsWritten(): Promise<void> {
    if (this.#mappingsLost) {
      this.#mappingsLost = false
      this.mappings()
    }
    return this.#mappings
  }

  /** Resolves when it is on disk. */
  trust(): Promise<void> {
    const { files, identity, log } = this.c
    identity.trust.observe(wallNow())
    const done = files.write(stateFile.trust, identity.trust.encode())
    done.catch((error: unknown) => log.error({ error }, 'the trust store could not be written'))
    return done
  }

  /** On disk when it returns. */
  trustNow(): void {
    const { files, identity, log } = this.c
    try {
      files.writeNow(stateFile.trust, identity.trust.encode())
    } catch (error) {
      log.error({ error }, 'the trust store could not be written')
    }
  }

  claims(): void {
    const { files, host, log } = this.c
    files.write(CLAIMS_FILE, host.exportClaims()).catch((error: unknown) => {
      log.error({ error }, 'the claims of names could not be written')
    })
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
