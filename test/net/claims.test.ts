// The claim of a name is stamped by the issuer, and the stamp is there again after the daemon was killed.
import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { z } from 'zod'
import { areClaims } from '../../lib/host/name-claims.js'
import { unpack } from '../../lib/wire/pack.js'
import { Fixture } from './fixture.js'

const HEADER = 48
const shape = z.tuple([z.literal(1), z.array(z.tuple([z.unknown(), z.number(), z.instanceof(Uint8Array).nullable()]))])

test('a claim and its stamp', async (t) => {
  const net = await Fixture.up(t, ['h1', 'h2'])
  const claims = (host: string) => {
    try {
      const bytes = new Uint8Array(readFileSync(net.lab.path(host, 'state/name-claims'))).subarray(HEADER)
      return areClaims(bytes) ? unpack(bytes, 65_536, shape)?.[1] : undefined
    } catch {
      return undefined
    }
  }
  const stamped = (host: string) => claims(host)?.every(([, , stamp]) => stamp !== null) ?? false
  t.equal((await net.caracal('h2', 'expose', 'web', '--tcp', '80')).code, 0)
  await net.until('the claim of h2 is stamped', () => stamped('h2'))
  const before = claims('h2')
  t.equal(before?.length, 1)
  await net.lab.stopDaemon('h2', 'SIGKILL')
  await net.lab.startDaemon('h2')
  t.equal((await net.caracal('h2', 'expose', 'shop', '--tcp', '81')).code, 0)
  await net.until('the new claim is stamped too', () => claims('h2')?.length === 2 && stamped('h2'))
  t.strictSame(claims('h2')?.[0], before?.[0], 'it is the claim of before')
  t.equal((await net.caracal('h1', 'expose', 'own', '--tcp', '82')).code, 0)
  await net.until('the issuer stamps its own', () => stamped('h1'))
  t.equal((await net.caracal('h2', 'unexpose', 'web')).code, 0)
  await net.until('what is given up is forgotten', () => claims('h2')?.length === 1)
})
