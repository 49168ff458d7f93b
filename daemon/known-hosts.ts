import { z } from 'zod'
import { formatLocator, parseLocator, type Locator } from '../lib/path/locator.js'
import { hostId, type HostId } from '../lib/wire/ids.js'
import type { Log } from './log.js'
import type { StateDirectory } from './state-files.js'

/** Where a host was reached, the newest first. */
export interface KnownHost {
  readonly host: HostId
  readonly locators: readonly Locator[]
}

export interface KnownHostsComponents {
  readonly files: StateDirectory
  /** What is to be kept, the hosts proven last at the end. */
  readonly remembered: () => readonly KnownHost[]
  readonly log: Log
}

const FILE = 'peers'
const GATHER_MS = 2_000
const shape = z.array(z.object({ host: z.string().regex(/^[0-9a-f]{64}$/), locators: z.array(z.string()) }))

/** Remembers over restarts where other hosts were reached. */
export class KnownHosts {
  #timer: NodeJS.Timeout | undefined
  #writtenAt = -Infinity

  constructor(private readonly components: KnownHostsComponents) {}

  async read(): Promise<KnownHost[]> {
    const saved = (await this.components.files.read(FILE, (bytes) => shape.safeParse(parseJson(bytes)).data)) ?? []
    return saved.map(({ host, locators }) => ({
      host: hostId(host),
      locators: locators.flatMap((text) => parseLocator(text) ?? []),
    }))
  }

  /** Something new is known: it is written at once, or before long where that was done lately. */
  changed(): void {
    const wait = Math.max(0, this.#writtenAt + GATHER_MS - performance.now())
    this.#timer ??= setTimeout(() => void this.write(), wait).unref()
  }

  /** Writes now. A failure is logged: what is lost is found again. */
  async write(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writtenAt = performance.now()
    const { files, remembered, log } = this.components
    const saved = remembered().map(({ host, locators }) => ({ host, locators: locators.map(formatLocator) }))
    await files.write(FILE, Buffer.from(JSON.stringify(saved))).catch((error: unknown) => {
      log.error({ error }, 'known hosts could not be written')
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
