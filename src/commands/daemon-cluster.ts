import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Cluster } from '../cluster/contract.ts';
import { openCluster } from '../cluster/open.ts';
import { forSite } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import type { DaemonWorld } from '../daemon/daemon.ts';
import type { Area } from '../report/doctor.ts';
import type { CommandContext } from './context.ts';
import type { Look } from './doctor-looks.ts';

/** What of the daemon needs the cluster that it runs in: the Lease of its replicas, and Jobs that do its work. */

const NAMESPACE_FILE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace';
const DURATION_MS = 12_000;
/** Of a question about rights. */
const ASK_MS = 5000;

/** Of this start of this process: no other one, not even an earlier one in the same pod, has it. */
const startId = randomBytes(4).toString('hex');

export interface DaemonClusterParts extends Pick<DaemonWorld, 'replicas' | 'executor'> {
  close(): void;
}

/** What makes the daemon's part of the tests quick. */
export interface ClusterPace {
  /** Longest pause between two looks at a Job, milliseconds. */
  readonly jobPollMs?: number | undefined;
}

/** Empty where the site has no cluster, or nothing of it is wanted; then no code of clusters is loaded. Throws `config`. */
export async function daemonClusterParts(
  config: Config,
  site: string,
  context: Pick<CommandContext, 'env' | 'log' | 'clock'>,
  pace: ClusterPace = {},
): Promise<DaemonClusterParts> {
  const { env, log, clock } = context;
  const access = config.sites[site]?.cluster;
  const pod = { name: env['DR_POD_NAME'] || hostname(), namespace: podNamespace(env) };
  const { leader } = config.daemon;
  const isInside = pod.namespace !== undefined && access?.kubeconfig === undefined && access?.context === undefined;
  const jobs = config.executor;
  if (access === undefined) {
    if (jobs) log.info({ site }, 'this site has no cluster: backups and verifications are done in this process');
    return { close: () => {} };
  }
  const mayWantLease = typeof leader === 'object' || (leader === 'automatic' && isInside);
  if (!mayWantLease && !jobs) return { close: () => {} };
  let cluster: Cluster;
  try {
    cluster = await openCluster({ ...access, env }, log);
  } catch (error) {
    // A pod without a token: nobody meant it to ask the API server.
    if (jobs || typeof leader === 'object' || !(error instanceof DrError && error.kind === 'config')) throw error;
    log.info({ reason: error.message }, 'no API server can be asked: this daemon works as the only one of its site');
    return { close: () => {} };
  }
  const wantsLease = mayWantLease && (typeof leader === 'object' || (await mayLead(cluster, pod.namespace, log)));
  return {
    ...(wantsLease && { replicas: await replicasOf(config, site, pod, cluster, context) }),
    ...(jobs && { executor: await executorOf(config, site, pod, cluster, { log, clock, ...pace }) }),
    close: () => cluster.close(),
  };
}

/**
 * Whether the account of the pod has the rights of a leader: where it has not, it was meant to be the only replica. An API server that does not
 * answer counts as yes, because two that both work are worse than one that waits.
 */
async function mayLead(cluster: Cluster, namespace: string | undefined, log: Log): Promise<boolean> {
  const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace };
  const signal = AbortSignal.timeout(ASK_MS);
  try {
    const [mayCreate, mayPatch] = await Promise.all([
      cluster.allows({ ...lease, verb: 'create' }, signal),
      cluster.allows({ ...lease, verb: 'patch' }, signal),
    ]);
    if (mayCreate && mayPatch) return true;
  } catch (error) {
    log.warn({ error }, 'the API server does not say whether this replica may lead; it waits for the Lease');
    return true;
  }
  const next = 'For two and more replicas give them the rights on Leases (rights.leader of the chart).';
  log.warn({ namespace, next }, 'no Lease may be written here: this daemon works as the only one of its site');
  return false;
}

interface OwnPod {
  readonly name: string;
  readonly namespace: string | undefined;
}

