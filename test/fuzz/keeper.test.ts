// Whatever is said to a keeper: it answers, holds what it held, and no descriptor is left over.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { test } from 'tap'
import { stateOf } from '../../daemon/keeper/keeper-link.js'
import { startKeeper } from '../../daemon/keeper/keeper-process.js'
import { holdRequest, noteRequest, planRequest, releaseRequest, stateRequest } from '../../daemon/keeper/keeper-wire.js'
import { native } from '../../daemon/native.js'

const good = [
  stateRequest(),
  holdRequest('held'),
  releaseRequest('nobody'),
  noteRequest(Uint8Array.of(1, 2, 3)),
  planRequest('withdraw', 30, [['resolvectl', 'revert', 'caracal0']]),
  planRequest('giveUp', 600, [['ip', 'link', 'delete', 'dev', 'caracal0'], ['true']]),
]

const mutated = fc
  .tuple(fc.constantFrom(...good), fc.nat(200), fc.nat(255), fc.nat(200), fc.uint8Array({ maxLength: 40 }))
  .map(([message, at, byte, end, more]) => {
    const bytes = Uint8Array.of(...message.subarray(0, Math.max(1, end)), ...(end % 3 === 0 ? more : []))
    bytes[at % bytes.length] = byte
    return bytes
  })
const message = fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 300 }), mutated)

test('a keeper takes anything', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caracal-fuzz-'))
  const link = await startKeeper(directory)
  const handle = native().eventOpen()
  t.teardown(() => {
    link.close()
    native().close(handle)
    rmSync(directory, { recursive: true })
  })
  // No message that comes about names it.
  await link.ask(holdRequest('never-named-by-any'), [handle])
  const { pid } = stateOf(await link.ask(stateRequest()))
  const open = () => readdirSync(`/proc/${pid}/fd`).length
  const before = open()
  const handles = fc.array(fc.constant(handle), { maxLength: 3 })
  await fc.assert(
    fc.asyncProperty(message, handles, async (bytes, given) => {
      // That is obeyed.
      fc.pre(!(bytes.length === 2 && bytes[0] === 1 && bytes[1] === 7))
      // What was not refused: some of it is well formed.
      const { held } = await link.ask(bytes, given).catch(() => ({ held: new Map<string, number>() }))
      for (const one of held.values()) native().close(one)
      const state = stateOf(await link.ask(stateRequest()))
      if (state.pid !== pid || state.descriptors < 1) throw new Error(`it has lost something: ${JSON.stringify(state)}`)
    }),
    { numRuns: 2_000 },
  )
  const { descriptors } = stateOf(await link.ask(stateRequest()))
  t.equal(open() - before, descriptors - 1)
})
