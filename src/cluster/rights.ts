/**
 * What dr may do in a cluster, feature by feature, and why: the one table that the Helm chart makes its roles of
 * (`helm/dr/files/rights.yaml`), that docs/kubernetes.md shows and that `dr doctor` asks the API server about.
 */

export type RightsVerb =
  | 'get'
  | 'list'
  | 'watch'
  | 'create'
  | 'update'
  | 'patch'
  | 'delete'
  /** Write roles with rights that the writer does not have. */
  | 'escalate'
  /** Give roles to somebody. */
  | 'bind';

export interface Right {
  /** As RBAC has it: the core group is empty. */
  readonly apiGroups: readonly string[];
  /** Names in URLs, with the subresource: `deployments/scale`. */
  readonly resources: readonly string[];
  readonly verbs: readonly RightsVerb[];
  /** Only objects of these names. `create` and `list` cannot be limited so. */
  readonly resourceNames?: readonly string[];
  /**
   * Where: `cluster` = everywhere; `namespaces` = in the namespaces that the chart's value `rights.namespaces` names, or everywhere
   * where it names none; `own` = in the namespace that dr runs in.
   */
  readonly scope: 'cluster' | 'namespaces' | 'own';
  /** Why dr needs it, as a reviewer of roles reads it. */
  readonly why: string;
}

export const rightsFeatures = [
  'configuration',
  'configurationSecrets',
  'restoreConfiguration',
  'restoreSecrets',
  'executor',
  'snapshots',
  'leader',
  'routes',
  'steps',
] as const;
export type RightsFeature = (typeof rightsFeatures)[number];

/** What each feature is for: one sentence. */
export const featureSummaries: Readonly<Record<RightsFeature, string>> = {
  configuration: 'Backups of the objects of the cluster (`configuration.NAME.kubernetes`).',
  configurationSecrets: 'Secrets among them, where the configuration asks for them.',
  restoreConfiguration: '`dr config restore` and runbooks that restore configuration, run by dr in the cluster.',
  restoreSecrets: 'Secrets among what is restored.',
  executor: 'Backups, restores and verifications as Jobs (`executor: kubernetes`).',
  snapshots: 'Volumes read from a CSI VolumeSnapshot instead of the volume itself.',
  leader: 'Two replicas, of which one works (`leader` by Lease).',
  routes: 'Traffic by the weights of HTTPRoutes and VirtualServices.',
  steps: 'Steps of runbooks that change the cluster; only those that are named.',
};

const read = ['get', 'list', 'watch'] as const;
const write = ['get', 'list', 'create', 'patch'] as const;

/** Groups of Kubernetes itself whose objects are configuration, every kind of them. */
const builtInGroups = [
  'apps',
  'batch',
  'autoscaling',
  'policy',
  'networking.k8s.io',
  'rbac.authorization.k8s.io',
  'storage.k8s.io',
  'apiextensions.k8s.io',
  'admissionregistration.k8s.io',
  'apiregistration.k8s.io',
  'scheduling.k8s.io',
  'node.k8s.io',
  'resource.k8s.io',
  'flowcontrol.apiserver.k8s.io',
] as const;

/** Kinds of the core group that are configuration: without Secrets, Events, Endpoints and Nodes. */
const coreKinds = [
  'configmaps',
  'limitranges',
  'namespaces',
  'persistentvolumeclaims',
  'persistentvolumes',
  'pods',
  'podtemplates',
  'replicationcontrollers',
  'resourcequotas',
  'serviceaccounts',
  'services',
] as const;

export { stepRights } from './step-rights.ts';

/** Rights of everything but steps. Custom resources come in by the chart's value `rights.customGroups`. */
export const rights: Readonly<Record<Exclude<RightsFeature, 'steps'>, readonly Right[]>> = {
  configuration: [
    {
      apiGroups: [''],
      resources: coreKinds,
      verbs: read,
      scope: 'cluster',
      why: 'Read and watched for backups; Secrets are not among them.',
    },
    {
      apiGroups: builtInGroups,
      resources: ['*'],
      verbs: read,
      scope: 'cluster',
      why: 'Read and watched for backups: workloads, routes, roles, storage classes, definitions.',
    },
  ],
  configurationSecrets: [
    {
      apiGroups: [''],
      resources: ['secrets'],
      verbs: read,
      scope: 'cluster',
      why: 'Secrets in backups, encrypted; only with `secrets: true` in the configuration.',
    },
  ],
  restoreConfiguration: [
    {
      apiGroups: [''],
      resources: coreKinds,
      verbs: write,
      scope: 'cluster',
      why: 'Objects are compared and applied (server-side apply) when configuration is restored.',
    },
    {
      apiGroups: builtInGroups,
      resources: ['*'],
      verbs: write,
      scope: 'cluster',
      why: 'The same for workloads, routes, storage classes and definitions.',
    },
    {
      apiGroups: ['rbac.authorization.k8s.io'],
      resources: ['roles', 'clusterroles'],
      verbs: ['escalate', 'bind'],
      scope: 'cluster',
      why: 'Roles and bindings come back whatever rights they give: whoever holds this can give itself any right.',
    },
  ],
  restoreSecrets: [
    {
      apiGroups: [''],
      resources: ['secrets'],
      verbs: write,
      scope: 'cluster',
      why: 'Secrets are compared and applied when configuration with Secrets is restored.',
    },
  ],
  executor: [
    {
      apiGroups: ['batch'],
      resources: ['jobs'],
      verbs: ['get', 'list', 'create', 'patch', 'delete'],
      scope: 'own',
      why: 'Each backup, restore and verification is a Job, watched to its end, cancelled and removed.',
    },
    {
      apiGroups: [''],
      resources: ['pods'],
      verbs: ['get', 'list'],
      scope: 'own',
      why: 'Why a Job does not start or was ended: image not pulled, evicted, node lost. The own pod is the pattern of the Jobs.',
    },
    {
      apiGroups: [''],
      resources: ['pods/log'],
      verbs: ['get'],
      scope: 'own',
      why: 'Progress and errors of Jobs.',
    },
  ],
  snapshots: [
    {
      apiGroups: ['snapshot.storage.k8s.io'],
      resources: ['volumesnapshots'],
      verbs: ['get', 'create', 'delete'],
      scope: 'own',
      why: 'A snapshot of the volume is made for a backup and removed after it.',
    },
    {
      apiGroups: [''],
      resources: ['persistentvolumeclaims'],
      verbs: ['get', 'create', 'delete'],
      scope: 'own',
      why: 'The claim through which the Job reads the snapshot.',
    },
  ],
  leader: [
    {
      apiGroups: ['coordination.k8s.io'],
      resources: ['leases'],
      verbs: ['get', 'create', 'patch'],
      scope: 'own',
      why: 'The Lease that says which replica works.',
    },
  ],
  routes: [
    {
      apiGroups: ['gateway.networking.k8s.io'],
      resources: ['httproutes'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'Weights of the rule that divides traffic between sites.',
    },
    {
      apiGroups: ['networking.istio.io'],
      resources: ['virtualservices'],
      verbs: ['get', 'patch'],
      scope: 'namespaces',
      why: 'The same in an Istio mesh.',
    },
  ],
};
