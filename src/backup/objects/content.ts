import { hash } from 'node:crypto';
import type { ClusterObject, ManagedFields } from '../../cluster/contract.ts';
import { isJson } from '../../cluster/json.ts';
import { compare } from './kinds.ts';
import type { ManagersRecord } from './layout.ts';
import { isNoisyAnnotation, withoutNoise } from './noise.ts';

/** Levels of fields that are told: `spec.template.spec`. */
const DEPTH = 3;
/** More fields of one manager than this are told by their first two levels, then by the first. */
const MOST_FIELDS = 60;

/** Who set which fields, the latest change first. Whoever writes only the status has set nothing. */
export function managersOf({ metadata }: ClusterObject): ManagersRecord {
  return (metadata.managedFields ?? [])
    .filter(({ subresource }) => subresource !== 'status')
    .map((entry) => ({
      manager: entry.manager,
      operation: entry.operation,
      ...(entry.time !== undefined && { time: entry.time }),
      fields: fieldsOf(entry),
    }))
    .filter(({ fields }) => fields.length > 0)
    .sort((a, b) => compare(b.time ?? '', a.time ?? '') || compare(a.manager, b.manager));
}

function fieldsOf({ fieldsV1 }: ManagedFields): string[] {
  for (let depth = DEPTH; ; depth--) {
    const fields = new Set<string>();
    collect(fieldsV1, '', depth, fields);
    if (fields.size <= MOST_FIELDS || depth === 1) return [...fields].sort(compare).slice(0, MOST_FIELDS);
  }
}

function collect(value: unknown, path: string, depth: number, into: Set<string>): void {
  const below = isJson(value) ? Object.keys(value).filter((key) => key.startsWith('f:')) : [];
  // Elements of lists (`k:…`, `v:…`) are told as their list.
  if (path !== '' && (below.length === 0 || depth === 0)) {
    into.add(path);
    return;
  }
  for (const key of below) {
    const name = key.slice(2);
    const isNoise = path === 'metadata.annotations' ? isNoisyAnnotation(name) : path === '' && name === 'status';
    if (isNoise) continue;
    collect(isJson(value) ? value[key] : undefined, path === '' ? name : `${path}.${name}`, depth - 1, into);
  }
}

/** When anything but the status was changed last, milliseconds since 1970; 0 when nothing tells. */
export function changedAtMs({ metadata }: ClusterObject): number {
  const times = (metadata.managedFields ?? []).filter(({ subresource }) => subresource !== 'status');
  const latest = [metadata.creationTimestamp, ...times.map(({ time }) => time)].map((time) => Date.parse(time ?? ''));
  return Math.max(0, ...latest.filter(Number.isFinite));
}

/** Short digest of what is backed up of an object: another one means a change that a backup is made for. */
export function contentDigest(object: ClusterObject): string {
  const clean = withoutNoise(object);
  const content =
    isAutoscaled(object) && isJson(clean['spec']) ? { ...clean, spec: { ...clean['spec'], replicas: 0 } } : clean;
  // 96 bits: two of 100,000 objects meet with a probability below 10^-18.
  return hash('sha256', JSON.stringify(content, sortedKeys), 'base64').slice(0, 16);
}

function sortedKeys(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return `${value}n`;
  return isJson(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => compare(a, b))) : value;
}

/** An autoscaler sets the replicas all the time: by itself that is no change of the configuration. */
function isAutoscaled({ metadata }: ClusterObject): boolean {
  return (metadata.managedFields ?? []).some(
    ({ subresource, manager }) =>
      subresource === 'scale' && /^(kube-controller-manager|horizontal-pod-autoscaler|keda)/.test(manager),
  );
}
