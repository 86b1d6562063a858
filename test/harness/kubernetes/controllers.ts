import { createHash } from 'node:crypto';
import type { ClusterObject, ObjectRef, TypeRef } from '../../../src/cluster/contract.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';

const apps = (kind: string): TypeRef => ({ apiVersion: 'apps/v1', kind });
const pod: TypeRef = { apiVersion: 'v1', kind: 'Pod' };
const watched = ['apps/deployments', 'apps/statefulsets', 'apps/daemonsets', '/pods', 'argoproj.io/applications'];
const revisionAnnotation = 'deployment.kubernetes.io/revision';

/**
 * The controllers of a cluster, as far as steps of runbooks meet them: Deployments with their ReplicaSets, StatefulSets with their
 * ControllerRevisions, and pods that begin and end at once; the controller of Argo CD. They act a moment after a change, as others do.
 */
export class Controllers {
  readonly cluster: MemoryCluster;
  /** Pods that do not end when they are told to: their node is not heard of. */
  readonly stuck = new Set<string>();
  /** What Applications that heal put back, by name. */
  readonly heals = new Map<string, () => void>();
  /** False: nobody acts any more. */
  isAlive = true;
  readonly #objects: MemoryObjects;
  #isDue = false;
  #wait: Array<() => void> = [];

  constructor(objects: MemoryObjects) {
    this.#objects = objects;
    this.cluster = new MemoryCluster({ objects });
    for (const table of watched) {
      objects.history.watch(table, objects.history.revision, { onChange: () => this.#due(), onBookmark: () => {} });
    }
    this.#due();
  }

  /** Resolves when everything is as wanted. */
  async settled(): Promise<void> {
    while (this.#isDue) await new Promise<void>((resolve) => this.#wait.push(resolve));
  }

  #due(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (this.isAlive) this.#reconcile();
      for (const wake of this.#wait.splice(0)) wake();
    });
  }

  #reconcile(): void {
    for (const object of this.#all(apps('Deployment'))) this.#deployment(object);
    for (const object of this.#all(apps('StatefulSet'))) this.#ordered(object);
    for (const object of this.#all(apps('DaemonSet'))) this.#ordered(object);
    for (const object of this.#objects.all().filter(({ kind }) => kind === 'Application')) this.#application(object);
  }

  #deployment(object: ClusterObject): void {
    const { template, replicas, selector } = specOf(object);
    const hash = digest(template);
    const sets = this.#all(apps('ReplicaSet')).filter((set) => isOwnedBy(set, object));
    const newest = Math.max(0, ...sets.map((set) => Number(set.metadata.annotations?.[revisionAnnotation])));
    const name = `${object.metadata.name}-${hash}`;
    const labels = { ...template.metadata?.labels, 'pod-template-hash': hash };
    const current = sets.find((set) => set.metadata.name === name);
    if (current === undefined) {
      this.#create(apps('ReplicaSet'), object, name, labels, {
        annotations: { [revisionAnnotation]: String(newest + 1) },
        spec: { replicas, selector, template: { ...template, metadata: { ...template.metadata, labels } } },
      });
    } else if (Number(current.metadata.annotations?.[revisionAnnotation]) < newest) {
      this.#merge(current, { metadata: { annotations: { [revisionAnnotation]: String(newest + 1) } } });
    }
    const owner = this.#all(apps('ReplicaSet')).find((set) => set.metadata.name === name) ?? object;
    const names = Array.from({ length: replicas }, (_, i) => `${name}-${i}`);
    const ready = this.#pods(owner, names, labels, template);
    // The old ones end when the new ones are ready.
    if (ready === replicas) for (const set of sets) if (set.metadata.name !== name) this.#pods(set, [], {}, template);
    const all = this.#all(pod).filter((each) => sets.some((set) => isOwnedBy(each, set)) || isOwnedBy(each, owner));
    this.#status(object, {
      replicas: all.length,
      updatedReplicas: replicas,
      readyReplicas: ready,
      availableReplicas: ready,
    });
  }

  #ordered(object: ClusterObject): void {
    const { template, replicas, selector } = specOf(object);
    const revisions = this.#all(apps('ControllerRevision')).filter((each) => isOwnedBy(each, object));
    const hash = digest(template);
    const name = `${object.metadata.name}-${hash}`;
    const newest = Math.max(0, ...revisions.map((each) => Number(each['revision'])));
    const current = revisions.find((each) => each.metadata.name === name);
    if (current === undefined) {
      this.#create(apps('ControllerRevision'), object, name, selector.matchLabels, {
        revision: newest + 1,
        data: { spec: { template: { ...template, $patch: 'replace' } } },
      });
    } else if (Number(current['revision']) < newest) this.#merge(current, { revision: newest + 1 });
    const count = object.kind === 'DaemonSet' ? 2 : replicas;
    const names = Array.from({ length: count }, (_, i) => `${object.metadata.name}-${i}`);
    const ready = this.#pods(
      object,
      names,
      { ...template.metadata?.labels, 'controller-revision-hash': hash },
      template,
    );
    const all = this.#all(pod).filter((each) => isOwnedBy(each, object));
    this.#status(
      object,
      object.kind === 'DaemonSet'
        ? { desiredNumberScheduled: count, updatedNumberScheduled: count, numberAvailable: ready }
        : { replicas: all.length, updatedReplicas: count, readyReplicas: ready },
    );
  }

  /** Makes the pods of an owner those of these names; says how many are ready. */
  #pods(owner: ClusterObject, names: readonly string[], labels: Labels, template: Template): number {
    const present = this.#all(pod).filter((each) => isOwnedBy(each, owner));
    const isBroken = template.spec?.containers?.some(({ image }) => image?.includes('broken')) === true;
    for (const each of present) {
      const isStale = labels['controller-revision-hash'] !== each.metadata.labels?.['controller-revision-hash'];
      if (names.includes(each.metadata.name) && !isStale) continue;
      if (this.stuck.has(each.metadata.name)) continue;
      this.#objects.delete(this.#objects.typeOf(pod), each.metadata.namespace, each.metadata.name);
    }
    const left = new Set(this.#all(pod).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
    for (const name of names) {
      if (left.has(`${owner.metadata.namespace}/${name}`)) continue;
      this.#create(pod, owner, name, labels, { spec: template.spec ?? {} });
      const waiting = { name: 'app', state: { waiting: { reason: 'ImagePullBackOff', message: 'no such image' } } };
      const status = isBroken
        ? { phase: 'Pending', containerStatuses: [waiting] }
        : { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] };
      this.cluster.setStatus({ ...pod, namespace: owner.metadata.namespace, name }, status);
    }
    return isBroken ? 0 : names.length;
  }

  #application(object: ClusterObject): void {
    const { metadata, spec } = object;
    const refresh = 'argocd.argoproj.io/refresh';
    const automated = (spec as { syncPolicy?: { automated?: unknown } } | undefined)?.syncPolicy?.automated;
    if (automated) this.heals.get(metadata.name)?.();
    if (metadata.annotations?.[refresh] !== undefined)
      this.#merge(object, { metadata: { annotations: { [refresh]: null } } });
  }

  #status(object: ClusterObject, counts: Record<string, number>): void {
    const { generation: observedGeneration } = object.metadata;
    const now = JSON.stringify({ ...counts, observedGeneration });
    if (JSON.stringify(object['status']) === now) return;
    this.cluster.setStatus(refTo(object), { ...counts, observedGeneration });
  }

  #create(type: TypeRef, owner: ClusterObject, name: string, labels: Labels, { annotations, ...rest }: Extra): void {
    const { namespace = '', uid = '' } = owner.metadata;
    const reference = {
      apiVersion: owner.apiVersion,
      kind: owner.kind,
      name: owner.metadata.name,
      uid,
      controller: true,
    };
    const metadata = { name, namespace, labels, ownerReferences: [reference], ...(annotations && { annotations }) };
    this.#objects.create({ ...type, metadata, ...rest }, undefined, { manager: 'kube-controller-manager' });
  }

  #merge(object: ClusterObject, change: Readonly<Record<string, unknown>>): void {
    const type = this.#objects.typeOf(object);
    this.#objects.merge(type, object.metadata.namespace, object.metadata.name, change, { manager: 'controller' });
  }

  #all(type: TypeRef): readonly ClusterObject[] {
    return this.#objects.list(this.#objects.typeOf(type), {}).objects;
  }
}

