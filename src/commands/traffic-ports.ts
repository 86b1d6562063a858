import { openCluster } from '../cluster/open.ts';
import type { TrafficPorts } from '../traffic/open.ts';
import type { CommandContext } from './context.ts';

/** Gives the traffic drivers their way to a cluster, which is opened (and loaded) by the first route that needs it. */
export function trafficPorts({ env, log }: CommandContext): TrafficPorts {
  return { openCluster: async (access) => await openCluster({ ...access, env }, log) };
}
