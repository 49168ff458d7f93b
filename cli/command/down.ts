import type { Command } from 'commander'
import { CaracalError } from '../../daemon/errors.js'
import { withDaemon } from '../daemon.js'
import { withSocket, type SocketOption } from '../option.js'
import { counted, print } from '../output.js'
import type { Finish } from '../program.js'

const WAIT_MS = 15_000

export function addDown(program: Command, finish: Finish): void {
  withSocket(program.command('down'))
    .description('End the daemon of this host. Its flows end; nothing of it is left behind. Returns when it is gone.')
    .option('--keep', 'leave device, sockets and flows to the keeper: the next `caracal up` goes on with them')
    .action(async (options: SocketOption & { readonly keep?: boolean }) => {
      const keep = options.keep === true
      await withDaemon(options, async (client) => {
        const { pid, flows } = await client.call('down', { keep })
        let timer: NodeJS.Timeout | undefined
        const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), WAIT_MS)))
        const gone = client.closed.then(() => processGone(pid, WAIT_MS))
        const ended = await Promise.race([gone, late])
        clearTimeout(timer)
        if (ended === 'late') {
          throw new CaracalError('CARACAL_E_TIMEOUT', `the daemon (pid ${pid}) has not ended yet`, 'look into its log')
        }
        const told = keep
          ? `, and its keeper holds ${counted(flows, 'flow')}`
          : `, and ${counted(flows, 'flow')} with it`
        print(`the daemon has ended${keep || flows > 0 ? told : ''}`)
      })
      finish()
    })
}

/** Waits until a process has gone; one that cannot be seen from here counts as gone. */
async function processGone(pid: number, limitMs: number): Promise<void> {
  const deadline = performance.now() + limitMs
  while (performance.now() < deadline && isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 10))
}

function isAlive(pid: number): boolean {
  try {
    return pid !== process.pid && process.kill(pid, 0)
  } catch {
    return false
  }
}
