import { createHash } from 'node:crypto';
import type { Task } from './executor.ts';

/** Kubernetes puts the name of a Job into a label of its pods: 63 characters. */
const MOST = 63;

/**
 * The name of the Job of a task: the same whoever leads, so that the API server makes it once. `attempt`: how often it has failed before.
 * `dr-backup-orders-tfqx40-0`: the occurrence in seconds since 1970, base 36.
 */
export function jobName(site: string, { verb, resource, occurrenceMs }: TaskIdentity, attempt: number): string {
  const tail = `-${Math.floor(occurrenceMs / 1000).toString(36)}-${attempt}`;
  const plain = `${site}-${resource}`.toLowerCase().replace(/[^a-z0-9-]/g, '-');
  const head = `dr-${verb}-${plain}`;
  const isExact = plain === `${site}-${resource}` && head.length + tail.length <= MOST;
  if (isExact) return head + tail;
  const mark = `-${createHash('sha256').update(`${site}/${resource}`).digest('hex').slice(0, 8)}`;
  return head.slice(0, MOST - tail.length - mark.length).replace(/-+$/, '') + mark + tail;
}

export type TaskIdentity = Pick<Task, 'verb' | 'resource' | 'occurrenceMs'>;
