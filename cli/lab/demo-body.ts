const LENGTH = 1_000_000

/** The demo's body: bytes of a xorshift sequence, the same everywhere. */
export function demoBody(): Buffer {
  const body = Buffer.alloc(LENGTH)
  let state = 0x2545f491
  for (let i = 0; i < LENGTH; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    body[i] = state & 0xff
  }
  return body
}
