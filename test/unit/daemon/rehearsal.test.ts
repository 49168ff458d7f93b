import { test } from 'tap'
import { codecAddon, NativeCodec } from '../../../daemon/native-codec.js'
import { rehearse } from '../../../daemon/rehearsal.js'
import { primitives } from './rig.js'

test('a rehearsal has a handshake, packets that come back, and moves that are followed', async (t) => {
  const setting = { offer: ['chacha20-poly1305'], implementation: 'openssl' } as const
  const { echoes, commits } = rehearse(primitives, () => new NativeCodec(codecAddon(), setting))
  t.equal(echoes, 20 + 10 + 16)
  t.ok(commits >= 2 * 8, `both change the way at each move: ${commits} times`)
})
