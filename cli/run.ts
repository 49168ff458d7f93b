// What the process of the command line runs: main.ts, which starts it, loads it as it was bundled.

import { startEarly } from '../daemon/thread/packet-worker.js'

const words = process.argv.slice(2)
if (words[0] === 'up') startEarly()
// a reader that has seen enough (`| head`) is no failure
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
void import('./program.js').then(async ({ runCli }) => process.exit(await runCli(words)))
