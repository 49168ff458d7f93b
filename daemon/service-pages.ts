// The list of services, made a piece at a time, as that of flows is (flow-pages.ts).

import type { ServiceInfo, ServicePage, ServicesResponse } from './control/protocol.js'

/** Services of one piece. */
export const SERVICES_A_PAGE = 64

/** All pages as one answer, by name. Between two of them whatever `page` awaits, and so other work, gets its turn. */
export async function collectServices(
  page: (from: number | undefined, left: number | undefined) => Promise<ServicePage>,
): Promise<ServicesResponse> {
  // What is in two pages counts once.
  const services = new Map<string, ServiceInfo>()
  let one: ServicePage | undefined
  do {
    one = await page(one?.next, one?.left)
    for (const service of one.services) services.set(service.id, service)
  } while (one.next !== undefined && one.left > 0)
  const sorted = [...services.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  return { services: sorted, total: Math.max(one.total, sorted.length) }
}
