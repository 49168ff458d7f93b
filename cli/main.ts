#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'
import { loadBundled } from '../daemon/bundle/load.js'

// Before anything is loaded: what comes and goes while modules load would otherwise leave the heap larger by 16 MB for good.
setFlagsFromString('--max-semi-space-size=1')
loadBundled('cli.cjs')
