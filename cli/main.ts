#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'

// Before anything is loaded: what comes and goes while modules load would otherwise leave the heap larger by 16 MB for good.
setFlagsFromString('--max-semi-space-size=1')
const { runCli } = await import('./program.js')

// a reader that has seen enough (`| head`) is no failure
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
process.exit(await runCli(process.argv.slice(2)))
