import type { ClusterObject } from '../../cluster/contract.ts';
import { type Draft, inner, podSpecOf, records, text } from './draft.ts';

/** Something that an object needs under a name. */
export interface Reference {
  readonly kind:
    | 'StorageClass'
    | 'PriorityClass'
    | 'IngressClass'
    | 'RuntimeClass'
    | 'Secret'
    | 'ConfigMap'
    | 'ServiceAccount'
    | 'PersistentVolumeClaim'
    | 'VolumeSnapshot';
  /** Undefined: the default class. */
  readonly name: string | undefined;
  readonly isPullSecret?: boolean;
}

/** What an object needs to work that another object gives. What is marked as optional is left out. */
export function referencesOf(object: ClusterObject): Reference[] {
  const found: Reference[] = [];
  const spec = inner(object, 'spec');
  const add = (kind: Reference['kind'], name: unknown) => {
    const word = text(name);
    if (word !== undefined && word !== '') found.push({ kind, name: word });
  };
  const claim = (claimSpec: Draft | undefined) => {
    // An empty class means: a volume that a person made.
    if (claimSpec && claimSpec['storageClassName'] !== '')
      found.push({ kind: 'StorageClass', name: text(claimSpec['storageClassName']) });
  };
  if (object.kind === 'PersistentVolumeClaim') {
    claim(spec);
    const { kind, name } = inner(spec, 'dataSource') ?? {};
    if (kind === 'VolumeSnapshot' || kind === 'PersistentVolumeClaim') add(kind, name);
  }
  if (object.kind === 'StatefulSet')
    for (const template of records(spec?.['volumeClaimTemplates'])) claim(inner(template, 'spec'));
  if (object.kind === 'Ingress') {
    add('IngressClass', spec?.['ingressClassName']);
    for (const tls of records(spec?.['tls'])) add('Secret', tls['secretName']);
  }
  if (object.kind === 'ServiceAccount') found.push(...pullSecrets(object['imagePullSecrets']));
  const pods = podSpecOf(object);
  if (pods) found.push(...ofPods(pods, add));
  return found;
}

function ofPods(pods: Draft, add: (kind: Reference['kind'], name: unknown) => void): Reference[] {
  add('PriorityClass', pods['priorityClassName']);
  add('RuntimeClass', pods['runtimeClassName']);
  add('ServiceAccount', pods['serviceAccountName']);
  const need = (kind: 'Secret' | 'ConfigMap', source: Draft | undefined, key = 'name') => {
    if (source && source['optional'] !== true) add(kind, source[key]);
  };
  for (const volume of records(pods['volumes'])) {
    need('Secret', inner(volume, 'secret'), 'secretName');
    need('ConfigMap', inner(volume, 'configMap'));
    add('PersistentVolumeClaim', inner(volume, 'persistentVolumeClaim')?.['claimName']);
    for (const source of records(inner(volume, 'projected')?.['sources'])) {
      need('Secret', inner(source, 'secret'));
      need('ConfigMap', inner(source, 'configMap'));
    }
  }
  for (const container of containersOf(pods)) {
    for (const variable of records(container['env'])) {
      need('Secret', inner(variable, 'valueFrom', 'secretKeyRef'));
      need('ConfigMap', inner(variable, 'valueFrom', 'configMapKeyRef'));
    }
    for (const source of records(container['envFrom'])) {
      need('Secret', inner(source, 'secretRef'));
      need('ConfigMap', inner(source, 'configMapRef'));
    }
  }
  return pullSecrets(pods['imagePullSecrets']);
}

function pullSecrets(list: unknown): Reference[] {
  return records(list).map(({ name }) => ({ kind: 'Secret', name: text(name), isPullSecret: true }));
}

export function containersOf(pods: Draft): Draft[] {
  return [...records(pods['containers']), ...records(pods['initContainers'])];
}

/** The images that the pods of a workload run. */
export function imagesOf(object: ClusterObject): string[] {
  const pods = podSpecOf(object);
  return pods ? containersOf(pods).flatMap(({ image }) => text(image) ?? []) : [];
}
