import { loadSodium } from '../lib/crypto/sodium.js'
import type { DaemonOptions } from './config.js'
import { Daemon } from './daemon.js'
import { createLog } from './log.js'
import { withNodeCrypto } from './node-primitives.js'
import { checkPrivilege } from './privilege.js'
import { ServiceManager } from './service-manager.js'

/**
 * Runs the daemon until a signal, `caracal down` or a failure ends it; resolves with the exit status. What cannot be started
 * throws a CaracalError, and nothing is left behind.
 */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  checkPrivilege()
  const log = createLog(options.config.log)
  const manager = ServiceManager.fromEnvironment(process.env, { log })
  const primitives = withNodeCrypto(await loadSodium())
  // A signal during the start is remembered, and ends the daemon when it is up.
  let early: NodeJS.Signals | undefined
  let stop = (signal: NodeJS.Signals): void => {
    early = signal
  }
  const onSignal = (signal: NodeJS.Signals) => stop(signal)
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  process.on('SIGHUP', onSignal)
  try {
    const daemon = await Daemon.start(options, log, primitives)
    const { identity, host } = daemon
    stop = (signal) => {
      if (signal !== 'SIGHUP') return daemon.requestStop(signal)
      manager.reloading()
      void daemon.reload().finally(() => manager.ready())
    }
    if (early !== undefined) stop(early)
    const network = identity.trust.profile.name
    log.info({ network, host: identity.membership.name, id: host.id.slice(0, 12), pid: process.pid }, 'ready')
    manager.ready(`host ${identity.membership.name} of ${network}`)
    const reason = await daemon.stopRequested
    manager.stopping()
    log.info({ reason }, 'going down')
    const flows = await daemon.stop()
    log.info({ flows }, 'down')
    return daemon.failed ? 1 : 0
  } finally {
    manager.close()
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
    process.off('SIGHUP', onSignal)
  }
}
