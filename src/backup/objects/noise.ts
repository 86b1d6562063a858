import type { ClusterObject, ObjectMeta } from '../../cluster/contract.ts';
import { jobLabels } from '../../cluster/job-object.ts';
import { isJson, type Json } from '../../cluster/json.ts';
import { isOfOneRun } from '../../cluster/parked.ts';

/** Objects that the cluster makes by itself wherever it is installed, or that follow from others. Brought back, they would be in the way. */

/** ConfigMaps that controllers put into every namespace, or write into all the time. */
const madeConfigMaps = new Set([
  'kube-root-ca.crt',
  'openshift-service-ca.crt',
  'istio-ca-root-cert',
  'cluster-autoscaler-status',
]);

/** Why an object is no configuration; undefined when it is. */
export function noiseOf(object: ClusterObject): string | undefined {
  const { metadata } = object;
  if (metadata.deletionTimestamp !== undefined) return 'it is being deleted';
  if (metadata.ownerReferences?.some(({ controller }) => controller === true)) return 'its owner makes it';
  const labels = metadata.labels ?? {};
  if (labels['kubernetes.io/bootstrapping'] !== undefined) return 'every cluster has it';
  if (labels['kube-aggregator.kubernetes.io/automanaged'] !== undefined) return 'every cluster has it';
  if (metadata.annotations?.['apf.kubernetes.io/autoupdate-spec'] === 'true') return 'every cluster has it';
  // Jobs, snapshots and claims of dr itself: else each backup would be a change that makes another one.
  if (labels[jobLabels.verb] !== undefined || labels['app.kubernetes.io/managed-by'] === 'dr')
    return 'dr makes it as it works';
  // Of the chart of dr: each site has its own, with the rights of its role. Those of the active one would take the recovery site its own.
  if (labels['app.kubernetes.io/name'] === 'dr' && labels['helm.sh/chart']?.startsWith('dr-'))
    return 'dr is installed at each site by itself';
  return byKind[object.kind]?.(object);
}

const byKind: Readonly<Record<string, (object: ClusterObject) => string | undefined>> = {
  ConfigMap: ({ metadata }) => (madeConfigMaps.has(metadata.name) ? 'a controller writes it' : undefined),
  Secret: ({ type }) =>
    type === 'kubernetes.io/service-account-token' || type === 'bootstrap.kubernetes.io/token'
      ? 'a token of this one cluster'
      : undefined,
  ServiceAccount: (object) => (isBareDefault(object) ? 'every namespace has it' : undefined),
  Service: ({ metadata: { namespace, name } }) =>
    namespace === 'default' && name === 'kubernetes' ? 'every cluster has it' : undefined,
  PriorityClass: ({ metadata: { name } }) => (name.startsWith('system-') ? 'every cluster has it' : undefined),
  APIService: ({ spec }) =>
    isJson(spec) && spec['service'] !== undefined && spec['service'] !== null ? undefined : 'every cluster has it',
  PersistentVolume: ({ metadata }) =>
    metadata.annotations?.['pv.kubernetes.io/provisioned-by'] === undefined ? undefined : 'its claim makes it',
  Pod: ({ metadata, status }) => {
    if (metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined) return 'a node makes it';
    const phase = isJson(status) ? status['phase'] : undefined;
    return phase === 'Succeeded' || phase === 'Failed' ? 'it has ended' : undefined;
  },
};

/** The account that every namespace gets, with nothing added. */
function isBareDefault({ metadata, imagePullSecrets, automountServiceAccountToken }: ClusterObject): boolean {
  const isPlain = (values: object | undefined) => values === undefined || Object.keys(values).length === 0;
  return (
    metadata.name === 'default' &&
    isPlain(metadata.labels) &&
    isPlain(metadata.annotations) &&
    imagePullSecrets === undefined &&
    automountServiceAccountToken === undefined
  );
}

/** Annotations that controllers and tools write for themselves. */
const noisyAnnotations = new Set([
  'kubectl.kubernetes.io/last-applied-configuration',
  'control-plane.alpha.kubernetes.io/leader',
  'deployment.kubernetes.io/revision',
  'deprecated.daemonset.template.generation',
  'endpoints.kubernetes.io/last-change-trigger-time',
  'autoscaling.alpha.kubernetes.io/conditions',
  'autoscaling.alpha.kubernetes.io/current-metrics',
  'pv.kubernetes.io/bind-completed',
  'pv.kubernetes.io/bound-by-controller',
  'volume.kubernetes.io/selected-node',
  'volume.kubernetes.io/storage-provisioner',
  'volume.beta.kubernetes.io/storage-provisioner',
  'batch.kubernetes.io/job-tracking',
]);

export function isNoisyAnnotation(name: string): boolean {
  return noisyAnnotations.has(name) || isOfOneRun(name);
}

/** Finalizers of controllers that every cluster runs: they set them again themselves. */
const standardFinalizers = /^(foregroundDeletion|orphan|(\w+\.)?kubernetes\.io\/.*|.*\.apiextensions\.k8s\.io)$/;

/** What the object says, without what the cluster has written into it: equal for equal configuration. */
export function withoutNoise(object: ClusterObject): Json {
  const { status: _status, metadata, ...rest } = object;
  const clean = { ...rest, metadata: cleanMeta(metadata) };
  return cleaners[object.kind]?.(clean, object) ?? clean;
}

