import { test } from 'tap'
import { codecAddon, NativeCodec } from '../../../daemon/native-codec.js'
import { rehearse } from '../../../daemon/rehearsal.js'
import { primitives } from './rig.js'

test('a rehearsal has a handshake, and packets that come back', async (t) => {
  const setting = { offer: ['chacha20-poly1305'], implementation: 'openssl' } as const
  t.equal(
    rehearse(primitives, () => new NativeCodec(codecAddon(), setting)),
    20,
  )
})
