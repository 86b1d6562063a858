import type { Finding } from '../base/finding.ts';
import { good } from '../base/finding.ts';
import { openCluster } from '../cluster/open.ts';
import type { Config } from '../config/types.ts';
import type { Area } from '../report/doctor.ts';
import type { CommandContext } from './context.ts';
import type { Look } from './doctor-looks.ts';

/** What runbooks act on in the clusters of the sites. What is missing elsewhere is a warning here. */
export function workloadAreas(
  config: Config,
  { here, active }: { readonly here: string; readonly active: string },
  context: CommandContext,
  look: Look,
): Promise<Area>[] {
  const entries = [...Object.values(config.workloads), ...Object.values(config.gitops)];
  const sites = [...new Set(entries.flatMap(({ sites }) => sites))];
  return sites.flatMap((site) => {
    const access = config.sites[site]?.cluster;
    if (access === undefined) return [];
    return [
      look(`workloads at ${site}${site === here ? '' : ', seen from this machine'}`, async (signal) => {
        // {} means the cluster that dr runs in: elsewhere that is another one.
        if (site !== here && access.kubeconfig === undefined && access.context === undefined)
          return [good(`its cluster is that of site ${site}: run \`dr doctor\` there to look at it`)];
        const { examineClusterSteps } = await import('../steps/cluster/doctor.ts');
        const cluster = await openCluster({ ...access, env: context.env }, context.log);
        try {
          const role = site !== here ? 'other' : site === active ? 'active' : 'recovery';
          const findings = await examineClusterSteps({ cluster, config, site, role, signal });
          if (site === here) return findings;
          return findings.map((each): Finding => (each.verdict === 'fail' ? { ...each, verdict: 'warn' } : each));
        } finally {
          cluster.close();
        }
      }),
    ];
  });
}
