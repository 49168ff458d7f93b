// Entry of a lane's thread: lane-main.ts, as it was bundled.

import { loadBundled } from '../bundle/load.js'

loadBundled('lane.cjs')
