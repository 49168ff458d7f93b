import fc from 'fast-check'
import { test } from 'tap'
import { HostLinks } from '../../daemon/host-links.js'
import { parseNetlink } from '../../daemon/netlink-messages.js'
import { ownLocators, parsePools } from '../../daemon/own-locators.js'
import { addressBytes, linkBytes, message, routeBytes } from '../tools/netlink-bytes.js'

const octets = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes))
const address = fc.oneof(octets(4), octets(16))
const index = fc.integer({ min: 0, max: 4 })
const flags = fc.integer({ min: 0, max: 255 })
/** Messages as they should be, and of every type with anything in them. */
const honest = fc.oneof(
  fc.tuple(index, fc.string({ maxLength: 20 }), flags).map(([i, name, f]) => linkBytes(i, name, f)),
  fc.tuple(index, address, flags, fc.constantFrom(20, 21)).map(([i, a, f, type]) => addressBytes(i, a, f, type)),
  fc.tuple(index, address, fc.constantFrom(24, 25)).map(([i, a, type]) => routeBytes(i, a, undefined, type)),
  fc
    .tuple(fc.integer({ min: 0, max: 30 }), fc.uint8Array({ maxLength: 80 }))
    .map(([type, body]) => message(type, Buffer.from(body))),
)
const datagram = fc.array(honest, { maxLength: 12 }).map((all) => Buffer.concat(all))
const spoilt = fc
  .tuple(datagram, fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 10 }), fc.nat())
  .map(([bytes, changes, cut]) => {
    for (const [at, value] of changes) if (bytes.length > 0) bytes[at % bytes.length] = value
    return bytes.subarray(0, bytes.length - (cut % 4))
  })

test('whatever comes for a netlink message: it is read or left out, and what is kept is of use', async () => {
  const any = fc.oneof(spoilt, fc.uint8Array({ maxLength: 200 }))
  fc.assert(
    fc.property(fc.array(any, { maxLength: 8 }), fc.boolean(), (datagrams, little) => {
      const links = new HostLinks()
      for (const bytes of datagrams) {
        for (const parsed of [...parseNetlink(bytes), ...parseNetlink(bytes, little)]) {
          links.apply(parsed, 'over0')
          if (parsed.kind === 'address' && parsed.address.length !== (parsed.family === 4 ? 8 : 32)) return false
          if (parsed.kind === 'link' && (parsed.index <= 0 || parsed.name.length > 15)) return false
        }
      }
      const wildcards = [
        { address: '0.0.0.0', port: 1 },
        { address: '::', port: 1 },
      ]
      const found = ownLocators(wildcards, links, 'over0', parsePools(['198.18.0.0/15', 'fd00::/48']))
      return found.every(({ address }) => !/^(127\.|169\.254\.|198\.1[89]\.|fe80)/.test(address))
    }),
    { numRuns: 3_000 },
  )
})
