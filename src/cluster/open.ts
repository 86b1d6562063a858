import type { Log } from '../base/log.ts';
import type { Cluster } from './contract.ts';
import type { KubeconfigOptions } from './kubeconfig.ts';

/** Opens a cluster; its code is loaded only now, and nothing is connected yet. Close it when done. */
export async function openCluster(options: KubeconfigOptions, log: Log): Promise<Cluster> {
  const [{ loadSettings }, { KubernetesCluster }] = await Promise.all([
    import('./kubeconfig.ts'),
    import('./kubernetes.ts'),
  ]);
  return new KubernetesCluster(loadSettings(options), { log });
}