type Clean = Json & { readonly metadata: Json };

function cleanMeta(metadata: ObjectMeta): Json {
  const { name, namespace, labels, annotations, finalizers, ownerReferences } = metadata;
  const told = Object.entries(annotations ?? {}).filter(([key]) => !isNoisyAnnotation(key));
  const holding = finalizers?.filter((each) => !standardFinalizers.test(each)) ?? [];
  // The identity of an owner is another one in every cluster.
  const owners = ownerReferences?.map(({ uid: _uid, ...owner }) => owner) ?? [];
  return {
    name,
    ...(namespace !== undefined && namespace !== '' && { namespace }),
    ...(labels && Object.keys(labels).length > 0 && { labels }),
    ...(told.length > 0 && { annotations: Object.fromEntries(told) }),
    ...(holding.length > 0 && { finalizers: holding }),
    ...(owners.length > 0 && { ownerReferences: owners }),
  };
}

const cleaners: Readonly<Record<string, (clean: Clean, object: ClusterObject) => Json>> = {
  Namespace: ({ spec: _spec, ...clean }) => ({
    ...clean,
    metadata: { ...clean.metadata, ...withoutKeys(clean.metadata, 'labels', ['kubernetes.io/metadata.name']) },
  }),
  Service: (clean, object) => ({ ...clean, spec: serviceSpec(clean['spec'], object) }),
  PersistentVolumeClaim: (clean, { metadata }) =>
    metadata.annotations?.['pv.kubernetes.io/bound-by-controller'] === 'yes'
      ? { ...clean, spec: omit(clean['spec'], ['volumeName']) }
      : clean,
  PersistentVolume: (clean) => {
    const spec = isJson(clean['spec']) ? clean['spec'] : {};
    const claimRef = spec['claimRef'];
    return isJson(claimRef)
      ? { ...clean, spec: { ...spec, claimRef: omit(claimRef, ['uid', 'resourceVersion']) } }
      : clean;
  },
  ServiceAccount: ({ secrets: _secrets, ...clean }) => clean,
  Pod: (clean) => ({ ...clean, spec: podSpec(clean['spec']) }),
  Job: (clean) => jobWithoutIdentity(clean),
  // The rules are collected from other roles.
  ClusterRole: (clean) => (isJson(clean['aggregationRule']) ? { ...clean, rules: [] } : clean),
};

function omit(value: unknown, keys: readonly string[]): unknown {
  return isJson(value) ? Object.fromEntries(Object.entries(value).filter(([key]) => !keys.includes(key))) : value;
}

/** `field` of an object without some keys; nothing at all where none is left. */
function withoutKeys(value: Json, field: string, keys: readonly string[]): Json {
  const left = omit(value[field], keys);
  return { [field]: isJson(left) && Object.keys(left).length > 0 ? left : undefined };
}

/** Addresses and ports are given by the cluster, unless somebody asked for them: `managedFields` has only what was asked for. */
function serviceSpec(spec: unknown, { metadata }: ClusterObject): unknown {
  if (!isJson(spec)) return spec;
  const asked = JSON.stringify(metadata.managedFields?.map(({ fieldsV1 }) => fieldsV1) ?? []);
  const drop: string[] = [];
  if (spec['clusterIP'] !== 'None' && !asked.includes('"f:clusterIP"')) drop.push('clusterIP', 'clusterIPs');
  if (!asked.includes('"f:healthCheckNodePort"')) drop.push('healthCheckNodePort');
  const kept = omit(spec, drop) as Json;
  const { ports } = kept;
  if (!Array.isArray(ports) || asked.includes('"f:nodePort"')) return kept;
  return { ...kept, ports: ports.map((port) => omit(port, ['nodePort'])) };
}

/** Without the node that it got, and the token of its account that is put into every pod. */
function podSpec(spec: unknown): unknown {
  if (!isJson(spec)) return spec;
  const isToken = (each: unknown) => isJson(each) && String(each['name']).startsWith('kube-api-access-');
  const without = (list: unknown) => (Array.isArray(list) ? list.filter((each) => !isToken(each)) : list);
  const containers = (list: unknown) =>
    Array.isArray(list)
      ? list.map((each) => (isJson(each) ? { ...each, volumeMounts: without(each['volumeMounts']) } : each))
      : list;
  const { nodeName: _nodeName, ...rest } = spec;
  return {
    ...rest,
    volumes: without(rest['volumes']),
    containers: containers(rest['containers']),
    initContainers: containers(rest['initContainers']),
  };
}

const jobIdentity = [
  'controller-uid',
  'batch.kubernetes.io/controller-uid',
  'job-name',
  'batch.kubernetes.io/job-name',
];

/** Selector and labels with the identity of the Job are made anew for each. */
function jobWithoutIdentity(clean: Clean): Json {
  const { spec } = clean;
  if (!isJson(spec) || spec['manualSelector'] === true) return clean;
  const { selector: _selector, ...rest } = spec;
  const template = isJson(rest['template']) ? rest['template'] : {};
  const meta = isJson(template['metadata']) ? template['metadata'] : {};
  return {
    ...clean,
    metadata: { ...clean.metadata, ...withoutKeys(clean.metadata, 'labels', jobIdentity) },
    spec: { ...rest, template: { ...template, metadata: { ...meta, ...withoutKeys(meta, 'labels', jobIdentity) } } },
  };
}
