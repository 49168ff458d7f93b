const PIECES_MAX = 64

/**
 * Cuts a byte stream into lines of at most `limit` bytes (without the line end). Memory is bounded by the limit plus one chunk,
 * whatever comes.
 */
export class LineReader {
  private pieces: Buffer[] = []
  private length = 0
  private overlong = false

  constructor(private readonly limit: number) {}

  /** A line has begun and not ended. */
  get partial(): boolean {
    return this.length > 0
  }

  /**
   * Takes a chunk (kept until its lines are complete) and yields the lines that it completes, empty ones left out.
   * `undefined` stands for a line that is too long; nothing follows it, and every later call yields nothing.
   */
  *push(chunk: Buffer): Generator<string | undefined> {
    let at = 0
    while (!this.overlong && at < chunk.length) {
      const end = chunk.indexOf(0x0a, at)
      const stop = end < 0 ? chunk.length : end
      if (this.length + stop - at > this.limit) {
        this.overlong = true
        this.pieces = []
        this.length = 0
        yield undefined
        return
      }
      if (stop > at) this.pieces.push(chunk.subarray(at, stop))
      this.length += stop - at
      // a line that comes byte by byte must not cost an object a byte
      if (this.pieces.length > PIECES_MAX) this.pieces = [Buffer.concat(this.pieces)]
      at = stop + 1
      if (end < 0) return
      const line = this.take()
      if (line !== '') yield line
    }
  }

  private take(): string {
    const only = this.pieces.length === 1 ? this.pieces[0] : undefined
    const text = (only ?? Buffer.concat(this.pieces)).toString('utf8')
    this.pieces = []
    this.length = 0
    return text.trim()
  }
}
