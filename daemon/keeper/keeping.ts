// What of a running daemon outlives it: its keeper is given the queues of the TUN device and the UDP sockets, what the next daemon has to know of them, and what to do when none comes.

import { z } from 'zod'
import { formatLocator } from '../../lib/path/locator.js'
import { LANES_MAX } from '../../lib/session/payload.js'
import { LISTEN_MAX, type Config } from '../config.js'
import { messageOf } from '../errors.js'
import type { HeldLane } from '../lanes/lanes.js'
import type { Log } from '../log.js'
import type { NativeHandle } from '../native.js'
import { closeHeld, stateOf, type KeeperLink } from './keeper-link.js'
import { startKeeper, type FoundKeeper } from './keeper-process.js'
import {
  holdRequest,
  noteRequest,
  planRequest,
  stateRequest,
  type KeeperCommand,
  type KeeperState,
} from './keeper-wire.js'

const noteShape = z.object({
  version: z.literal(1),
  host: z.string(),
  tun: z.string(),
  /** `offload.vnet-header` and `listen` of the configuration. */
  vnetHeader: z.boolean(),
  listen: z.array(z.string()),
  /** Of the first lane, then of each lane that has a queue of its own. */
  sockets: z.array(z.number().int().min(1).max(LISTEN_MAX)).min(1).max(LANES_MAX),
  /** Daemons that went on with what another one had left. */
  takeovers: z.number().int().min(0),
})
type Note = z.infer<typeof noteShape>

/** What a former daemon has left, and this one goes on with. */
export interface Kept {
  readonly link: KeeperLink
  readonly host: string
  readonly queue: NativeHandle
  readonly sockets: readonly NativeHandle[]
  readonly lanes: readonly HeldLane[]
  /** How often that has been so, this time included. */
  readonly takeovers: number
  /** Our zone was withdrawn meanwhile. */
  readonly withdrew: boolean
  /** The handles above are good until then. */
  readonly release: () => void
}

/** What of the configuration must be as it was; the rest is set anew on what is there. */
export type KeptSettings = Pick<Config, 'listen'> & {
  readonly tun: Pick<Config['tun'], 'name'>
  readonly offload: Pick<Config['offload'], 'vnetHeader'>
}

const queueName = (lane: number) => `tun-${lane}`
const socketName = (lane: number, i: number) => `udp-${lane}-${i}`

/** What was found as this daemon takes it over, or a clause that says why it cannot be. */
export function keptOf({ link, state, held }: FoundKeeper, wanted: KeptSettings, lanes: number): Kept | string {
  const note = readNote(state.note)
  if (note === undefined) return 'it was left by another version'
  if (note.tun !== wanted.tun.name) return `it is the device ${note.tun}`
  if (note.vnetHeader !== wanted.offload.vnetHeader) return '`offload.vnet-header` was another one'
  if (note.listen.join() !== wanted.listen.map(formatLocator).join())
    return `it listens on ${note.listen.join(' and ')}`
  if (note.sockets.length !== lanes) return `it has ${note.sockets.length} lanes`
  const all = note.sockets.map((count, lane) => ({
    queue: held.get(queueName(lane)),
    sockets: Array.from({ length: count }, (_, i) => held.get(socketName(lane, i))).filter((one) => one !== undefined),
  }))
  const whole = all.flatMap(({ queue, sockets }, lane) =>
    queue !== undefined && sockets.length === note.sockets[lane] ? [{ queue, sockets }] : [],
  )
  const [first, ...others] = whole
  const unreleased = new Map(held)
  if (first === undefined || whole.length !== lanes) return 'some of it is missing'
  return {
    link,
    host: note.host,
    ...first,
    lanes: others,
    takeovers: note.takeovers + 1,
    withdrew: state.withdrew,
    release: () => {
      closeHeld(unreleased)
      unreleased.clear()
    },
  }
}

/** The device that was left; undefined: it cannot be told. */
export function deviceOf({ state }: FoundKeeper): string | undefined {
  return readNote(state.note)?.tun
}

function readNote(bytes: Uint8Array): Note | undefined {
  try {
    return noteShape.safeParse(JSON.parse(Buffer.from(bytes).toString('utf8'))).data
  } catch {
    return undefined
  }
}

/** What is known without asking it. */
export interface KeeperSummary {
  /** It is wanted (setting `keeper.on`). */
  readonly on: boolean
  /** null: there is none. */
  readonly pid: number | null
  /** What it was given. */
  readonly descriptors: number
  readonly takeovers: number
}

/** What it says itself. */
export interface KeeperReport extends KeeperSummary {
  readonly held: number
  /** The table of flows outlives this daemon. */
  readonly flows: boolean
  readonly failedCommands: number
  readonly problem: string | undefined
}

export interface KeepingOptions {
  readonly directory: string
  readonly settings: Config['keeper']
  readonly log: Log
  readonly note: Omit<Note, 'version' | 'takeovers' | 'sockets'>
  readonly holdings: readonly HeldLane[]
  /** File of the flow table; undefined: it is this process's own memory. */
  readonly flowFile: string | undefined
  readonly withdraw: readonly KeeperCommand[]
  /** Without the flow table's file. */
  readonly giveUp: readonly KeeperCommand[]
}

