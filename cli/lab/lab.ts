import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process'
import {
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  closeSync,
  accessSync,
  constants,
} from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { CaracalError } from '../../daemon/errors.js'
import { builtFile } from '../../daemon/our-files.js'
import { withDaemon } from '../daemon.js'
import { enter, holds, labEnvironment, runInside, startHolder, startTime, stopHolder, type Holder } from './holder.js'

export const HOSTS_MAX = 64
const NETWORK = 'lab'
const READY_MS = 20_000

const holderShape = z.object({ pid: z.number().int().positive(), startTime: z.string() })
const hostShape = z.object({
  name: z.string(),
  address: z.string(),
  holder: holderShape,
  daemon: holderShape.optional(),
  zone: z.string().optional(),
})
const labShape = z.object({ switch: holderShape, hosts: z.array(hostShape) })

/** A host of the lab: its namespaces, its daemon, its folder. */
export type LabHost = z.infer<typeof hostShape>

export interface LabOptions {
  /** Folder of the lab's state, logs and sockets. */
  readonly directory: string
  /** Underlay: a /24 in 10.0.0.0/8 by its first three numbers. */
  readonly subnet?: string
  readonly mtu?: number
  /** More arguments for each `caracal up`. */
  readonly upArguments?: (host: string) => readonly string[]
  /** false: namespaces only. */
  readonly daemons?: boolean
  /** A default route by the switch, as on most networks; a LAN without one where false. */
  readonly defaultRoute?: boolean
  /** Gives the hosts what joins them, and their addresses, in place of the virtual switch; called before the daemons start. */
  readonly join?: (lab: Lab) => Promise<void>
  readonly progress?: (line: string) => void
}

/** Where `caracal lab` keeps its lab when nothing else is said: one a user. Variables that are empty count as not set. */
export function labDirectory(environment: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 0): string {
  const { CARACAL_LAB: chosen, XDG_RUNTIME_DIR: runtime } = environment
  if (chosen) return chosen
  if (uid === 0) return '/run/caracal-lab'
  return runtime && runtime !== '/tmp' ? join(runtime, 'caracal-lab') : `/tmp/caracal-lab-${uid}`
}

const cliMain = builtFile('cli/main.js')

/**
 * N hosts on one machine: each a network and mount namespace with its own daemon, state folder, socket and resolv.conf, joined by a virtual switch. Works as root, and without in a user
 * namespace. What it made is written to a file, so that another command can enter it and take it down.
 */
export class Lab {
  private constructor(
    readonly directory: string,
    readonly switchHolder: Holder,
    readonly hosts: LabHost[],
    private readonly options: LabOptions,
  ) {}

  /** Builds a lab of `names.length` hosts; takes down what it had made when something fails. */
  static async up(names: readonly string[], options: LabOptions): Promise<Lab> {
    if (Lab.find(options.directory) !== undefined) {
      throw new CaracalError('CARACAL_E_LAB', `a lab is up in ${options.directory}`, 'run `caracal lab down` first')
    }
    if (names.length < 1 || names.length > HOSTS_MAX) {
      throw new CaracalError('CARACAL_E_LAB', `a lab of ${names.length} hosts`, `choose 1 to ${HOSTS_MAX}`)
    }
    checkTun()
    try {
      mkdirSync(options.directory, { recursive: true, mode: 0o755 })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new CaracalError(
        'CARACAL_E_LAB',
        `cannot make ${options.directory} (${why})`,
        'set CARACAL_LAB to a folder you own',
      )
    }
    const lab = new Lab(options.directory, await startHolder(undefined), [], options)
    try {
      await lab.#build(names)
      return lab
    } catch (error) {
      await lab.down()
      throw error
    }
  }

  /** The lab whose state is in the folder; undefined: none is up, or its file is damaged. */
  static find(directory: string): Lab | undefined {
    let text: string
    try {
      text = readFileSync(join(directory, 'lab.json'), 'utf8')
    } catch {
      return undefined
    }
    const state = parseState(text)
    if (state === undefined || !holds(state.switch)) return undefined
    return new Lab(directory, state.switch, state.hosts, { directory })
  }

