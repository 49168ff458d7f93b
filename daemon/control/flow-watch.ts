import type { FlowInfo, WatchEvent } from './protocol.js'

/** Turns successive lists of flows into what changed between them. Memory: the last list. */
export class FlowWatch {
  private last = new Map<string, FlowInfo>()

  /** What changed since the list before; at the first call every flow is `open`. `now`: ms since the epoch. */
  changes(flows: readonly FlowInfo[], now: number): WatchEvent[] {
    const events: WatchEvent[] = []
    const next = new Map<string, FlowInfo>()
    for (const flow of flows) {
      const before = this.last.get(flow.id)
      if (before === undefined) events.push({ change: 'open', time: now, flow })
      else if (hasMoved(before, flow)) {
        const { instance, path } = before
        events.push({ change: 'move', time: now, flow, from: { instance, path } })
      } else if (differs(before, flow)) events.push({ change: 'update', time: now, flow })
      next.set(flow.id, flow)
    }
    for (const [id, flow] of this.last) if (!next.has(id)) events.push({ change: 'close', time: now, flow })
    this.last = next
    return events
  }
}

/** From one instance or address to another; that it has none yet, or none any more, is no move. */
function hasMoved(a: FlowInfo, b: FlowInfo): boolean {
  return isOther(a.instance, b.instance) || isOther(a.path, b.path)
}

function isOther(a: string | null, b: string | null): boolean {
  return a !== b && a !== null && b !== null
}

function differs(a: FlowInfo, b: FlowInfo): boolean {
  return (
    a.state !== b.state ||
    a.instance !== b.instance ||
    a.path !== b.path ||
    a.packetsIn !== b.packetsIn ||
    a.packetsOut !== b.packetsOut
  )
}