async function replicasOf(
  { daemon }: Config,
  site: string,
  pod: OwnPod,
  cluster: Cluster,
  { clock }: Pick<CommandContext, 'clock'>,
): Promise<NonNullable<DaemonWorld['replicas']>> {
  const { ClusterLease } = await import('../cluster/lease.ts');
  const named = typeof daemon.leader === 'object' ? daemon.leader : undefined;
  const namespace = named?.namespace ?? pod.namespace;
  if (namespace === undefined) throw noNamespace('daemon.leader.namespace');
  // Runs only forward, and while the process stands still.
  const elapsed = () => performance.now();
  const lease = new ClusterLease(cluster, {
    namespace,
    name: named?.name ?? leaseName(site),
    identity: `${pod.name}_${startId}`,
    durationMs: named?.durationMs ?? DURATION_MS,
    elapsed,
    now: () => clock.now(),
  });
  return { lease, elapsed };
}

async function executorOf(
  config: Config,
  site: string,
  pod: OwnPod,
  cluster: Cluster,
  { log, clock, jobPollMs }: Pick<CommandContext, 'log' | 'clock'> & ClusterPace,
): Promise<NonNullable<DaemonWorld['executor']>> {
  const { KubernetesExecutor } = await import('../daemon/kubernetes-executor.ts');
  const jobs = config.executor;
  const { namespace } = pod;
  if (jobs === undefined || namespace === undefined) throw noNamespace('executor.kubernetes');
  const { directories } = forSite(config, site);
  const paths = Object.fromEntries(Object.entries(directories).map(([name, { path }]) => [name, path]));
  const own = { name: pod.name, namespace };
  const { scratch } = config;
  return (leadership) =>
    new KubernetesExecutor({
      cluster,
      config: jobs,
      site,
      pod: own,
      scratch,
      paths,
      leadership,
      clock,
      log,
      pollMs: jobPollMs,
    });
}

/** For `dr doctor`: whether the account of this site may do what its daemon is configured to do in the cluster. */
export function daemonClusterAreas(
  config: Config,
  site: string,
  { env, log }: Pick<CommandContext, 'env' | 'log'>,
  look: Look,
): Promise<Area>[] {
  const access = config.sites[site]?.cluster;
  const { executor: jobs } = config;
  const { leader } = config.daemon;
  const lease = typeof leader === 'object' ? leader : undefined;
  if (access === undefined || (!jobs && !lease)) return [];
  return [
    look(`replicas and Jobs at ${site}`, async (signal) => {
      const pod = podNamespace(env);
      const of = (named: string | undefined, key: string) => {
        const namespace = named ?? pod;
        if (namespace === undefined) throw noNamespace(key);
        return namespace;
      };
      const inJobs = jobs ? of(jobs.namespace, 'executor.kubernetes.namespace') : '';
      const takesSnapshots = Object.values(jobs?.volumes ?? {}).some(({ snapshot }) => snapshot !== undefined);
      const { examineDaemonRights } = await import('../daemon/examine-cluster.ts');
      const cluster = await openCluster({ ...access, env }, log);
      try {
        return await examineDaemonRights({
          cluster,
          namespaces: {
            executor: inJobs,
            snapshots: inJobs,
            leader: lease ? of(lease.namespace, 'daemon.leader.namespace') : '',
          },
          features: [
            ...(jobs ? (['executor'] as const) : []),
            ...(takesSnapshots ? (['snapshots'] as const) : []),
            ...(lease ? (['leader'] as const) : []),
          ],
          signal,
        });
      } finally {
        cluster.close();
      }
    }),
  ];
}

function podNamespace(env: CommandContext['env']): string | undefined {
  if (env['DR_POD_NAMESPACE']) return env['DR_POD_NAMESPACE'];
  try {
    return readFileSync(NAMESPACE_FILE, 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Names of sites may have what names of objects may not. */
function leaseName(site: string): string {
  return `dr-${site.toLowerCase().replace(/[^a-z0-9-]/g, '-')}`.replace(/-+$/, '');
}

function noNamespace(key: string): DrError {
  return new DrError('config', `${key} needs the namespace of the pod, and this process runs in no pod`, {
    where: 'DR_POD_NAMESPACE, the service account of the pod',
    next: 'Run the daemon in the cluster (docs/kubernetes.md), or take the executor and the leader out of the configuration.',
  });
}
