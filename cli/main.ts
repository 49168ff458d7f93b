#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'
import { loadBundled, V8_FLAGS } from '../daemon/bundle/load.js'

// Before anything is loaded, see there.
for (const flag of V8_FLAGS) setFlagsFromString(flag)
loadBundled('cli.cjs')
