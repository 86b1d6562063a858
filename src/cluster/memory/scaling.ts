import type { ClusterObject, ObjectType } from '../contract.ts';
import { StatusError } from '../errors.ts';
import { isJson, type Json } from '../json.ts';

/** The subresource `scale` of a workload, as the server gives it. */
export function scaleOf(type: ObjectType, { metadata, spec, status }: ClusterObject): Json {
  if (!type.subresources.includes('scale')) {
    const message = `the server could not find the requested resource (${type.plural}/scale)`;
    throw new StatusError({ code: 404, reason: 'NotFound', message });
  }
  const part = (value: unknown): Json => (isJson(value) ? value : {});
  const labels = Object.entries(part(part(part(spec)['selector'])['matchLabels']));
  return {
    apiVersion: 'autoscaling/v1',
    kind: 'Scale',
    metadata: { ...metadata, managedFields: undefined },
    spec: { replicas: part(spec)['replicas'] ?? 1 },
    status: {
      replicas: part(status)['replicas'] ?? 0,
      selector: labels.map(([key, value]) => `${key}=${value}`).join(','),
    },
  };
}
