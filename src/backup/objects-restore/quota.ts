import type { ClusterObject } from '../../cluster/contract.ts';
import { replicasAnnotation } from '../../cluster/parked.ts';
import { type Draft, inner, podSpecOf, records, text, wordsOf } from './draft.ts';
import { containersOf } from './references.ts';

/** Amounts by the names that quotas use: `requests.cpu`, `pods`, `count/deployments.apps`. */
export type Amounts = ReadonlyMap<string, number>;

const suffixes: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** `500m`, `1.5Gi`, `2e3` as a number; undefined for what is none. */
export function quantity(value: unknown): number | undefined {
  const match = /^\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([eE][+-]?\d+)|([A-Za-z]{0,2}))\s*$/.exec(String(value));
  if (!match) return undefined;
  const [, digits = '', exponent = '', suffix = ''] = match;
  const factor = suffixes[suffix];
  return factor === undefined ? undefined : Number(`${digits}${exponent}`) * factor;
}

/** What an object takes of the quotas of its namespace once it is activated. Claims that are there, or come by themselves, are not counted twice. */
export function demandOf(
  object: ClusterObject,
  plural: string | undefined,
  hasClaim: (name: string) => boolean = () => false,
): Amounts {
  const found = new Map<string, number>();
  const add = (name: string, amount: number) => found.set(name, (found.get(name) ?? 0) + amount);
  const group = object.apiVersion.includes('/') ? `.${object.apiVersion.split('/')[0]}` : '';
  if (plural !== undefined) {
    add(`count/${plural}${group}`, 1);
    if (group === '') add(plural, 1);
  }
  const spec = inner(object, 'spec');
  const copies = copiesOf(object, spec);
  if (object.kind === 'PersistentVolumeClaim') storage(spec, 1, add);
  if (object.kind === 'StatefulSet')
    for (const template of records(spec?.['volumeClaimTemplates'])) {
      const name = `${text(inner(template, 'metadata')?.['name'])}-${object.metadata.name}`;
      const fresh = Array.from({ length: copies }, (_, i) => `${name}-${i}`).filter((each) => !hasClaim(each)).length;
      if (fresh > 0) {
        storage(inner(template, 'spec'), fresh, add);
        add('persistentvolumeclaims', fresh);
      }
    }
  const pods = podSpecOf(object);
  if (!pods || copies === 0) return found;
  if (object.kind !== 'Pod') add('pods', copies);
  for (const what of ['requests', 'limits'] as const) {
    for (const resource of ['cpu', 'memory', 'ephemeral-storage']) {
      const of = (container: Draft) => {
        const resources = inner(container, 'resources');
        // Without a request, the limit is requested.
        return (
          quantity(inner(resources, what)?.[resource]) ??
          (what === 'requests' ? quantity(inner(resources, 'limits')?.[resource]) : undefined) ??
          0
        );
      };
      const together = records(pods['containers']).reduce((sum, each) => sum + of(each), 0);
      const first = Math.max(0, ...records(pods['initContainers']).map(of));
      const amount = copies * Math.max(together, first);
      if (amount === 0) continue;
      add(`${what}.${resource}`, amount);
      if (what === 'requests') add(resource, amount);
    }
  }
  return found;
}

/** True when a container of these pods says nothing about `requests.cpu` and the like, although a quota counts it. */
export function lacks(object: ClusterObject, name: string): boolean {
  const match = /^(requests|limits)\.(cpu|memory)$/.exec(
    name === 'cpu' || name === 'memory' ? `requests.${name}` : name,
  );
  const pods = podSpecOf(object);
  if (!match || !pods) return false;
  const [, what = '', resource = ''] = match;
  return containersOf(pods).some((container) => {
    const resources = inner(container, 'resources');
    return [what, ...(what === 'requests' ? ['limits'] : [])].every(
      (each) => inner(resources, each)?.[resource] === undefined,
    );
  });
}

/** How many pods it has when it is activated. */
function copiesOf(object: ClusterObject, spec: Draft | undefined): number {
  const parked = Number(wordsOf(object, 'annotations')[replicasAnnotation]);
  if (Number.isInteger(parked) && parked > 0) return parked;
  // How many nodes a DaemonSet has there, and when a CronJob begins, is not known here.
  if (/^(DaemonSet|CronJob|PodTemplate)$/.test(object.kind)) return 0;
  const replicas = spec?.['replicas'] ?? spec?.['parallelism'];
  return typeof replicas === 'number' ? replicas : 1;
}

function storage(spec: Draft | undefined, copies: number, add: (name: string, amount: number) => void): void {
  const size = quantity(inner(spec, 'resources', 'requests')?.['storage']);
  if (size !== undefined) add('requests.storage', size * copies);
}
