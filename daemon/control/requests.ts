import { z } from 'zod'
import type { TapEvent } from '../../lib/host/tap.js'
import { CaracalError } from '../errors.js'
import { parseFilter } from './filter.js'
import {
  FLOWS_MAX,
  issuesOf,
  requestShapes,
  streamShapes,
  type ControlHandlers,
  type FlowInfo,
  type FlowPage,
  type Operation,
  type RequestOf,
  type ResponseOf,
  type ServicePage,
  type WatchRequest,
} from './protocol.js'

/** What a connection of the control socket asks for, with arguments as they came. Everything rejects with CARACAL_E_REQUEST for arguments that do not fit. */
export interface Requests {
  /** An operation with one answer. Rejects with CARACAL_E_UNSUPPORTED for one that is not known. */
  call(operation: string, args: unknown): Promise<unknown>
  /**
   * Hands each event that passes the request's filter to `emit`, until `signal` is aborted. `lost`: so many could not be handed over. Rejects with
   * CARACAL_E_FILTER.
   */
  dump(
    args: unknown,
    emit: (event: TapEvent) => void,
    signal: AbortSignal,
    lost: (count: number) => void,
  ): Promise<void>
  /** The arguments of a watch, whose intervals are the connection's business. */
  watch(args: unknown): Promise<WatchRequest>
  /** The flows at one of its intervals. */
  watched(request: WatchRequest): Promise<readonly FlowInfo[]>
  /** A part of what the operation `flows` tells, see ControlHandlers. `left`: as the part before says; undefined: this is the first. */
  flowPage(args: unknown, from: number, left: number | undefined): Promise<FlowPage>
  /** A part of what the operation `services` tells, see ControlHandlers. `left`: as the part before says; undefined: this is the first. */
  servicePage(args: unknown, from: number | undefined, left: number | undefined): Promise<ServicePage>
}

type Checked = { readonly [O in Operation]: z.ZodType<RequestOf<O>> }
type Unary = { readonly [O in Operation]: (request: RequestOf<O>) => Promise<ResponseOf<O>> }
const checked: Checked = requestShapes

/** Checks what is asked before the handlers see it. */
export class CheckedRequests implements Requests {
  constructor(private readonly handlers: ControlHandlers) {}

  async call(operation: string, args: unknown): Promise<unknown> {
    if (isOperation(operation)) return answer(this.handlers, operation, args)
    const what = `the daemon knows no operation ${operation}`
    throw new CaracalError('CARACAL_E_UNSUPPORTED', what, 'upgrade the daemon and restart it')
  }

  async dump(
    args: unknown,
    emit: (event: TapEvent) => void,
    signal: AbortSignal,
    lost: (count: number) => void,
  ): Promise<void> {
    const request = check(streamShapes.dump.request, args)
    const parsed = parseFilter(request.filter)
    if (!parsed.ok) {
      const what = `bad filter at column ${parsed.column}: ${parsed.message}`
      throw new CaracalError('CARACAL_E_FILTER', what, 'see `caracal help dump`')
    }
    const passed = (event: TapEvent) => {
      if (parsed.filter(event)) emit(event)
    }
    return this.handlers.dump(request, passed, signal, lost)
  }

  async watch(args: unknown): Promise<WatchRequest> {
    return check(streamShapes.watch.request, args)
  }

  async watched(request: WatchRequest): Promise<readonly FlowInfo[]> {
    const { flows } = await this.handlers.flows({ ...request, limit: FLOWS_MAX })
    return flows
  }

  async flowPage(args: unknown, from: number, left: number | undefined): Promise<FlowPage> {
    const request = check(checked.flows, args)
    return this.handlers.flowPage({ ...request, limit: left ?? request.limit }, from)
  }

  async servicePage(args: unknown, from: number | undefined, left: number | undefined): Promise<ServicePage> {
    const request = check(checked.services, args)
    return this.handlers.servicePage({ ...request, limit: left ?? request.limit }, from)
  }
}

function isOperation(operation: string): operation is Operation {
  return Object.hasOwn(requestShapes, operation)
}

async function answer<O extends Operation>(handlers: Unary, operation: O, args: unknown): Promise<ResponseOf<O>> {
  return handlers[operation](check(checked[operation], args))
}

function check<T>(shape: z.ZodType<T>, args: unknown): T {
  const parsed = shape.safeParse(args)
  if (parsed.success) return parsed.data
  throw new CaracalError('CARACAL_E_REQUEST', `bad request (${issuesOf(parsed.error)})`, 'see `caracal help`')
}
