// By which MTU this network namespace reaches the addresses that are given, `from>to` where it matters, in JSON, for test/net/route-mtu.test.ts.

import { native } from '../../daemon/native.js'
import { encodeLocator } from '../../lib/path/locator.js'
import { ADDRESS_LOCAL } from '../../lib/wire/batch.js'

function recordOf(way: string): Uint8Array {
  const [to = '', from] = way.split('>').reverse()
  const record = encodeLocator({ address: to, port: 7474 })
  if (from !== undefined)
    record.set(encodeLocator({ address: from, port: 7474 }).subarray(8, ADDRESS_LOCAL), ADDRESS_LOCAL)
  return record
}

console.log(JSON.stringify(process.argv.slice(2).map((way) => native().routeMtu(recordOf(way)))))
