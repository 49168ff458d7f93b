import { ControlClient } from '../daemon/control/client.js'
import { DEFAULT_SOCKET } from '../daemon/control/line.js'
import type { SocketOption } from './option.js'

/** The socket that an option, the environment or the default names. */
export function socketPath(options: SocketOption): string {
  const variable = process.env['CARACAL_SOCKET']
  return options.socket ?? (variable === undefined || variable === '' ? DEFAULT_SOCKET : variable)
}

/** Connects, does the work and disconnects. @throws CaracalError */
export async function withDaemon<T>(options: SocketOption, work: (client: ControlClient) => Promise<T>): Promise<T> {
  const client = await ControlClient.connect(socketPath(options))
  try {
    return await work(client)
  } finally {
    client.close()
  }
}

/** Runs `work` with a signal that the first SIGINT or SIGTERM aborts; the second one ends the process as usual. */
export async function untilInterrupted<T>(work: (controller: AbortController) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const stop = () => controller.abort()
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  try {
    return await work(controller)
  } finally {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
}
