/** Local time of day of an instant in (fractional) ms since the epoch, with 3 or 6 digits of the second. */
export function formatClock(time: number, digits: 3 | 6): string {
  const date = new Date(time)
  const two = (n: number) => String(n).padStart(2, '0')
  const micros = Math.floor((((time % 1000) + 1000) % 1000) * 1000)
  const fraction = String(micros).padStart(6, '0').slice(0, digits)
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${fraction}`
}
