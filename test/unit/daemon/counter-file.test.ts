import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { CounterFile } from '../../../daemon/counter-file.js'
import { StateDirectory } from '../../../daemon/state-files.js'

const NAME = 'stamps'

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'caracal-counter-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return join(path, 'state')
}

async function opened(t: Test, path: string): Promise<StateDirectory> {
  const state = await StateDirectory.open(path)
  t.teardown(() => state.close())
  return state
}

/** What a process that is killed now leaves: the file as it is on disk at this moment. */
async function crashed(t: Test, state: StateDirectory): Promise<CounterFile> {
  const after = await opened(t, folder(t))
  writeFileSync(join(after.path, NAME), readFileSync(join(state.path, NAME)), { mode: 0o600 })
  return CounterFile.open(after, NAME)
}

test('numbers go up by one, and on after a restart', async (t) => {
  const path = folder(t)
  const state = await opened(t, path)
  const counter = await CounterFile.open(state, NAME)
  t.strictSame([counter.next(), counter.next(), counter.next()], [1, 2, 3])
  await state.close()
  const again = await CounterFile.open(await opened(t, path), NAME)
  t.ok(again.next() > 3)
})

test('none is below what the clock says', async (t) => {
  const state = await opened(t, folder(t))
  t.equal((await CounterFile.open(state, NAME, 1_700_000_000_000)).next(), 1_700_000_000_000)
  t.ok((await CounterFile.open(state, NAME, 5)).next() > 1_700_000_000_000, 'nor is it set back')
})

test('after a crash at any moment no number comes twice', async (t) => {
  const state = await opened(t, folder(t))
  const counter = await CounterFile.open(state, NAME)
  /** In one go: half a block, as many as are left when the next block is written. */
  const many = 30_011
  let last = 0
  for (let i = 0; i < 8; i++) {
    for (let n = 0; n < many; n++) {
      const number = counter.next()
      if (number <= last) t.fail(`${number} after ${last}`)
      last = number
    }
    let next = (await crashed(t, state)).next()
    t.ok(next > last, `${next} after ${last}`)
    // The block in reserve is written while numbers are given out: the disk may be slow.
    for (; next <= last + many; next = (await crashed(t, state)).next()) await pause(5)
  }
})

test('after a raise numbers are above it, also after a crash right then', async (t) => {
  const state = await opened(t, folder(t))
  const counter = await CounterFile.open(state, NAME)
  counter.raise(5_000_000)
  t.equal(counter.next(), 5_000_001)
  t.ok((await crashed(t, state)).next() > 5_000_001)
  counter.raise(10)
  t.equal(counter.next(), 5_000_002, 'what was there before does nothing')
  counter.raise(5_000_100)
  t.equal(counter.next(), 5_000_101, 'within what is reserved')
})

test('a raise while a block is being reserved', async (t) => {
  const state = await opened(t, folder(t))
  const counter = await CounterFile.open(state, NAME)
  let last = 0
  while (last < 40_000) last = counter.next()
  counter.raise(1_000_000)
  counter.raise(9_000_000)
  const first = counter.next()
  t.equal(first, 9_000_001)
  await state.write('other', new Uint8Array(1))
  await new Promise(setImmediate)
  t.equal(counter.next(), 9_000_002, 'the block that was on its way is no limit')
  await state.close()
  const again = await CounterFile.open(await opened(t, state.path), NAME)
  t.ok(again.next() > 9_000_002, 'nor does it take the place of the later one on disk')
})

test('numbers end when the disk takes no more, and go on when it does again', async (t) => {
  const state = await opened(t, folder(t))
  const counter = await CounterFile.open(state, NAME)
  const blocker = join(state.path, `${NAME}.tmp`)
  // A directory in the way of the temporary file stands for a full disk.
  mkdirSync(join(blocker, 'full'), { recursive: true })
  t.throws(
    () => {
      for (let i = 0; i < 1_000_000; i++) counter.next()
    },
    { code: 'CARACAL_E_STATE', message: /disk full/ },
  )
  await t.rejects(state.write(NAME, new Uint8Array(1)), { code: 'CARACAL_E_STATE' })
  rmSync(blocker, { recursive: true, force: true })
  t.throws(() => counter.next(), { code: 'CARACAL_E_STATE' }, 'the call that begins the writing anew')
  // Behind that write.
  await state.write(NAME, encoded(1_000_000))
  t.ok(counter.next() > 65_000)
})

test('a damaged file is told of', async (t) => {
  const state = await opened(t, folder(t))
  await state.write(NAME, new Uint8Array(7))
  await t.rejects(CounterFile.open(state, NAME), { code: 'CARACAL_E_STATE_DAMAGED' })
  for (const value of [-1, 0.5, Number.NaN, Infinity, 2 ** 60]) {
    await state.write(NAME, encoded(value))
    await t.rejects(CounterFile.open(state, NAME), { code: 'CARACAL_E_STATE_DAMAGED' }, String(value))
  }
})

function encoded(value: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, value)
  return bytes
}
