/** Small numbers for values that many entries share, counted, so that a value goes with its last user. Numbers are used again. */
export class Interned<T> {
  readonly #make: (text: string) => T
  readonly #numbers = new Map<string, number>()
  readonly #texts: string[] = []
  readonly #values: T[] = []
  readonly #users: number[] = []
  readonly #free: number[] = []

  /** @param make the value that a text stands for */
  constructor(make: (text: string) => T) {
    this.#make = make
  }

  /** Number of a text in use; undefined: it is not. */
  find(text: string): number | undefined {
    return this.#numbers.get(text)
  }

  /** Number of the text, for one user more. */
  use(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) {
      this.#users[known]!++
      return known
    }
    const number = this.#free.pop() ?? this.#texts.length
    this.#numbers.set(text, number)
    this.#texts[number] = text
    this.#values[number] = this.#make(text)
    this.#users[number] = 1
    return number
  }

  /** One user less. */
  leave(number: number): void {
    if (--this.#users[number]! > 0) return
    this.#numbers.delete(this.#texts[number]!)
    this.#free.push(number)
  }

  text(number: number): string {
    return this.#texts[number]!
  }

  value(number: number): T {
    return this.#values[number]!
  }
}
