// Calls the addon's functions with every kind of wrong argument, and with right ones among them. Nothing but a coded error may come of it.

import fc from 'fast-check'
import type { Native } from '../../../daemon/native.js'
import { systemCode } from '../../../daemon/errors.js'

function detached(): Uint8Array {
  const array = new Uint8Array(70_000)
  structuredClone(array.buffer, { transfer: [array.buffer] })
  return array
}

const odd: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  '',
  'lo',
  'x'.repeat(300),
  'a\0b',
  Symbol('s'),
  10n,
  {},
  [],
  () => undefined,
  new Proxy({}, {}),
  new Uint8Array(0),
  new Uint8Array(70_000).subarray(69_999),
  new Int8Array(70_000),
  new Uint16Array(70_000),
  new Float64Array(70_000),
  new Int32Array(0),
  new Int32Array(64 * 6).fill(-1),
  new Int32Array(64 * 6).fill(0x7fffffff),
  new Int32Array(64 * 6).fill(-0x80000000),
  new Uint8Array(new SharedArrayBuffer(70_000)),
  new ArrayBuffer(70_000),
  new DataView(new ArrayBuffer(70_000)),
]
const numbers = [
  -1,
  0,
  1,
  2,
  3,
  7,
  64,
  65,
  1e3,
  65_535,
  65_536,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  1.5,
  -0,
  NaN,
  Infinity,
]

/** Descriptors that point anywhere, mostly near the edges of a buffer of 70,000 bytes. */
const descriptors = fc
  .array(
    fc.oneof(
      fc.integer({ min: -0x80000000, max: 0x7fffffff }),
      fc.constantFrom(0, 1, 2, 10, 24, 1400, 65_507, 65_508, 69_999, 70_000, 70_001, -1),
      fc.integer({ min: 0, max: 200 }),
    ),
    { minLength: 1, maxLength: 120 },
  )
  .map((words) => Int32Array.from(words))

const argument = fc.oneof(
  fc.constantFrom(...odd),
  fc.constantFrom(...numbers),
  fc.double(),
  descriptors,
  fc.constant(0).map(() => new Uint8Array(70_000)),
  fc.constant(0).map(detached),
)

/** Whether a failure is one that the addon promises. */
function promised(error: unknown): boolean {
  return systemCode(error)?.startsWith('CARACAL_E_') === true && error instanceof Error && error.message !== ''
}

/** What the type allows is not the question here: a function is called with whatever comes. */
function call(target: unknown, args: readonly unknown[]): void {
  if (typeof target !== 'function') throw new TypeError('not a function')
  try {
    Reflect.apply(target, undefined, args)
  } catch (error) {
    if (!promised(error)) throw error
  }
}

/**
 * @param handles open ones; they stay open
 * @param runs number of calls
 */
export function hammer(native: Native, handles: readonly number[], runs: number): void {
  const handle = handles.length === 0 ? argument : fc.oneof(fc.constantFrom(...handles), argument)
  const data = fc.oneof({ weight: 3, arbitrary: fc.constant(0).map(() => new Uint8Array(70_000)) }, argument)
  const desc = fc.oneof({ weight: 3, arbitrary: descriptors }, argument)
  const count = fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 0, max: 20 }) }, argument)
  const calls = fc.oneof(
    // Names and addresses are never good ones: nothing is made on the machine.
    fc.tuple(fc.constant(native.tunOpen), fc.constantFrom(...odd.filter((v) => v !== 'lo')), argument, argument),
    fc.tuple(
      fc.constant(native.udpOpen),
      fc.constantFrom(...odd, '1.2.3', '::g', '::1%nosuchdevice'),
      argument,
      argument,
      argument,
    ),
    fc.tuple(fc.constant(native.tunRead), handle, data, desc),
    fc.tuple(fc.constant(native.tunWrite), handle, data, desc, count),
    fc.tuple(fc.constant(native.tunPersist), fc.constantFrom(...odd)),
    fc.tuple(fc.constant(native.tunConfigure), handle, fc.constantFrom(-1, 0, 67, 65_536, 'x', undefined), argument),
    fc.tuple(fc.constant(native.udpReceive), handle, data, desc, data),
    fc.tuple(fc.constant(native.udpSend), handle, data, desc, count, data, desc),
    fc.tuple(fc.constant(native.netlinkRead), handle, data),
    fc.tuple(fc.constant(native.netlinkAsk), handle, count, count),
    fc.tuple(fc.constant(native.watch), handle, fc.constantFrom(...odd.filter((v) => typeof v !== 'function'))),
    fc.tuple(fc.constant(native.unwatch), handle),
    fc.tuple(fc.constant(native.timerSet), handle, argument),
    fc.tuple(fc.constant(native.close), fc.constantFrom(...odd, -1, 1.5, 2 ** 31, 0x7fffffff)),
    fc.tuple(fc.constantFrom(...Object.values(native)), argument),
  )
  fc.assert(
    fc.property(calls, ([target, ...args]) => {
      // A handle must not be closed by accident, nor a device made.
      if (target === native.close && handles.some((one) => Object.is(one, args[0]))) return
      call(target, args)
    }),
    { numRuns: runs },
  )
}
