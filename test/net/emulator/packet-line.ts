const CHUNK_SLOTS = 512

/** Packets in the order in which they arrive, with their bytes; bounded. Memory is taken as it is needed and kept. */
export class PacketLine {
  #head = 0
  #length = 0
  readonly #chunks: Uint8Array[] = []
  readonly #at: Float64Array
  readonly #number: Float64Array
  readonly #bytes: Int32Array
  readonly #twice: Uint8Array
  #last = -Infinity

  /** Room for `slots` packets (rounded up to 512) of at most `slotBytes`. */
  constructor(
    readonly slotBytes: number,
    slots: number,
  ) {
    const rounded = Math.ceil(slots / CHUNK_SLOTS) * CHUNK_SLOTS
    this.#at = new Float64Array(rounded)
    this.#number = new Float64Array(rounded)
    this.#bytes = new Int32Array(rounded)
    this.#twice = new Uint8Array(rounded)
  }

  get length(): number {
    return this.#length
  }
  /** Of the first packet: when it arrives (Infinity: there is none), its number, its bytes (until the next call of `add`), whether it arrives twice. */
  get at(): number {
    return this.#length === 0 ? Infinity : this.#at[this.#head]!
  }
  get number(): number {
    return this.#number[this.#head]!
  }
  get bytes(): Uint8Array {
    return this.#slot(this.#head).subarray(0, this.#bytes[this.#head]!)
  }
  get twice(): boolean {
    return this.#twice[this.#head] === 1
  }

  /** Keeps a copy; it arrives not before those that were added earlier. false: no room. */
  add(at: number, number: number, bytes: Uint8Array, twice: boolean): boolean {
    const slots = this.#at.length
    if (this.#length === slots || bytes.length > this.slotBytes) return false
    const i = (this.#head + this.#length++) % slots
    this.#last = Math.max(at, this.#last)
    this.#at[i] = this.#last
    this.#number[i] = number
    this.#bytes[i] = bytes.length
    this.#twice[i] = twice ? 1 : 0
    this.#slot(i).set(bytes)
    return true
  }

  /** Takes the first packet off. */
  shift(): void {
    this.#head = (this.#head + 1) % this.#at.length
    this.#length--
    // An empty line begins in memory that it has already.
    if (this.#length === 0) this.#head = 0
  }

  #slot(i: number): Uint8Array {
    const chunk = (this.#chunks[Math.floor(i / CHUNK_SLOTS)] ??= new Uint8Array(CHUNK_SLOTS * this.slotBytes))
    const at = (i % CHUNK_SLOTS) * this.slotBytes
    return chunk.subarray(at, at + this.slotBytes)
  }
}
