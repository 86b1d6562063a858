import { DrError } from '../base/errors.ts';
import type { Cluster } from '../cluster/contract.ts';
import { openCluster } from '../cluster/open.ts';
import type { Config } from '../config/types.ts';
import type { CommandContext } from './context.ts';

/** The clusters of the sites; each is opened (and its code loaded) by the first step that needs it. */
export function openClusters(
  { env, log }: Pick<CommandContext, 'env' | 'log'>,
  config: Config,
): AsyncDisposable & { get(site: string): Promise<Cluster> } {
  const opened = new Map<string, Promise<Cluster>>();
  return {
    get: async (site) => {
      const access = Object.hasOwn(config.sites, site) ? config.sites[site]?.cluster : undefined;
      if (access === undefined) {
        throw new DrError('config', `site ${site} has no cluster`, {
          where: config.source.path,
          next: `Add "cluster: {}" (the cluster that dr runs in) or "cluster: { kubeconfig: …, context: … }" to sites.${site}.`,
        });
      }
      const known = opened.get(site) ?? openCluster({ ...access, env }, log);
      opened.set(site, known);
      try {
        return await known;
      } catch (error) {
        // A kubeconfig that is mended meanwhile is read again.
        opened.delete(site);
        throw error;
      }
    },
    [Symbol.asyncDispose]: async () => {
      for (const cluster of await Promise.allSettled(opened.values()))
        if (cluster.status === 'fulfilled') cluster.value.close();
    },
  };
}
