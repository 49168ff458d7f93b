import { readFileSync } from 'node:fs'

/** Who may use the control socket besides root, when the configuration does not say. */
export const DEFAULT_GROUP = 'caracal'

interface Group {
  readonly name: string
  readonly id: number
}

function groups(file: string): Group[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return []
  }
  const found: Group[] = []
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':')
    if (name && id && /^\d{1,10}$/.test(id)) found.push({ name, id: Number(id) })
  }
  return found
}

/** Number of a local group by name or number; undefined: there is none. */
export function groupId(group: string, file = '/etc/group'): number | undefined {
  if (/^\d{1,10}$/.test(group)) return Number(group)
  return groups(file).find(({ name }) => name === group)?.id
}

/** Name of a group, its number where it has none. */
export function groupName(id: number, file = '/etc/group'): string {
  return groups(file).find((group) => group.id === id)?.name ?? String(id)
}
