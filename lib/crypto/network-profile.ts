import { z } from 'zod'
import { Label } from './names.js'

/** A number of 0..255 without leading zeros. */
const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const POOL = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}/(?:[89]|1\\d|2[0-4])$`)

/** What all hosts of a network must have alike, besides its ID. */
export const NetworkProfile = z.object({
  name: Label,
  /** `198.18.0.0/15`; /8 to /24. */
  ipv4Pool: z.string().refine((text) => POOL.test(text)),
  /** DNS zone without dots at its ends: `svc.internal`. */
  zone: z
    .string()
    .max(120)
    .refine((text) => text.split('.').every((label) => Label.safeParse(label).success)),
})
export type NetworkProfile = Readonly<z.infer<typeof NetworkProfile>>

export const IPV4_POOL = '198.18.0.0/15'
export const ZONE = 'svc.internal'