  host(name: string): LabHost {
    const host = this.hosts.find((h) => h.name === name)
    if (host !== undefined) return host
    const names = this.hosts.map((h) => h.name).join(', ')
    throw new CaracalError('CARACAL_E_LAB', `the lab has no host ${name}`, `choose one of ${names}`)
  }

  path(name: string, file: string): string {
    return join(this.directory, name, file)
  }

  /** Environment of a program on the host: its `caracal` talks to the host's daemon. */
  environment(name: string): NodeJS.ProcessEnv {
    return labEnvironment({
      CARACAL_SOCKET: this.path(name, 'control.sock'),
      CARACAL_STATE: this.path(name, 'state'),
      CARACAL_LAB: this.directory,
    })
  }

  /** Starts a program on the host. */
  spawn(name: string, command: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const words = [...enter(this.host(name).holder), ...command]
    return spawn(words[0]!, words.slice(1), { env: this.environment(name), ...options })
  }

  /** Runs a shell script on the host as root of its namespaces; throws when it fails. */
  script(name: string, script: string): string {
    return runInside(this.host(name).holder, script)
  }

  /** Runs `caracal` on the host; resolves with what it printed, throws with its error line when it fails. */
  async caracal(name: string, ...words: string[]): Promise<string> {
    const child = this.spawn(name, [process.execPath, cliMain, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    const { code, out, err } = await collect(child)
    if (code === 0) return out
    throw new CaracalError('CARACAL_E_LAB', `on ${name}, caracal ${words[0]} failed (${err.trim() || `exit ${code}`})`)
  }

  /** Starts the host's daemon and waits until it is ready. */
  async startDaemon(name: string, words: readonly string[] = []): Promise<void> {
    const host = this.host(name)
    const log = openSync(this.path(name, 'daemon.log'), 'a', 0o600)
    const command = [process.execPath, cliMain, 'up', '--name', name, '--dns', 'file:/etc/resolv.conf', ...words]
    const extra = this.options.upArguments?.(name) ?? []
    const child = this.spawn(name, [...command, ...extra], { detached: true, stdio: ['ignore', log, log] })
    closeSync(log)
    child.unref()
    host.daemon = { pid: child.pid!, startTime: startTime(child.pid!) ?? '' }
    this.#save()
    const deadline = performance.now() + READY_MS
    let exit: number | undefined
    child.once('exit', (code) => (exit = code ?? 1))
    while (performance.now() < deadline) {
      if (exit !== undefined) throw this.#daemonFailed(name)
      const status = await withDaemon({ socket: this.path(name, 'control.sock') }, (daemon) =>
        daemon.call('status', {}),
      ).catch(() => undefined)
      // Until then it may be another daemon's answer, which this one is to replace.
      if (status !== undefined && status.pid === child.pid) {
        host.zone = status.zone
        this.#save()
        return
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw this.#daemonFailed(name)
  }

  /** Ends the host's daemon with a signal and waits for its end. */
  async stopDaemon(name: string, signal: NodeJS.Signals = 'SIGTERM', limitMs = 10_000): Promise<void> {
    const host = this.host(name)
    const daemon = host.daemon
    if (daemon === undefined) return
    await end(daemon, signal, limitMs)
    delete host.daemon
    this.#save()
  }

  /** Ends all daemons, then the namespaces; whatever happens it goes on to the end. */
  async down(): Promise<void> {
    await Promise.all(this.hosts.map((host) => (host.daemon ? end(host.daemon, 'SIGTERM', 5_000) : undefined)))
    for (const host of this.hosts) stopHolder(host.holder)
    stopHolder(this.switchHolder)
    rmSync(this.directory, { recursive: true, force: true })
  }

  async #build(names: readonly string[]): Promise<void> {
    const { subnet = '10.77.0', mtu = 1500, progress, daemons = true, defaultRoute = true } = this.options
    runInside(
      this.switchHolder,
      `ip link set lo up
       ip link add br0 mtu ${mtu} type bridge forward_delay 0
       ip addr add ${subnet}.254/24 dev br0
       ip link set br0 up`,
    )
    for (const [i, name] of names.entries()) {
      const address = `${subnet}.${i + 1}`
      mkdirSync(join(this.directory, name), { recursive: true })
      const resolv = this.path(name, 'resolv.conf')
      writeFileSync(resolv, '# of the lab\n')
      const holder = await startHolder(this.switchHolder)
      this.hosts.push({ name, address, holder })
      runInside(
        holder,
        `ip link set lo up
         mount --bind ${quote(resolv)} /etc/resolv.conf`,
      )
      if (this.options.join !== undefined) continue
      runInside(
        this.switchHolder,
        `ip link add p${i + 1} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${holder.pid}
         ip link set p${i + 1} master br0 up`,
      )
      runInside(
        holder,
        `ip addr add ${address}/24 dev eth0
         ip link set eth0 up
         ${defaultRoute ? `ip route add default via ${subnet}.254` : ''}`,
      )
    }
    await this.options.join?.(this)
    this.#save()
    if (daemons) await this.#startDaemons(names, progress)
  }

  async #startDaemons(names: readonly string[], progress: ((line: string) => void) | undefined): Promise<void> {
    const [first, ...others] = names
    await this.startDaemon(first!, ['--create', NETWORK])
    progress?.(`${first} has created the network ${NETWORK}`)
    if (others.length === 0) return
    const printed = await this.caracal(first!, 'invite', '--uses', String(others.length))
    const token = printed.trimEnd().split('\n').at(-1)!
    for (const name of others) {
      await this.startDaemon(name, ['--join', token])
      progress?.(`${name} has joined`)
    }
  }

  #daemonFailed(name: string): CaracalError {
    const log = readFileSync(this.path(name, 'daemon.log'), 'utf8')
    const last = log.trimEnd().split('\n').at(-1) ?? ''
    return new CaracalError('CARACAL_E_LAB', `the daemon of ${name} did not come up (${last})`)
  }

  #save(): void {
    const state = { switch: this.switchHolder, hosts: this.hosts }
    const file = join(this.directory, 'lab.json')
    writeFileSync(`${file}.tmp`, JSON.stringify(state, null, 2))
    renameSync(`${file}.tmp`, file)
  }
}

