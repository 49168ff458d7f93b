// What commands print: aligned tables and JSON on stdout. Text that comes from elsewhere never reaches a terminal with control
// characters in it.

const CONTROL = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu

/** Text with control characters and direction marks replaced. */
export function plain(text: string): string {
  return text.replace(CONTROL, '?')
}

/** One line on stdout. */
export function print(line: string): void {
  process.stdout.write(`${plain(line)}\n`)
}

/** A line on stderr that is no error. */
export function note(line: string): void {
  process.stderr.write(`${plain(line)}\n`)
}

/** A value as JSON, for reading by programs and people. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** One of many values: a line of JSON. */
export function printJsonLine(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** Columns under headings, two blanks apart; a column of numbers is aligned to the right. Nothing but the headings when there are no rows. */
export function formatTable(
  headings: readonly string[],
  rows: readonly (readonly (string | number | null)[])[],
): string[] {
  const cells = rows.map((row) => headings.map((_, i) => plain(String(row[i] ?? '-'))))
  const widths = headings.map((heading, i) => Math.max(heading.length, ...cells.map((row) => row[i]!.length)))
  const right = headings.map(
    (_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === 'number' || row[i] === null),
  )
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd()
  return [line(headings), ...cells.map(line)]
}

export function printTable(headings: readonly string[], rows: readonly (readonly (string | number | null)[])[]): void {
  for (const line of formatTable(headings, rows)) print(line)
}

/** Names and values below each other. */
export function printPairs(pairs: readonly (readonly [string, string])[]): void {
  const width = Math.max(...pairs.map(([name]) => name.length))
  for (const [name, value] of pairs) print(`${name.padEnd(width)}  ${value}`)
}

/** `1.5 MB`; 1 kB is 1000 bytes. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const units = ['kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let unit = -1
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

/** An instant in seconds since the epoch. */
export function formatTime(seconds: number | null): string {
  return seconds === null ? '-' : new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
}

/** `1 flow`, `2 flows`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
