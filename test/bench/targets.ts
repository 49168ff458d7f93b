export interface Judged {
  readonly what: string
  readonly figure: number
  readonly target: string
  readonly kept: boolean
}

const text = (value: number) =>
  value.toLocaleString('en', { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 4 })

/** Figures beside what they are to be. */
export class Targets {
  readonly judged: Judged[] = []

  atMost(what: string, figure: number, limit: number, unit = ''): void {
    this.#add(what, figure, `≤ ${text(limit)}${unit}`, figure <= limit)
  }
  atLeast(what: string, figure: number, limit: number, unit = ''): void {
    this.#add(what, figure, `≥ ${text(limit)}${unit}`, figure >= limit)
  }

  /** A line each; a target that is missed is said, and no failure: the machine may be busy. */
  print(): void {
    for (const { what, figure, target, kept } of this.judged)
      console.log(`${kept ? 'kept  ' : 'MISSED'}  ${what.padEnd(60)} ${text(figure).padStart(10)}   ${target}`)
  }

  #add(what: string, figure: number, target: string, kept: boolean): void {
    this.judged.push({ what, figure, target, kept })
  }
}
