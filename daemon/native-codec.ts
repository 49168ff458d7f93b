import type { AeadName, FrameCodec } from '../lib/crypto/codec.js'
import type { DatagramBatch, FrameRuns, OpenBatch, SealBatch } from '../lib/wire/batch.js'
import { dropNumber, type DropReason } from '../lib/wire/drop.js'
import { CaracalError } from './errors.js'
import { loadAddon } from './native.js'
import { projectRoot } from './our-files.js'

/** What does AES-256-GCM: Node's own OpenSSL, or libipsec-mb, which is faster, where it is installed. All else is OpenSSL's. */
export type AeadLibrary = 'openssl' | 'ipsec-mb'

export interface AeadSetting {
  /** What may be offered in handshakes. Order means nothing. */
  readonly offer: readonly AeadName[]
  /** auto: the fastest that is there. A library that cannot be used is replaced by OpenSSL. */
  readonly implementation: 'auto' | AeadLibrary
}

/** The library in use for AES-256-GCM. */
export interface AeadChoice {
  readonly library: AeadLibrary
  /** Such as `libipsec-mb 1.3.0`. */
  readonly title: string
  /** `OpenSSL` with its version, which does all else. */
  readonly openssl: string
  /** Why libipsec-mb was wanted and is not in use. */
  readonly passedOver: string | undefined
  /** It was passed over because it failed its self-test. */
  readonly failed: boolean
}

/**
 * What daemon/native/codec.cc exports. Every function checks its arguments and throws an Error with a code before it touches anything:
 * CARACAL_E_ARGUMENT, CARACAL_E_RANGE, CARACAL_E_AEAD.
 */
export interface CodecAddon {
  /**
   * @param drops numbers of {@link reportedDrops}, in that order
   * @param library for AES-256-GCM; CARACAL_E_AEAD when it cannot be used here
   */
  createCodec(drops: Int32Array, library: AeadLibrary): AddonCodec
  /** The codec that another thread has shared under this token. */
  adoptCodec(token: number): AddonCodec
  /** What passed its self-test here, best first. */
  codecAeads(): AeadName[]
  /** Loads libipsec-mb at the first call of the process and tests it against OpenSSL, which takes some 10 ms. */
  ipsecMb(): {
    version: string
    /** The code in it that this processor runs. */
    variant: string
    /** Why it is not used; empty: it can be used. */
    problem: string
    /** It did not agree with OpenSSL in the self-test. */
    failed: boolean
  }
  /** An AEAD by itself: ciphertext and tag. */
  aeadSeal(
    aead: AeadName,
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    plaintext: Uint8Array,
    library: AeadLibrary,
  ): Uint8Array
  /** undefined when the tag is wrong. */
  aeadOpen(
    aead: AeadName,
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    ciphertext: Uint8Array,
    library: AeadLibrary,
  ): Uint8Array | undefined
}

export interface AddonCodec {
  installSeal(slot: number, aead: AeadName, key: Uint8Array, receiverLane: number): void
  removeSeal(slot: number): void
  sealed(slot: number): number
  installOpen(lane: number, aead: AeadName, key: Uint8Array): void
  removeOpen(lane: number): void
  /** Returns the first entry not consumed; leaves the runs' count and used, and the entries that were not sealed, in `state`. */
  seal(
    data: Uint8Array,
    desc: Int32Array,
    count: number,
    from: number,
    runsData: Uint8Array,
    runsDesc: Int32Array,
    runsCount: number,
    runsUsed: number,
    state: Int32Array,
  ): number
  /** Leaves the batch's count and used in `state`. */
  open(
    data: Uint8Array,
    desc: Int32Array,
    addresses: Uint8Array,
    count: number,
    outData: Uint8Array,
    outDesc: Int32Array,
    state: Int32Array,
  ): number
  /** A token with which another thread may adopt the codec, once. */
  share(): number
}

const functions = [
  'createCodec',
  'adoptCodec',
  'codecAeads',
  'ipsecMb',
  'aeadSeal',
  'aeadOpen',
] as const satisfies readonly (keyof CodecAddon)[]

