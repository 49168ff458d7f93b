import { test } from 'tap'
import type { ServiceInfo, ServicePage } from '../../../daemon/control/protocol.js'
import { collectServices } from '../../../daemon/service-pages.js'

const service = (n: number): ServiceInfo => {
  const none = { v4: null, v6: null }
  return {
    name: `s${String(n).padStart(3, '0')}`,
    id: String(n),
    dialled: none,
    served: none,
    movable: true,
    instances: [],
  }
}

/** Pages of services by number, from the highest down. */
function paged(count: number, size: number, limit: number) {
  const asked: (number | undefined)[] = []
  const page = async (from = count, left = limit): Promise<ServicePage> => {
    asked.push(from)
    const most = Math.min(size, left)
    const start = Math.max(0, from - most)
    const services = Array.from({ length: from - start }, (_, i) => service(start + i))
    return { services, next: start === 0 ? undefined : start, left: left - services.length, total: count }
  }
  return { asked, page }
}

test('services come by name, whatever the pages, and each once', async (t) => {
  const { page, asked } = paged(200, 64, 1_000)
  const again = async (from: number | undefined, left: number | undefined) => {
    const one = await page(from, left)
    return { ...one, services: [...one.services, service(199)] }
  }
  const { services, total } = await collectServices(again)
  t.equal(asked.length, 4)
  t.equal(total, 200)
  t.strictSame(
    services,
    Array.from({ length: 200 }, (_, i) => service(i)),
  )
})

test('no more are asked for than are wanted', async (t) => {
  const { page, asked } = paged(1_000_000, 64, 100)
  const { services, total } = await collectServices(page)
  t.equal(services.length, 100)
  t.equal(total, 1_000_000)
  t.equal(asked.length, 2)
})
