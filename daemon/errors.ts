// Errors that a person sees: each has a stable code, says what is wrong and what to do next. Expected failures of packets are drop
// reasons (lib/wire/drop.ts), never these.

/** Every code in use. Part of the interface: append, never rename. */
export const errorCodes = [
  // command line and configuration
  'CARACAL_E_USAGE',
  'CARACAL_E_CONFIG',
  'CARACAL_E_NAME',
  'CARACAL_E_PORT',
  'CARACAL_E_FILTER',
  'CARACAL_E_FILE',
  'CARACAL_E_UNSUPPORTED',
  // control socket
  'CARACAL_E_NO_DAEMON',
  'CARACAL_E_SOCKET_DENIED',
  'CARACAL_E_SOCKET_IN_USE',
  'CARACAL_E_SOCKET',
  'CARACAL_E_REQUEST',
  'CARACAL_E_REQUEST_TOO_LONG',
  'CARACAL_E_RESPONSE',
  'CARACAL_E_BUSY',
  'CARACAL_E_DISCONNECTED',
  'CARACAL_E_TIMEOUT',
  'CARACAL_E_INTERNAL',
  // set-up of the daemon
  'CARACAL_E_STATE',
  'CARACAL_E_STATE_IN_USE',
  'CARACAL_E_STATE_DAMAGED',
  'CARACAL_E_NO_NETWORK',
  'CARACAL_E_NETWORK_EXISTS',
  'CARACAL_E_TUN',
  'CARACAL_E_TUN_DENIED',
  'CARACAL_E_ADDRESS_CLASH',
  'CARACAL_E_LISTEN',
  'CARACAL_E_DNS',
  'CARACAL_E_DISCOVERY',
  'CARACAL_E_NATIVE',
  'CARACAL_E_NETLINK',
  'CARACAL_E_KEEPER',
  // trust
  'CARACAL_E_TOKEN',
  'CARACAL_E_TOKEN_EXPIRED',
  'CARACAL_E_TOKEN_USED',
  'CARACAL_E_JOIN',
  'CARACAL_E_MEMBERSHIP',
  'CARACAL_E_CLOCK',
  'CARACAL_E_NOT_ISSUER',
  'CARACAL_E_NOT_ENTITLED',
  'CARACAL_E_PROOF',
  'CARACAL_E_KEY',
  // services, hosts, flows
  'CARACAL_E_NO_SUCH_SERVICE',
  'CARACAL_E_NO_SUCH_HOST',
  'CARACAL_E_PORT_TAKEN',
  'CARACAL_E_NAME_TAKEN',
  'CARACAL_E_NO_INSTANCE',
  // the lab
  'CARACAL_E_LAB',
] as const
export type ErrorCode = (typeof errorCodes)[number]

const known: ReadonlySet<string> = new Set(errorCodes)

/** Whether a string is one of our codes. */
export function isErrorCode(code: string): code is ErrorCode {
  return known.has(code)
}

/** `message` is "what: next", as a person sees it after `caracal: `. */
export class CaracalError extends Error {
  override readonly name = 'CaracalError'

  /**
   * @param what what is wrong, without a full stop, naming the thing concerned
   * @param next what to do next; left out only where nothing can be done
   */
  constructor(
    readonly code: ErrorCode,
    readonly what: string,
    readonly next?: string,
    options?: { readonly cause?: unknown },
  ) {
    super(next === undefined ? what : `${what}: ${next}`, options)
  }
}

/** The code that Node or a native layer put on an error (`ENOENT`), else undefined. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** The message of whatever was thrown, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replace(/\s*\n\s*/g, ' ').trim()
}