function parseState(text: string): z.infer<typeof labShape> | undefined {
  try {
    return labShape.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

/** Output and exit status of a child with piped stdout and stderr. */
export function collect(child: ChildProcess): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve, reject) => {
    let out = ''
    let err = ''
    child.stdout?.on('data', (chunk: Buffer) => (out += chunk.toString()))
    child.stderr?.on('data', (chunk: Buffer) => (err += chunk.toString()))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? 1, out, err }))
  })
}

async function end(process_: Holder, signal: NodeJS.Signals, limitMs: number): Promise<void> {
  if (!holds(process_)) return
  process.kill(process_.pid, signal)
  const deadline = performance.now() + limitMs
  while (holds(process_)) {
    if (performance.now() > deadline) process.kill(process_.pid, 'SIGKILL')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function checkTun(): void {
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK)
  } catch {
    const next =
      process.getuid?.() === 0
        ? 'load the module with `modprobe tun`'
        : 'let users open it (`chmod 666 /dev/net/tun` as root), or run this as root'
    throw new CaracalError('CARACAL_E_LAB', 'cannot open /dev/net/tun', next)
  }
  for (const tool of ['ip', 'nsenter', 'unshare']) {
    if (spawnSync('sh', ['-c', `command -v ${tool}`], { env: labEnvironment() }).status === 0) continue
    throw new CaracalError(
      'CARACAL_E_LAB',
      `the program ${tool} is missing`,
      'install it: apt install iproute2 util-linux',
    )
  }
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}
