// Says each change of the network, for test/net/netlink.test.ts: `changed JSON` with when (ms since the epoch), how often messages were lost, what others would be told, and whether there is a
// route to somewhere far. The own TUN is called over0. The first changes, as many as the argument says, cannot be told; for each of them it says `fault`.

import { native } from '../../daemon/native.js'
import { NetworkWatcher } from '../../daemon/netlink.js'
import { ownLocators, parsePools } from '../../daemon/own-locators.js'
import { encodeLocator } from '../../lib/path/locator.js'

const locals = [
  { address: '0.0.0.0', port: 1 },
  { address: '::', port: 1 },
]
let faults = Number(process.argv[2] ?? 0)
const far = encodeLocator({ address: '203.0.113.9', port: 9 })
const say = () => {
  const locators = ownLocators(locals, watcher.links, 'over0', parsePools(['198.18.0.0/15']))
  const routes = [...watcher.links.defaultRoutes].length
  const at = performance.timeOrigin + performance.now()
  const addresses = locators.map(({ address }) => address)
  const reached = native().routeMtu(far) >= 0
  console.log(`changed ${JSON.stringify({ at, overruns: watcher.overruns, addresses, routes, reached })}`)
}
const watcher = new NetworkWatcher('over0', {
  changed: () => {
    if (faults-- > 0) throw new Error('this one cannot be told')
    say()
  },
  fault: () => console.log('fault'),
  failed: (error) => {
    console.error(error)
    process.exit(1)
  },
})
say()