type Labels = Readonly<Record<string, string>>;
type Extra = Readonly<Record<string, unknown>> & { readonly annotations?: Labels };

interface Template {
  readonly metadata?: { readonly labels?: Labels; readonly annotations?: Labels };
  readonly spec?: { readonly containers?: ReadonlyArray<{ readonly image?: string }> };
}

function specOf({ spec }: ClusterObject): {
  readonly template: Template;
  readonly replicas: number;
  readonly selector: { readonly matchLabels: Labels };
} {
  const { template = {}, replicas = 1, selector = { matchLabels: {} } } = spec as Partial<ReturnType<typeof specOf>>;
  return { template, replicas, selector };
}

function refTo({ apiVersion, kind, metadata }: ClusterObject): ObjectRef {
  return { apiVersion, kind, namespace: metadata.namespace, name: metadata.name };
}

function isOwnedBy({ metadata }: ClusterObject, owner: ClusterObject): boolean {
  return metadata.ownerReferences?.some(({ uid }) => uid === owner.metadata.uid) === true;
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 8);
}

/** A Deployment or StatefulSet of one container, ready to be created. */
export function workload(
  kind: 'Deployment' | 'StatefulSet' | 'DaemonSet',
  name: string,
  { replicas = 2, image = 'shop/api:1', namespace = 'shop' } = {},
): ClusterObject {
  const labels = { app: name };
  return {
    ...apps(kind),
    metadata: { name, namespace, labels },
    spec: {
      ...(kind !== 'DaemonSet' && { replicas }),
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'app', image }] } },
    },
  };
}
