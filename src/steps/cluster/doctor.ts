import { isAbort } from '../../base/errors.ts';
import { bad, doubtful, type Finding, fromError, good } from '../../base/finding.ts';
import type { Access, Cluster, ObjectRef } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { Config, WorkloadConfig } from '../../config/types.ts';
import { describeGitops, gitopsRefs } from './gitops-kinds.ts';
import { find } from './sites.ts';
import { majorOf, volumePlace } from './volume-place.ts';
import { countOf, ownerOf, unknownCount, wantedOf, workloadRef } from './workload-state.ts';

export interface ClusterStepsDoctorOptions {
  readonly cluster: Cluster;
  readonly config: Config;
  readonly site: string;
  /**
   * What the account is for there: `active` = its own dr only takes backups; `recovery` = its own dr recovers to it; `other` = the dr of another site, which only
   * stops what runs there.
   */
  readonly role: 'active' | 'recovery' | 'other';
  readonly signal: AbortSignal;
}

/** Whether runbooks could stop, start and pause what the configuration names in the cluster of a site. Changes nothing. */
export async function examineClusterSteps(options: ClusterStepsDoctorOptions): Promise<Finding[]> {
  const { config, site, signal } = options;
  const findings: Finding[] = [];
  const at = <T extends { readonly sites: readonly string[] }>(entries: Readonly<Record<string, T>>) =>
    Object.values(entries).filter(({ sites }) => sites.includes(site));
  const attempt = async (work: () => Promise<Finding[]>) => {
    try {
      findings.push(...(await work()));
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      findings.push(fromError(error));
    }
  };
  for (const entry of at(config.workloads)) await attempt(async () => await examineWorkload(options, entry));
  for (const entry of at(config.gitops)) {
    await attempt(async () => {
      const refs = gitopsRefs(entry);
      for (const ref of refs) {
        const isLast = ref === refs.at(-1);
        const isServed = await options.cluster.type(ref, signal).then(
          () => true,
          (error: unknown) => {
            if (isLast) throw error;
            return false;
          },
        );
        if (!isServed) continue;
        const object = await options.cluster.get(ref, signal);
        return [good(`${showRef(ref)} ${describeGitops(object)}`), ...(await rights(options, ref, ['get', 'patch']))];
      }
      return [];
    });
  }
  if (options.role === 'active')
    findings.push(
      good(`whether dr may change it is not asked: it need not while ${site} is active, only for a failback`),
    );
  return findings;
}

async function examineWorkload(options: ClusterStepsDoctorOptions, entry: WorkloadConfig): Promise<Finding[]> {
  const { cluster, config, site, role, signal } = options;
  const ref = workloadRef(entry);
  const denied = [
    ...(await rights(options, ref, ['get', 'patch'])),
    ...(await rights(options, { apiVersion: 'v1', kind: 'Pod', namespace: entry.namespace, name: '' }, ['list'])),
  ];
  if (entry.restore !== undefined && role !== 'other') {
    const job = { apiVersion: 'batch/v1', kind: 'Job', namespace: entry.namespace, name: '' };
    denied.push(...(await rights(options, job, ['create', 'get', 'delete'])));
    const claim = { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace: entry.namespace, name: '' };
    denied.push(...(await rights(options, claim, ['create', 'get'])));
  }
  const object = await find(cluster, ref, signal);
  if (object === undefined) {
    const comes = Object.values(config.objects).some(({ recover }) => Object.hasOwn(recover, site));
    const what = `${showRef(ref)} is not there`;
    return [
      comes ? good(`${what}: it may come with its configuration`) : bad(what, 'Correct "workloads", or create it.'),
      ...denied,
    ];
  }
  const findings = [good(`${showRef(ref)} is there and wants ${wantedOf(object)}`), ...denied];
  const isStarted = entry.database === undefined && entry.kind !== 'DaemonSet';
  if (role === 'recovery' && isStarted && countOf(entry, object, 'kept') === undefined) {
    const { what, next } = unknownCount(entry);
    findings.push(bad(what, next));
  }
  const owner = ownerOf(object);
  if (owner) {
    const next = `Take ${entry.entry} out of the workloads, and stop ${owner.kind} ${owner.name} in the way of its operator.`;
    findings.push(bad(`${showRef(ref)} belongs to ${owner.kind} ${owner.name}, whose operator puts it back`, next));
  }
  const target = entry.database === undefined ? undefined : config.databases[entry.database]?.recover[site];
  if (entry.restore !== undefined && target !== undefined) {
    const { claim, image, mountPath } = volumePlace(entry, object, target.dataDirectory);
    findings.push(
      good(`${entry.database} comes back into claim ${claim}, mounted at ${mountPath}; its server is ${image}`),
    );
    if (majorOf(image) === undefined)
      findings.push(
        doubtful(
          `the image ${image} does not say which PostgreSQL it is`,
          'See that it is the major version of the original.',
        ),
      );
  }
  return findings;
}

/** What the server would not let dr do, with the rule to add. The daemon of the active site is not given what only a recovery there needs. */
async function rights(
  { cluster, role, signal }: ClusterStepsDoctorOptions,
  ref: ObjectRef,
  verbs: readonly Access['verb'][],
): Promise<Finding[]> {
  if (role === 'active') return [];
  const { apiVersion, kind, namespace } = ref;
  const missing: string[] = [];
  for (const verb of verbs)
    if (!(await cluster.allows({ apiVersion, kind, verb, namespace }, signal))) missing.push(verb);
  if (missing.length === 0) return [];
  const { group, plural } = await cluster.type(ref, signal);
  const rule = `{ apiGroups: ["${group}"], resources: ["${plural}"], verbs: [${missing.map((verb) => `"${verb}"`).join(', ')}] }`;
  return [
    bad(
      `dr may not ${missing.join(' or ')} ${plural} in the namespace ${namespace}`,
      `Add the rule ${rule} to its role there.`,
    ),
  ];
}
