import type { ServiceId } from '../wire/ids.js'

/** Small numbers for the services that flows refer to, so that a row can hold one. 0 stands for the host itself. */
export class ServiceRefs {
  readonly #ids: (ServiceId | undefined)[] = [undefined]
  readonly #numbers = new Map<ServiceId, number>()

  number(service: ServiceId | undefined): number {
    if (service === undefined) return 0
    let n = this.#numbers.get(service)
    if (n === undefined) {
      n = this.#ids.push(service) - 1
      this.#numbers.set(service, n)
    }
    return n
  }

  service(number: number): ServiceId | undefined {
    return this.#ids[number]
  }
}
