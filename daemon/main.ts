import type { UpRequest } from './config.js'
import { createLog } from './json-log.js'
import type { Log } from './log.js'
import { checkPrivilege } from './privilege.js'
import type { RunningDaemon } from './running.js'
import { ServiceManager } from './service-manager.js'
import { PacketThread } from './thread/packet-thread.js'

/** Ends the daemon, and leaves everything to the next one. */
const KEEPING_SIGNAL = 'SIGUSR2'
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', KEEPING_SIGNAL] as const

/**
 * Runs the daemon until a signal, `caracal down` or a failure ends it; resolves with the exit status. What cannot be started
 * throws a CaracalError, and nothing is left behind.
 */
export async function runDaemon(request: UpRequest): Promise<number> {
  const log = createLog('info')
  const manager = ServiceManager.fromEnvironment(process.env, { log })
  // A signal during the start is remembered, and ends the daemon when it is up.
  let early: NodeJS.Signals | undefined
  let stop = (signal: NodeJS.Signals): void => {
    early = signal
  }
  const onSignal = (signal: NodeJS.Signals) => stop(signal)
  for (const signal of signals) process.on(signal, onSignal)
  try {
    const daemon = await start(request, log)
    stop = (signal) => {
      if (signal !== 'SIGHUP') return daemon.requestStop(signal, signal === KEEPING_SIGNAL)
      manager.reloading()
      void daemon.reload().finally(() => manager.ready())
    }
    if (early !== undefined) stop(early)
    const { network, name, id } = daemon.summary
    log.info({ network, host: name, id: id.slice(0, 12), pid: process.pid }, 'ready')
    manager.ready(`host ${name} of ${network}`)
    const { reason, keep } = await daemon.stopRequested
    manager.stopping()
    log.info({ reason, keep }, 'going down')
    const flows = await daemon.stop(keep)
    log.info({ flows }, 'down')
    return daemon.failed ? 1 : 0
  } finally {
    manager.close()
    for (const signal of signals) process.off(signal, onSignal)
  }
}

async function start(request: UpRequest, log: Log): Promise<RunningDaemon> {
  const { thread, loop } = await PacketThread.configure(request, log)
  try {
    checkPrivilege()
  } catch (error) {
    await thread.end()
    throw error
  }
  if (loop.thread === 'own') return thread.start(!request.replace)
  await thread.end()
  // What one thread does not need is not loaded into it.
  const [{ loadConfig }, { startDaemon }, { loadPrimitives }, { OwnServers }] = await Promise.all([
    import('./config.js'),
    import('./start.js'),
    import('./node-primitives.js'),
    import('./servers.js'),
  ])
  const options = { ...request, config: loadConfig(request.sources) }
  return startDaemon(options, log, await loadPrimitives(), new OwnServers(log))
}
