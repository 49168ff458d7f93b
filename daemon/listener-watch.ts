import { readListeners, type Listener } from './listeners.js'

/** Between looks while clients come, servers come and go, or one is missing, and otherwise: a client that comes in between to a server that is gone is refused by the kernel, and goes elsewhere. */
const LOOK_MS = 200
const QUIET_LOOK_MS = 1_000
/** Quiet is what nothing has happened to for so long. */
const QUIET_AFTER_MS = 10_000

export interface ListenerWatchComponents {
  /** What listens is not what it was, or it is the first look: nobody knows what has happened since the last one of others. */
  readonly changed: () => void
  /** Monotonic ms. */
  readonly now: () => number
  /** Folder of the kernel's socket tables, another than this process's in tests. */
  readonly listenersFrom?: string
}

/** Looks what listens on this host, several times a second. It takes the kernel a fraction of a millisecond each time, which packets need not wait for: any thread may do it. */
export class ListenerWatch {
  #timer: NodeJS.Timeout | undefined
  /** The timer is the one of quiet times. */
  #quiet = false
  #busyAt = -Infinity
  #missing = false
  #protocols: ReadonlySet<Listener['protocol']> = new Set()
  /** What listened at the last look; undefined: there was none. */
  #last: string | undefined

  constructor(private readonly components: ListenerWatchComponents) {}

  /** Something happens to servers of these protocols, and no others matter: looks follow each other more closely for a while; with `missing`, until it is called without: a server is waited for. */
  busy(protocols: readonly Listener['protocol'][], missing: boolean): void {
    this.#busyAt = this.components.now()
    this.#missing = missing
    if (protocols.some((protocol) => !this.#protocols.has(protocol))) this.#last = undefined
    this.#protocols = new Set(protocols)
    if (this.#quiet || protocols.length === 0) this.#disarm()
    this.#arm()
  }

  stop(): void {
    this.#protocols = new Set()
    this.#disarm()
  }

  #disarm(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #arm(): void {
    if (this.#timer !== undefined || this.#protocols.size === 0) return
    this.#quiet = !this.#missing && this.components.now() - this.#busyAt >= QUIET_AFTER_MS
    const within = this.#quiet ? QUIET_LOOK_MS : LOOK_MS
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#look()
      this.#arm()
    }, within).unref()
  }

  #look(): void {
    let found: string
    try {
      found = readListeners(this.#protocols, this.components.listenersFrom).map(textOf).sort().join()
    } catch {
      // As when the process has no descriptors left: the next look will do.
      return
    }
    if (found === this.#last) return
    this.#last = found
    this.#busyAt = this.components.now()
    this.components.changed()
  }
}

function textOf({ protocol, port, address }: Listener): string {
  return `${protocol} ${port} ${address.join('.')}`
}
