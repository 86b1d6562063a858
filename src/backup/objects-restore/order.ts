import type { TypeRef } from '../../cluster/contract.ts';
import { splitApiVersion } from '../../cluster/contract.ts';

/** What comes before what when objects are restored: a phase begins when the one before has been tried in full. */
export const phases = [
  'definitions',
  'namespaces',
  'access',
  'storage',
  'configuration',
  'workloads',
  'custom',
  'routes',
  'webhooks',
] as const;
export type Phase = (typeof phases)[number];

const byKind: Readonly<Record<string, Phase>> = {
  CustomResourceDefinition: 'definitions',
  Namespace: 'namespaces',
  ServiceAccount: 'access',
  Role: 'access',
  ClusterRole: 'access',
  RoleBinding: 'access',
  ClusterRoleBinding: 'access',
  StorageClass: 'storage',
  CSIDriver: 'storage',
  VolumeAttributesClass: 'storage',
  VolumeSnapshotClass: 'storage',
  PersistentVolume: 'storage',
  PersistentVolumeClaim: 'storage',
  ConfigMap: 'configuration',
  Secret: 'configuration',
  LimitRange: 'configuration',
  ResourceQuota: 'configuration',
  PriorityClass: 'configuration',
  RuntimeClass: 'configuration',
  IngressClass: 'configuration',
  NetworkPolicy: 'configuration',
  PodDisruptionBudget: 'configuration',
  PodTemplate: 'configuration',
  FlowSchema: 'configuration',
  PriorityLevelConfiguration: 'configuration',
  // Pods find by name only what was there when they began.
  Service: 'configuration',
  Pod: 'workloads',
  Deployment: 'workloads',
  StatefulSet: 'workloads',
  DaemonSet: 'workloads',
  ReplicaSet: 'workloads',
  ReplicationController: 'workloads',
  Job: 'workloads',
  CronJob: 'workloads',
  HorizontalPodAutoscaler: 'workloads',
  Ingress: 'routes',
  APIService: 'webhooks',
  MutatingWebhookConfiguration: 'webhooks',
  ValidatingWebhookConfiguration: 'webhooks',
  MutatingAdmissionPolicy: 'webhooks',
  MutatingAdmissionPolicyBinding: 'webhooks',
  ValidatingAdmissionPolicy: 'webhooks',
  ValidatingAdmissionPolicyBinding: 'webhooks',
};

/** Groups that hold the kinds of this table under these names: a custom resource may be called Job, too. */
const known = /^$|^(apps|batch|autoscaling|policy|extensions)$|\.k8s\.io$/;
const routing = /^(gateway\.networking\.k8s\.io|networking\.istio\.io|traefik\.(io|containo\.us)|projectcontour\.io)$/;

export function phaseOf({ apiVersion, kind }: TypeRef): Phase {
  const { group } = splitApiVersion(apiVersion);
  if (routing.test(group)) return 'routes';
  return (known.test(group) && byKind[kind]) || 'custom';
}

/** Within a phase: kinds of a lower rank first. Bindings after what they bind, claims after classes and volumes. */
export function rankOf({ kind }: TypeRef): number {
  switch (kind) {
    case 'RoleBinding':
    case 'ClusterRoleBinding':
    case 'PersistentVolume':
    case 'HorizontalPodAutoscaler':
    case 'ValidatingAdmissionPolicyBinding':
    case 'MutatingAdmissionPolicyBinding':
    case 'HTTPRoute':
    case 'GRPCRoute':
    case 'TLSRoute':
    case 'TCPRoute':
      return 1;
    case 'PersistentVolumeClaim':
      return 2;
    case 'GatewayClass':
      return -2;
    case 'Gateway':
      return -1;
    default:
      return 0;
  }
}