/** The codec's part of the addon. Throws CARACAL_E_NATIVE when the addon is not built, does not load or is of another version. */
export function codecAddon(): CodecAddon {
  const addon = loadAddon()
  if (!isCodecAddon(addon)) {
    throw new CaracalError(
      'CARACAL_E_NATIVE',
      'the native part is of another version',
      `type: sh ${projectRoot()}/daemon/native/build.sh`,
    )
  }
  return addon
}

function isCodecAddon(addon: unknown): addon is CodecAddon {
  if (typeof addon !== 'object' || addon === null) return false
  const exported = new Map(Object.entries(addon))
  return functions.every((name) => typeof exported.get(name) === 'function')
}

/** The same throughout the process, whoever asks. */
export function chooseLibrary(addon: CodecAddon, wanted: AeadSetting['implementation']): AeadChoice {
  const openssl = `OpenSSL ${process.versions.openssl}`
  const plain = { library: 'openssl', title: openssl, openssl, passedOver: undefined, failed: false } as const
  if (wanted === 'openssl') return plain
  const { version, problem, failed } = addon.ipsecMb()
  if (problem !== '') return { ...plain, passedOver: problem, failed }
  return { ...plain, library: 'ipsec-mb', title: `libipsec-mb ${version}` }
}

/** What is offered, best first, and by whom it is done. */
export function sealers(
  aeads: readonly AeadName[],
  aes: AeadChoice,
): { readonly aead: AeadName; readonly by: string }[] {
  return aeads.map((aead) => ({ aead, by: aead === 'aes-256-gcm' ? aes.title : aes.openssl }))
}

const reportedDrops: readonly DropReason[] = [
  'truncated',
  'bad-version',
  'bad-type',
  'unknown-lane',
  'bad-tag',
  'replayed',
  'bad-frame',
]

/**
 * The frame codec in the addon. Its keys live in native memory and are overwritten when they are removed. Threads may share one: each has an object of its own,
 * and while one seals or opens a batch, or changes a key, the others wait.
 */
export class NativeCodec implements FrameCodec {
  readonly aeads: readonly AeadName[]
  readonly #codec: AddonCodec
  skipped = 0
  readonly #state = new Int32Array(3)

  /**
   * @param setting undefined: all that passed its self-test, as fast as possible
   * @param token of {@link share}: no new codec, but that one
   */
  constructor(addon: CodecAddon, setting?: AeadSetting, token?: number) {
    this.aeads = addon.codecAeads().filter((aead) => setting?.offer.includes(aead) ?? true)
    if (token !== undefined) {
      this.#codec = addon.adoptCodec(token)
      return
    }
    const { library } = chooseLibrary(addon, setting?.implementation ?? 'auto')
    this.#codec = addon.createCodec(Int32Array.from(reportedDrops, dropNumber), library)
  }

  /** A token with which another thread makes its own object of this codec, once. */
  share(): number {
    return this.#codec.share()
  }

  installSeal(slot: number, aead: AeadName, key: Uint8Array, receiverLane: number): void {
    this.#codec.installSeal(slot, aead, key, receiverLane)
  }

  removeSeal(slot: number): void {
    this.#codec.removeSeal(slot)
  }

  sealed(slot: number): number {
    return this.#codec.sealed(slot)
  }

  installOpen(lane: number, aead: AeadName, key: Uint8Array): void {
    this.#codec.installOpen(lane, aead, key)
  }

  /** Does nothing when the row has another lane by now. */
  removeOpen(lane: number): void {
    this.#codec.removeOpen(lane)
  }

  /** An entry that only half fits is shortened to what is left of it. Throws CARACAL_E_RANGE for any descriptor out of range, before it touches anything. */
  seal(batch: SealBatch, from: number, runs: FrameRuns): number {
    const state = this.#state
    const next = this.#codec.seal(
      batch.data,
      batch.desc,
      batch.count,
      from,
      runs.data,
      runs.desc,
      runs.count,
      runs.used,
      state,
    )
    runs.count = state[0]!
    runs.used = state[1]!
    this.skipped = state[2]!
    return next
  }

  /** Throws CARACAL_E_RANGE for a descriptor out of range or an `out` without room for every entry, before it touches anything. */
  open(datagrams: DatagramBatch, out: OpenBatch): void {
    const { data, desc, addresses, count } = datagrams
    this.#codec.open(data, desc, addresses, count, out.data, out.desc, this.#state)
    out.count = this.#state[0]!
    out.used = this.#state[1]!
  }
}
