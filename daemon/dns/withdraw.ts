// node withdraw.js PATH: takes our lines out of a resolv.conf. For who does that in the place of a daemon that is gone.

import { restoreFile } from './resolver-settings.js'

await restoreFile(process.argv[2] ?? '')
