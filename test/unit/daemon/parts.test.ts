import { join } from 'node:path'
import { test, type Test } from 'tap'
import { loadConfig, type DaemonOptions } from '../../../daemon/config.js'
import { stateFile } from '../../../daemon/identity.js'
import { FlowFile } from '../../../daemon/keeper/flow-file.js'
import { noLog } from '../../../daemon/log.js'
import { codecAddon, NativeCodec } from '../../../daemon/native-codec.js'
import { areCurrent, makeParts, makePartsAhead, type Parts } from '../../../daemon/parts.js'
import { StateDirectory } from '../../../daemon/state-files.js'
import { primitives } from './rig.js'

function components(state: string, create?: string) {
  const sources = { file: undefined, options: { state, name: 'here' }, environment: {} }
  const options: DaemonOptions = { sources, create, join: undefined, replace: false, config: loadConfig(sources) }
  const codec = new NativeCodec(codecAddon(), { offer: ['chacha20-poly1305'], implementation: 'openssl' })
  return { options, log: noLog, primitives, codec }
}

/** A daemon that has its state there, as it is before another one takes over: with its directory and its flows. */
async function running(t: Test): Promise<{ state: string; parts: Parts; files: StateDirectory }> {
  const state = join(t.testdir(), 'state')
  const files = await StateDirectory.open(state)
  t.teardown(() => files.close())
  const parts = await makeParts({
    ...components(state, 'net'),
    files,
    join: () => Promise.reject(new Error('nobody is to be joined')),
    flowFile: (owner, bytes) => FlowFile.open(owner, bytes, false, (why) => t.fail(why)),
  })
  t.teardown(() => parts.flowFile?.remove())
  parts.host.takeFlows(false)
  await files.release()
  return { state, parts, files }
}

async function ahead(t: Test, state: string): Promise<Parts> {
  const parts = await makePartsAhead(components(state))
  if (parts === undefined) throw new Error('nothing could be made ahead')
  t.teardown(() => parts.files.close())
  return parts
}

/** As the next daemon sees it when the first has let go. */
async function taken(files: StateDirectory, next: Parts): Promise<boolean> {
  await files.close()
  await next.files.take()
  return areCurrent(next)
}

test('what was made ahead is the host of the daemon that runs, and good while that changes nothing', async (t) => {
  const { state, parts, files } = await running(t)
  const next = await ahead(t, state)
  t.equal(next.host.id, parts.host.id)
  t.equal(next.flowFile?.path, parts.flowFile?.path)
  t.equal(await taken(files, next), true)
})

test('it is good as well when only the time has gone on', async (t) => {
  const { state, parts, files } = await running(t)
  const next = await ahead(t, state)
  parts.identity.trust.observe(Math.floor(Date.now() / 1000) + 60)
  await files.write(stateFile.trust, parts.identity.trust.encode())
  t.equal(await taken(files, next), true)
})

test('it is to be made anew when a file has changed, come or gone, or the flows are others', async (t) => {
  const changes: Record<string, (files: StateDirectory, parts: Parts) => Promise<void> | void> = {
    'a file has come': (files) => files.write('addresses', new Uint8Array([1])),
    'a file has gone': (files) => files.remove(stateFile.trust),
    'a file is another one': (files) => files.write(stateFile.hostKey, new Uint8Array(32)),
    'whom to trust is another one': (files) => files.write(stateFile.trust, new Uint8Array([1])),
    'the flows have gone': (_files, parts) => parts.flowFile?.remove(),
  }
  for (const [what, change] of Object.entries(changes)) {
    await t.test(what, async (t) => {
      const { state, parts, files } = await running(t)
      const next = await ahead(t, state)
      await change(files, parts)
      t.equal(await taken(files, next), false)
    })
  }
})

test('nothing is made ahead where no daemon has been, or has kept its flows', async (t) => {
  t.equal(await makePartsAhead(components(join(t.testdir(), 'nowhere'))), undefined)
  const { state, parts, files } = await running(t)
  parts.flowFile?.remove()
  t.equal(await makePartsAhead(components(state)), undefined)
  await files.close()
})
