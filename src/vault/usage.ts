import { currentActivity } from '../base/activity.ts';
import type { Operation, RequestKind, StoreStats, Usage } from './store.ts';

const billed: Readonly<Record<RequestKind, Operation>> = {
  create: 'PUT',
  overwrite: 'PUT',
  lock: 'PUT',
  read: 'GET',
  stat: 'GET',
  list: 'LIST',
  delete: 'DELETE',
};

interface MutableUsage extends Usage {
  readonly requests: Record<Operation, number>;
  bytesIn: number;
  bytesOut: number;
}

/** The counters of a driver. */
export class UsageMeter implements StoreStats {
  readonly requests: Record<RequestKind, number> = {
    create: 0,
    overwrite: 0,
    read: 0,
    stat: 0,
    list: 0,
    delete: 0,
    lock: 0,
  };
  readonly #byActivity = new Map<string, MutableUsage>();
  retries = 0;
  bytesIn = 0;
  bytesOut = 0;

  get byActivity(): ReadonlyMap<string, Usage> {
    return this.#byActivity;
  }

  asked(kind: RequestKind): void {
    this.requests[kind]++;
    this.#current().requests[billed[kind]]++;
  }

  received(bytes: number): void {
    this.bytesIn += bytes;
    this.#current().bytesIn += bytes;
  }

  sent(bytes: number): void {
    this.bytesOut += bytes;
    this.#current().bytesOut += bytes;
  }

  #current(): MutableUsage {
    const name = currentActivity();
    const known = this.#byActivity.get(name);
    if (known) return known;
    const usage = { requests: { PUT: 0, GET: 0, LIST: 0, DELETE: 0 }, bytesIn: 0, bytesOut: 0 };
    this.#byActivity.set(name, usage);
    return usage;
  }
}

/** All that was asked of a vault, whatever for. */
export function totalUsage({ requests, bytesIn, bytesOut }: StoreStats): Usage {
  const total: Record<Operation, number> = { PUT: 0, GET: 0, LIST: 0, DELETE: 0 };
  for (const kind of Object.keys(billed) as RequestKind[]) total[billed[kind]] += requests[kind];
  return { requests: total, bytesIn, bytesOut };
}
