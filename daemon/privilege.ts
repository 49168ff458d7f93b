import { readFileSync } from 'node:fs'
import { CaracalError } from './errors.js'

/** Bit of CAP_NET_ADMIN in a capability set (linux/capability.h). */
const NET_ADMIN = 12n

/**
 * Throws CARACAL_E_TUN_DENIED when this process may not open a TUN device and set it up. Asked before anything is made or a token is spent: the kernel's own refusal would come
 * too late.
 */
export function checkPrivilege(): void {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  if (effective === undefined || (BigInt(`0x${effective}`) & (1n << NET_ADMIN)) !== 0n) return
  throw new CaracalError(
    'CARACAL_E_TUN_DENIED',
    'no right to open a TUN device',
    'run as root (sudo caracal up …), or try it without: caracal demo',
  )
}
