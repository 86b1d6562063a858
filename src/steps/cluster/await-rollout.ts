import { DrError } from '../../base/errors.ts';
import type { Cluster, ObjectRef } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { StepContext } from '../contract.ts';
import { rolloutState } from './rollout-state.ts';
import { until } from './sites.ts';
import { podsOf, troubleOf } from './workload-state.ts';

/** Waits until a workload runs as it wants to; says how in words. Throws `check-failed` when its controller gives up. */
export async function awaitRollout(context: StepContext, cluster: Cluster, ref: ObjectRef): Promise<string> {
  return await until(context, async () => {
    const object = await cluster.get(ref, context.signal);
    const { isComplete, failed, detail } = rolloutState(object);
    if (isComplete) return { over: detail };
    const pods = await podsOf(cluster, object, context.signal);
    const troubles = [...new Set(pods.flatMap((pod) => troubleOf(pod) ?? []))].slice(0, 3).join('; ');
    if (failed === undefined) return { detail: troubles === '' ? detail : `${detail}; ${troubles}` };
    throw new DrError('check-failed', `${showRef(ref)} does not come up: ${failed}${troubles ? `; ${troubles}` : ''}`, {
      where: cluster.target,
      next: 'Mend what its pods say, or go back to the revision before (workload.rollout with "do: undo"); then run the same command again.',
      retryable: true,
    });
  });
}
