import { isAbort, messageOf } from '../../base/errors.ts';
import { showRef } from '../../cluster/contract.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import type { StepContext } from '../contract.ts';
import { describePods, podsOf, wantedOf, workloadRef } from './workload-state.ts';

/** The workload that the server of a database is at the old site, when dr has access to its cluster. */
export function serverOf({ world, run }: StepContext, database: string): WorkloadConfig | undefined {
  if (world.config.sites[run.from]?.cluster === undefined) return undefined;
  return Object.values(world.config.workloads).find(
    (each) => each.database === database && each.sites.includes(run.from),
  );
}

/**
 * What the cluster of the old site says of the server of a database: a sentence when it wants no copy and no pod of it is left. Undefined when
 * the database has no workload there, the cluster does not answer, or it still may run; what was seen is noted. A pod that is gone from the API
 * server has been ended by its node; one on a node that is not heard of stays until the node comes back or is removed.
 */
export async function serverStopped(context: StepContext, database: string): Promise<string | undefined> {
  const { world, run, signal, note } = context;
  const entry = serverOf(context, database);
  if (entry === undefined) return undefined;
  const shown = `${showRef(workloadRef(entry))} at ${run.from}`;
  try {
    const cluster = await world.cluster(run.from);
    const object = await cluster.get(workloadRef(entry), signal);
    const wanted = wantedOf(object);
    const pods = await podsOf(cluster, object, signal);
    if (wanted === 0 && pods.length === 0) {
      const detail = `${shown} wants 0 and has no pod (seen at its API server)`;
      note(`old primary of ${database}: ${detail}`);
      return detail;
    }
    note(`old primary of ${database}: ${shown} wants ${wanted}; pods: ${describePods(pods) || 'none'}`);
  } catch (error) {
    if (signal.aborted || isAbort(error)) throw error;
    note(`old primary of ${database}: the cluster of ${run.from} says nothing about it: ${messageOf(error)}`);
  }
  return undefined;
}
