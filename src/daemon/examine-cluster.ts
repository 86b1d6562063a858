import { bad, type Finding, good } from '../base/finding.ts';
import type { Access, Cluster, TypeRef } from '../cluster/contract.ts';
import { type Right, type RightsFeature, rights } from '../cluster/rights.ts';

export interface DaemonRightsOptions {
  readonly cluster: Cluster;
  /** Where the Jobs and the Lease are. */
  readonly namespaces: { readonly executor: string; readonly snapshots: string; readonly leader: string };
  readonly features: readonly (keyof DaemonRightsOptions['namespaces'] & RightsFeature)[];
  readonly signal: AbortSignal;
}

/** Kinds that the rules of these features name by their plural. */
const kinds: Readonly<Record<string, TypeRef>> = {
  jobs: { apiVersion: 'batch/v1', kind: 'Job' },
  pods: { apiVersion: 'v1', kind: 'Pod' },
  leases: { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
  persistentvolumeclaims: { apiVersion: 'v1', kind: 'PersistentVolumeClaim' },
  volumesnapshots: { apiVersion: 'snapshot.storage.k8s.io/v1', kind: 'VolumeSnapshot' },
};
const askable: readonly Access['verb'][] = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'];

/** Whether the account may do what the leader of several replicas and Jobs of the cluster need. Changes nothing. */
export async function examineDaemonRights(options: DaemonRightsOptions): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const feature of options.features) {
    const namespace = options.namespaces[feature];
    const missing: Right[] = [];
    for (const right of rights[feature]) {
      const verbs = await deniedVerbs(options, right, namespace);
      if (verbs.length > 0) missing.push({ ...right, verbs });
    }
    if (missing.length === 0) findings.push(good(`${what[feature]}: every right in the namespace ${namespace}`));
    for (const { apiGroups, resources, verbs, why } of missing) {
      const rule = `{ apiGroups: ${JSON.stringify(apiGroups)}, resources: ${JSON.stringify(resources)}, verbs: ${JSON.stringify(verbs)} }`;
      const next = `Add the rule ${rule} to a Role in the namespace ${namespace} (rights.${feature} of the chart). ${why}`;
      findings.push(bad(`${what[feature]}: dr may not ${verbs.join(', ')} ${resources.join(', ')}`, next));
    }
  }
  return findings;
}

const what = { executor: 'Jobs', snapshots: 'snapshots of volumes', leader: 'the Lease of the replicas' } as const;

async function deniedVerbs(
  { cluster, signal }: DaemonRightsOptions,
  { resources, verbs }: Right,
  namespace: string,
): Promise<Right['verbs'][number][]> {
  const denied = new Set<Right['verbs'][number]>();
  for (const resource of resources) {
    const [plural = '', subresource] = resource.split('/');
    const type = kinds[plural];
    if (type === undefined) continue;
    for (const verb of askable.filter((each) => verbs.includes(each))) {
      const access = { ...type, verb, namespace, ...(subresource !== undefined && { subresource }) };
      if (!(await cluster.allows(access, signal))) denied.add(verb);
    }
  }
  return [...denied];
}
