import { z } from 'zod'
import { LABEL_LENGTH_MAX } from '../wire/constants.js'

const LABEL = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/

export const TAG_LENGTH_MAX = 32
/** Tags of one host, and tags that one issuer may give. */
export const TAGS_MAX = 16
/** In an issuer's certificate: it may give any tag. */
export const ANY_TAG = '*'

/** Names of hosts and networks: 1 to 63 of a-z, 0-9 and inner hyphens. */
export function isLabel(text: string): boolean {
  return text.length <= LABEL_LENGTH_MAX && LABEL.test(text)
}

/** Tags: as labels, 1 to 32. */
export function isTag(text: string): boolean {
  return text.length <= TAG_LENGTH_MAX && LABEL.test(text)
}

/** The host name made into a label: `Kitchen.local` gives `kitchen`; undefined when nothing of it is left. */
export function labelFrom(hostname: string): string | undefined {
  const label = hostname
    .toLowerCase()
    .split('.', 1)[0]!
    .replace(/[^a-z0-9-]+/g, '-')
    .slice(0, LABEL_LENGTH_MAX)
    .replace(/^-+|-+$/g, '')
  return isLabel(label) ? label : undefined
}

export const Label = z.string().refine(isLabel)
export const Tags = z.array(z.string().refine(isTag)).max(TAGS_MAX)
export const IssuerTags = z.array(z.string().refine((tag) => tag === ANY_TAG || isTag(tag))).max(TAGS_MAX)
