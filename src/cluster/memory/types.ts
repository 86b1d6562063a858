import type { ClusterObject, ObjectType } from '../contract.ts';
import { isJson } from '../json.ts';

const everything = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

function ofGroup(apiVersion: string, kinds: Readonly<Record<string, string>>): ObjectType[] {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return Object.entries(kinds).map(([kind, facts]): ObjectType => {
    const [plural = '', ...more] = facts.split(' ');
    const subresources = more.filter((word) => word !== 'cluster');
    return {
      apiVersion,
      group,
      version,
      kind,
      plural,
      namespaced: !more.includes('cluster'),
      verbs: everything,
      subresources,
    };
  });
}

/** Kinds that every cluster has; definitions add to them. `cluster`: lives in no namespace. */
export const builtInTypes: readonly ObjectType[] = [
  ...ofGroup('v1', {
    Namespace: 'namespaces cluster status',
    ConfigMap: 'configmaps',
    Secret: 'secrets',
    Service: 'services status',
    ServiceAccount: 'serviceaccounts',
    Pod: 'pods status',
    Node: 'nodes cluster status',
    Event: 'events',
    Endpoints: 'endpoints',
    PersistentVolume: 'persistentvolumes cluster status',
    PersistentVolumeClaim: 'persistentvolumeclaims status',
    ResourceQuota: 'resourcequotas status',
    LimitRange: 'limitranges',
  }),
  ...ofGroup('apps/v1', {
    Deployment: 'deployments status scale',
    StatefulSet: 'statefulsets status scale',
    ReplicaSet: 'replicasets status scale',
    DaemonSet: 'daemonsets status',
    ControllerRevision: 'controllerrevisions',
  }),
  ...ofGroup('batch/v1', { Job: 'jobs status', CronJob: 'cronjobs status' }),
  ...ofGroup('rbac.authorization.k8s.io/v1', {
    Role: 'roles',
    RoleBinding: 'rolebindings',
    ClusterRole: 'clusterroles cluster',
    ClusterRoleBinding: 'clusterrolebindings cluster',
  }),
  ...ofGroup('networking.k8s.io/v1', {
    Ingress: 'ingresses status',
    IngressClass: 'ingressclasses cluster',
    NetworkPolicy: 'networkpolicies',
  }),
  ...ofGroup('storage.k8s.io/v1', { StorageClass: 'storageclasses cluster' }),
  ...ofGroup('scheduling.k8s.io/v1', { PriorityClass: 'priorityclasses cluster' }),
  ...ofGroup('policy/v1', { PodDisruptionBudget: 'poddisruptionbudgets status' }),
  ...ofGroup('autoscaling/v2', { HorizontalPodAutoscaler: 'horizontalpodautoscalers status' }),
  ...ofGroup('coordination.k8s.io/v1', { Lease: 'leases' }),
  ...ofGroup('discovery.k8s.io/v1', { EndpointSlice: 'endpointslices' }),
  ...ofGroup('admissionregistration.k8s.io/v1', {
    MutatingWebhookConfiguration: 'mutatingwebhookconfigurations cluster',
    ValidatingWebhookConfiguration: 'validatingwebhookconfigurations cluster',
  }),
  ...ofGroup('apiextensions.k8s.io/v1', { CustomResourceDefinition: 'customresourcedefinitions cluster status' }),
];

/** The kinds that a definition brings, the version that is stored first; empty for one that is not complete. */
export function typesOf(definition: ClusterObject): ObjectType[] {
  const { spec } = definition;
  if (!isJson(spec) || !isJson(spec['names']) || !Array.isArray(spec['versions'])) return [];
  const { names, group, scope } = spec;
  const versions = spec['versions'].filter((each) => isJson(each)).filter(({ served }) => served !== false);
  versions.sort((a, b) => Number(b['storage'] === true) - Number(a['storage'] === true));
  return versions.map(
    ({ name, subresources }): ObjectType => ({
      apiVersion: `${group}/${name}`,
      group: String(group),
      version: String(name),
      kind: String(names['kind']),
      plural: String(names['plural']),
      namespaced: scope !== 'Cluster',
      verbs: everything,
      subresources: isJson(subresources) ? Object.keys(subresources) : [],
    }),
  );
}
