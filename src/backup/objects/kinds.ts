import picomatch from 'picomatch';
import type { ObjectType } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import type { Omission } from './layout.ts';

/** Which kinds of a cluster are configuration. */

const RUNTIME = 'the cluster writes it by itself as it runs';
const IDENTITY = 'it belongs to machines or addresses of this one cluster';

/** Kinds that no person writes, by `plural.group`. Whatever made them makes them again. */
const runtimeKinds: ReadonlyMap<string, string> = new Map([
  ...[
    'events',
    'events.events.k8s.io',
    'endpoints',
    'endpointslices.discovery.k8s.io',
    'leases.coordination.k8s.io',
    'leasecandidates.coordination.k8s.io',
    'controllerrevisions.apps',
    'storageversions.internal.apiserver.k8s.io',
    'csistoragecapacities.storage.k8s.io',
    'certificatesigningrequests.certificates.k8s.io',
    'volumesnapshotcontents.snapshot.storage.k8s.io',
    'ciliumendpoints.cilium.io',
    'ciliumidentities.cilium.io',
    'blockaffinities.crd.projectcalico.org',
    'ipamblocks.crd.projectcalico.org',
    'ipamhandles.crd.projectcalico.org',
    'challenges.acme.cert-manager.io',
    'orders.acme.cert-manager.io',
    'certificaterequests.cert-manager.io',
    'policyreports.wgpolicyk8s.io',
    'clusterpolicyreports.wgpolicyk8s.io',
  ].map((name) => [name, RUNTIME] as const),
  ...[
    'nodes',
    'csinodes.storage.k8s.io',
    'volumeattachments.storage.k8s.io',
    'ipaddresses.networking.k8s.io',
    'servicecidrs.networking.k8s.io',
    'resourceslices.resource.k8s.io',
    'ciliumnodes.cilium.io',
    'nodeclaims.karpenter.sh',
    'machines.cluster.x-k8s.io',
  ].map((name) => [name, IDENTITY] as const),
]);

/** API groups whose answers are measured anew each time: that their server is away is no loss. */
export const measuredGroups: ReadonlySet<string> = new Set([
  'metrics.k8s.io',
  'custom.metrics.k8s.io',
  'external.metrics.k8s.io',
]);

/** `deployments.apps`, as kubectl and RBAC rules name a kind. */
export function kindName({ plural, group }: Pick<ObjectType, 'plural' | 'group'>): string {
  return group === '' ? plural : `${plural}.${group}`;
}

export function isNamespaceType({ group, kind }: Pick<ObjectType, 'group' | 'kind'>): boolean {
  return group === '' && kind === 'Namespace';
}

export interface ChosenKinds {
  /** In the order in which they are read: definitions and namespaces first. */
  readonly taken: readonly ObjectType[];
  readonly leftOut: readonly Omission[];
}

/** Of all kinds of a cluster those that are backed up. What is read-only (reviews, metrics) is no configuration and not mentioned. */
export function chooseKinds(types: readonly ObjectType[], select: ObjectSelection): ChosenKinds {
  const included = kindMatcher(select.kinds.include);
  const excluded = kindMatcher(select.kinds.exclude);
  const leftOut: Omission[] = [];
  const taken = types.filter((type) => {
    if (!type.verbs.includes('list') || !type.verbs.includes('create')) return false;
    // Shown a second time under the name of an old group, on servers before 1.22.
    if (type.group === 'extensions') return false;
    const why = reason(type, select, included, excluded);
    if (why !== undefined) leftOut.push({ what: kindName(type), why });
    return why === undefined;
  });
  const rank = (type: ObjectType) => (isNamespaceType(type) ? 0 : type.kind === 'CustomResourceDefinition' ? 1 : 2);
  taken.sort((a, b) => rank(a) - rank(b) || compare(kindName(a), kindName(b)));
  leftOut.sort((a, b) => compare(a.what, b.what));
  return { taken, leftOut };
}

function reason(
  type: ObjectType,
  { clusterObjects, secrets, kinds }: ObjectSelection,
  included: (type: ObjectType) => boolean,
  excluded: (type: ObjectType) => boolean,
): string | undefined {
  if (kinds.include.length > 0 && !included(type)) return 'not among kinds.include';
  if (excluded(type)) return 'kinds.exclude';
  if (type.group === '' && type.kind === 'Secret' && !secrets) return 'Secrets are not asked for (secrets: true)';
  if (!clusterObjects && !type.namespaced && !isNamespaceType(type)) {
    return 'it lives in no namespace (clusterObjects: false)';
  }
  return runtimeKinds.get(kindName(type));
}

/** Kinds as people name them: `deployments.apps`, `Deployment`, `configmaps`, `*.cert-manager.io`; capitals do not matter. */
function kindMatcher(patterns: readonly string[]): (type: ObjectType) => boolean {
  const tests = patterns.map((pattern) => picomatch(pattern.toLowerCase()));
  return (type) => {
    const { plural, kind, group } = type;
    const names = [plural, kind, `${kind}.${group}`, kindName(type)].map((name) => name.toLowerCase());
    return tests.some((test) => names.some((name) => test(name)));
  };
}

/** By code units: the same order everywhere. */
export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
