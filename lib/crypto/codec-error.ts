/** ARGUMENT: the wrong kind of thing; RANGE: out of range, or no room; AEAD: this codec does not offer the AEAD. */
export type CodecErrorCode = 'CARACAL_E_ARGUMENT' | 'CARACAL_E_RANGE' | 'CARACAL_E_AEAD'

/** A fault of the codec's caller, thrown before anything was touched. The native codec throws errors with the same codes. */
export class CodecError extends Error {
  override readonly name = 'CodecError'

  constructor(
    readonly code: CodecErrorCode,
    message: string,
  ) {
    super(message)
  }
}

/** Throws CARACAL_E_RANGE unless `value` is an integer in low..high. */
export function checkInteger(value: number, name: string, low: number, high: number): void {
  if (!Number.isSafeInteger(value)) throw new CodecError('CARACAL_E_ARGUMENT', `${name} must be an integer`)
  if (value < low || value > high) throw new CodecError('CARACAL_E_RANGE', `${name} must be between ${low} and ${high}`)
}
