// Entry of the packet thread: packet-main.ts, as it was bundled.

import { loadBundled } from '../bundle/load.js'

loadBundled('packets.cjs')
