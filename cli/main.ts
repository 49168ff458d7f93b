#!/usr/bin/env node
import { runCli } from './program.js'

// a reader that has seen enough (`| head`) is no failure
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
process.exit(await runCli(process.argv.slice(2)))