/** A keeper that ended by itself is followed by another at once; one that ends again, after this, ms. */
const AGAIN_MS = 60_000
/** Requests under way at a time: what more would be has no room in the socket. */
const UNDER_WAY_MAX = 16

/** A running daemon's side of its keeper. */
export class Keeping {
  /** To a keeper that has everything. */
  #link: KeeperLink | undefined
  /** To one that is being given everything. */
  #giving: KeeperLink | undefined
  #pid: number | null = null
  #problem: string | undefined
  #again: NodeJS.Timeout | undefined
  #followedAt = -Infinity
  #ended = false

  private constructor(
    private readonly options: KeepingOptions,
    readonly takeovers: number,
  ) {}

  /** Gives the keeper everything; starts one where there is none. Never throws: a daemon without a keeper works, and says so. */
  static async begin(options: KeepingOptions, kept: Kept | undefined): Promise<Keeping> {
    const keeping = new Keeping(options, kept?.takeovers ?? 0)
    if (!options.settings.on) {
      await kept?.link.end()
      return keeping
    }
    await keeping.#give(kept?.link)
    return keeping
  }

  /** Everything goes on without this daemon. False: it does not, as nobody holds it. */
  get holds(): boolean {
    return this.#link?.open === true
  }

  get summary(): KeeperSummary {
    const pid = this.holds ? this.#pid : null
    return { on: this.options.settings.on, pid, descriptors: this.#names().size, takeovers: this.takeovers }
  }

  async report(): Promise<KeeperReport> {
    const link = this.#link
    let state: KeeperState | undefined
    let problem = this.#problem
    try {
      if (link?.open === true) state = stateOf(await link.ask(stateRequest()))
    } catch (error) {
      problem = messageOf(error)
    }
    return {
      ...this.summary,
      held: state?.descriptors ?? 0,
      flows: this.options.flowFile !== undefined,
      failedCommands: state?.failedCommands ?? 0,
      problem,
    }
  }

  /** The keeper ends, and what only it still holds is closed. */
  async end(): Promise<void> {
    this.#leave()
    await this.#giving?.end()
    await this.#link?.end()
  }

  /** The keeper goes on alone. */
  leave(): void {
    this.#leave()
    this.#giving?.close()
    this.#link?.close()
  }

  #leave(): void {
    this.#ended = true
    clearTimeout(this.#again)
  }

  #names(): Map<string, NativeHandle> {
    return new Map(
      this.options.holdings.flatMap(({ queue, sockets }, lane) => [
        [queueName(lane), queue] as const,
        ...sockets.map((socket, i) => [socketName(lane, i), socket] as const),
      ]),
    )
  }

  async #give(link: KeeperLink | undefined): Promise<void> {
    let to = link
    try {
      to ??= await startKeeper(this.options.directory)
      if (this.#ended) return to.close()
      this.#giving = to
      this.#pid = await this.#tell(to)
      this.#link = to
      this.#problem = undefined
      void to.ended.then(() => this.#lost())
    } catch (error) {
      // One that has a part of it is in the way of the next.
      await to?.end()
      if (this.#ended) return
      this.#problem = messageOf(error)
      const next = 'another one is started within a minute; `caracal doctor` tells whether there is one'
      this.options.log.warn({ error }, `open connections do not outlive this daemon, as it has no keeper: ${next}`)
      this.#later()
    } finally {
      this.#giving = undefined
    }
  }

  /** Gives it everything, and resolves with its process ID when it has it. */
  async #tell(to: KeeperLink): Promise<number> {
    const { settings, note, holdings, flowFile, withdraw } = this.options
    const giveUp = [...this.options.giveUp, ...(flowFile === undefined ? [] : [['rm', '-f', '--', flowFile]])]
    const sockets = holdings.map((one) => one.sockets.length)
    const text: Note = { version: 1, ...note, sockets, takeovers: this.takeovers }
    const all = [...this.#names()]
    for (let i = 0; i < all.length; i += UNDER_WAY_MAX) {
      const some = all.slice(i, i + UNDER_WAY_MAX)
      await Promise.all(some.map(([name, handle]) => to.ask(holdRequest(name), [handle])))
    }
    await Promise.all([
      to.ask(planRequest('withdraw', settings.withdrawAfter, withdraw)),
      to.ask(planRequest('giveUp', settings.giveUpAfter, giveUp)),
      to.ask(noteRequest(Buffer.from(JSON.stringify(text)))),
    ])
    return stateOf(await to.ask(stateRequest())).pid
  }

  #lost(): void {
    if (this.#ended) return
    this.options.log.warn({}, 'the keeper has ended by itself; another one is started')
    this.#later()
  }

  #later(): void {
    if (this.#ended) return
    const now = performance.now()
    const wait = Math.max(0, this.#followedAt + AGAIN_MS - now)
    this.#followedAt = now + wait
    this.#again = setTimeout(() => void this.#give(undefined), wait)
    this.#again.unref()
  }
}
