import { CaracalError, messageOf } from './errors.js'
import { HostLinks } from './host-links.js'
import { NetlinkAsk, parseNetlink, type NetlinkMessage } from './netlink-messages.js'
import { native, type NativeHandle } from './native.js'

const DATAGRAM = 32_768
/** Datagrams before the event loop goes on. */
const ROUNDS = 64
/** A dump during which something changed is asked for again, but not for ever: the changes themselves come as messages too. */
const TRIES = 5
/** Where changes do not end, they are told once in this time; before that, so many at once: what moves a host is not to wait. */
const PAUSE_MS = 50
const AT_ONCE = 16
/** What could not be told is told again after so long. */
const AGAIN_MS = 1_000

/** Keeps what the kernel tells of this network namespace's links, addresses and default routes, as it happens. Not to be used after `close`. */
export class NetworkWatcher {
  /** How often messages were lost, and everything was read anew. */
  overruns = 0
  #links = new HostLinks()
  readonly #native = native()
  readonly #handle: NativeHandle
  readonly #data = new Uint8Array(DATAGRAM)
  #sequence = 0
  /** Tellings that may follow at once, as of then. */
  #atOnce = AT_ONCE
  #asOf = 0
  #timer: NodeJS.Timeout | undefined
  #open = true

  /** `except`: name of the link whose own state and addresses do not matter: the own TUN's. Throws CARACAL_E_NETLINK. */
  constructor(
    private readonly except: string,
    private readonly components: {
      readonly changed: () => void
      /** `changed` has thrown; it is called again later. */
      readonly fault: (error: unknown) => void
      /** Nothing more will be heard. */
      readonly failed: (error: unknown) => void
    },
  ) {
    try {
      this.#handle = this.#native.netlinkOpen()
    } catch (error) {
      throw unheard(error)
    }
    try {
      this.#readAll()
      this.#watch()
    } catch (error) {
      this.close()
      throw unheard(error)
    }
  }

  get links(): HostLinks {
    return this.#links
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    clearTimeout(this.#timer)
    this.#native.close(this.#handle)
  }

  #watch(): void {
    this.#native.watch(this.#handle, () => {
      let matters: boolean
      try {
        matters = this.#readChanges()
      } catch (error) {
        this.close()
        return this.components.failed(error)
      }
      if (matters) this.#tellSoon()
    })
  }

  /** Takes in what is there; whether it matters. */
  #readChanges(): boolean {
    let matters = false
    for (let i = 0; i < ROUNDS; i++) {
      const messages = this.#next()
      if (messages === undefined) break
      if (messages === 'overrun') {
        this.overruns++
        this.#readAll()
        matters = true
        break
      }
      for (const message of messages) if (this.#links.apply(message, this.except)) matters = true
    }
    return matters
  }

  #tellSoon(): void {
    if (this.#timer !== undefined) return
    const now = performance.now()
    this.#atOnce = Math.min(AT_ONCE, this.#atOnce + (now - this.#asOf) / PAUSE_MS)
    this.#asOf = now
    if (this.#atOnce >= 1) {
      this.#atOnce--
      this.#tell()
    } else this.#tellAfter(PAUSE_MS)
  }

  #tellAfter(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#tell()
    }, ms)
  }

  #tell(): void {
    try {
      this.components.changed()
    } catch (error) {
      this.components.fault(error)
      if (this.#open) this.#tellAfter(AGAIN_MS)
    }
  }

  /** Everything there is, in place of what is kept. The kernel makes each part of the answer while the one before it is fetched: there is nothing to wait for. */
  #readAll(): void {
    for (let attempt = 1; attempt <= TRIES; attempt++) {
      // What waits is older than the answer: with a gap in it, it would bring back what is gone.
      while (this.#next() !== undefined);
      const links = new HostLinks()
      // Links first: the others are judged by them.
      const whole = [NetlinkAsk.links, NetlinkAsk.addresses, NetlinkAsk.routes].every((type) => this.#read(type, links))
      this.#links = links
      if (whole) return
    }
  }

  /** Asks for all objects of a kind; false: something may be missing. */
  #read(type: number, links: HostLinks): boolean {
    let whole = true
    const sequence = ++this.#sequence % 2 ** 32
    this.#native.netlinkAsk(this.#handle, type, sequence)
    for (;;) {
      const messages = this.#next()
      if (messages === undefined) return false
      if (messages === 'overrun') {
        whole = false
        continue
      }
      for (const message of messages) {
        if (message.kind !== 'done') links.apply(message, this.except)
        else if (message.sequence === sequence) return whole && message.error === 0 && !message.interrupted
      }
    }
  }

  #next(): readonly NetlinkMessage[] | 'overrun' | undefined {
    const length = this.#native.netlinkRead(this.#handle, this.#data)
    if (length === 0) return undefined
    if (length < 0) return 'overrun'
    const messages = parseNetlink(this.#data.subarray(0, length))
    return messages.some(({ kind }) => kind === 'overrun') ? 'overrun' : messages
  }
}

function unheard(error: unknown): CaracalError {
  const what = `what the kernel says of links and addresses cannot be heard (${messageOf(error)})`
  return new CaracalError('CARACAL_E_NETLINK', what, 'where a sandbox filters system calls, allow AF_NETLINK sockets', {
    cause: error,
  })
}
