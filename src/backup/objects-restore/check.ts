import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { bad, doubtful, type Finding } from '../../base/finding.ts';
import type { Cluster, ClusterObject, ObjectRef, TypeRef } from '../../cluster/contract.ts';
import { refOf, showRef } from '../../cluster/contract.ts';
import { replicasAnnotation } from '../../cluster/parked.ts';
import { inner, records, text, wordsOf } from './draft.ts';
import type { Item, RestorePlan, RestoreWishes } from './plan.ts';
import { quotaFindings } from './quota-check.ts';
import type { BackedObjects } from './read.ts';
import { type Reference, referencesOf } from './references.ts';
import type { Renames } from './rename.ts';

/** Objects asked for at once. */
const ASKS_IN_FLIGHT = 8;
/** Objects that one finding names. */
const SHOWN = 3;

const apiVersions: Readonly<Record<Reference['kind'], string>> = {
  StorageClass: 'storage.k8s.io/v1',
  PriorityClass: 'scheduling.k8s.io/v1',
  IngressClass: 'networking.k8s.io/v1',
  RuntimeClass: 'node.k8s.io/v1',
  Secret: 'v1',
  ConfigMap: 'v1',
  ServiceAccount: 'v1',
  PersistentVolumeClaim: 'v1',
  VolumeSnapshot: 'snapshot.storage.k8s.io/v1',
};
const classes = new Set<string>(['StorageClass', 'PriorityClass', 'IngressClass', 'RuntimeClass']);
const defaultClass = 'storageclass.kubernetes.io/is-default-class';

/** What a person should know about a restore before it is done: what it needs and will not find, and what it cannot give. */
export async function checkRestore(
  cluster: Cluster,
  plan: RestorePlan,
  { objects, summary }: BackedObjects,
  wishes: RestoreWishes,
  signal: AbortSignal,
): Promise<Finding[]> {
  return [
    ...summary.lost.map(({ what, why }) =>
      doubtful(`the backup lacks ${what}: ${why}`, 'Look for it in an older backup: dr backups, then --backup ID.'),
    ),
    ...plan.live.unknown.map(({ what, error }) =>
      doubtful(
        `${what} cannot be listed, so what is there already is not known: ${error.message}`,
        error.next ?? 'Give dr the right to list them.',
      ),
    ),
    ...(await missingReferences(cluster, plan, inBackup(objects, wishes.namespaces), signal)),
    ...(await quotaFindings(cluster, plan, signal)),
    ...(wishes.scaleToZero ? activationFindings(plan.items) : []),
    ...mentionFindings(plan.mentions),
  ];
}

/** What restored objects need by name, and nobody gives: neither the backup nor the cluster. */
async function missingReferences(
  cluster: Cluster,
  plan: RestorePlan,
  backed: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<Finding[]> {
  const coming = new Set(
    plan.items.map(({ object }) => idOf(object.kind, object.metadata.namespace, object.metadata.name)),
  );
  for (const { kind, namespace, name } of plan.live.objects.values()) coming.add(idOf(kind, namespace, name));
  const needed = new Map<string, { reference: Reference; namespace: string | undefined; by: ObjectRef[] }>();
  for (const { object } of plan.items) {
    for (const reference of referencesOf(object)) {
      const namespace = classes.has(reference.kind) ? undefined : object.metadata.namespace;
      const id = idOf(reference.kind, namespace, reference.name);
      if (coming.has(id)) continue;
      const known = needed.get(id) ?? { reference, namespace, by: [] };
      known.by.push(refOf(object));
      needed.set(id, known);
    }
  }
  const found: Finding[] = [];
  await forEachLimit([...needed.values()], ASKS_IN_FLIGHT, async ({ reference, namespace, by }) => {
    const { kind, name, isPullSecret } = reference;
    // Every namespace has one by itself.
    if (kind === 'ServiceAccount' && name === 'default') return;
    const users = someOf(by);
    if (name === undefined) {
      const isThere = plan.items.some(({ object }) => isDefault(object)) || (await hasDefaultClass(cluster, signal));
      if (!isThere)
        found.push(
          bad(
            `${users}: asks for the default storage class, and there is none`,
            'Mark a StorageClass as default, or restore one.',
          ),
        );
      return;
    }
    if (await isThere(cluster, { apiVersion: apiVersions[kind], kind, namespace, name }, signal)) return;
    const what = `${isPullSecret ? 'pull secret' : kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
    const unchosen = backed.get(idOf(kind, namespace, name));
    const next =
      unchosen !== undefined
        ? `The backup has it: add --only "${unchosen}".`
        : kind === 'Secret'
          ? 'Create it there: the backup does not hold it (configuration.NAME.kubernetes.secrets).'
          : `Create it there, or change what names it${classes.has(kind) ? ' (classes differ between providers)' : ''}.`;
    found.push(bad(`${what} is missing: ${users} ${by.length === 1 ? 'needs' : 'need'} it`, next));
  });
  return found.sort((a, b) => a.what.localeCompare(b.what));
}

/** What a backup has, by how it is called at the target: what `--only` says for it. */
function inBackup(objects: readonly ClusterObject[], renames: Renames): Map<string, string> {
  return new Map(
    objects.map(({ kind, metadata: { namespace, name } }) => {
      const there = namespace === undefined ? undefined : (renames.get(namespace) ?? namespace);
      return [idOf(kind, there, name), namespace === undefined ? `${kind}/${name}` : `${kind}/${namespace}/${name}`];
    }),
  );
}

/** True also where it cannot be told: what dr may not read is not called missing. */
async function isThere(cluster: Cluster, ref: ObjectRef, signal: AbortSignal): Promise<boolean> {
  try {
    await cluster.get(ref, signal);
    return true;
  } catch (error) {
    if (!(error instanceof DrError) || error.kind === 'interrupted' || error.kind === 'unreachable') throw error;
    return error.kind !== 'not-found';
  }
}

async function hasDefaultClass(cluster: Cluster, signal: AbortSignal): Promise<boolean> {
  return (
    (await listAll(cluster, { apiVersion: apiVersions.StorageClass, kind: 'StorageClass' }, undefined, signal))?.some(
      isDefault,
    ) ?? true
  );
}

function isDefault(object: ClusterObject): boolean {
  return object.kind === 'StorageClass' && wordsOf(object, 'annotations')[defaultClass] === 'true';
}

/** All objects of a kind; undefined when they cannot be listed. */
export async function listAll(
  cluster: Cluster,
  type: TypeRef,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly ClusterObject[] | undefined> {
  try {
    return (await cluster.list(type, { namespace, limit: 0 }, signal)).objects;
  } catch (error) {
    if (!(error instanceof DrError) || error.kind === 'interrupted' || error.kind === 'unreachable') throw error;
    return undefined;
  }
}

/** What does not wait for activation although the workloads do. */
function activationFindings(items: readonly Item[]): Finding[] {
  const found: Finding[] = [];
  const waiting = items.filter(({ object }) => wordsOf(object, 'annotations')[replicasAnnotation] !== undefined);
  const namespaces = new Set(waiting.map(({ object }) => object.metadata.namespace));
  for (const { object } of items) {
    if (!/WebhookConfiguration$/.test(object.kind)) continue;
    for (const webhook of records(object['webhooks'])) {
      const service = inner(webhook, 'clientConfig', 'service');
      if (!service || webhook['failurePolicy'] === 'Ignore' || !namespaces.has(text(service['namespace']))) continue;
      found.push(
        doubtful(
          `${showRef(refOf(object))} asks the service ${service['namespace']}/${service['name']}, and workloads of that namespace wait with 0 replicas: until its own runs, what it judges is refused`,
          'Activate its workload first.',
        ),
      );
    }
  }
  const custom = items.filter(({ phase }) => phase === 'custom');
  if (custom.length > 0)
    found.push(
      doubtful(
        `custom resources come back as they were (${someOf(custom.map(({ object }) => refOf(object)))}): an operator that runs there acts on them at once`,
        'Where that must wait (databases above all), restore without them (--only) and activate them by a step of the runbook.',
      ),
    );
  return found;
}

function mentionFindings(mentions: readonly string[]): Finding[] {
  if (mentions.length === 0) return [];
  const more = mentions.length > SHOWN ? ` and ${mentions.length - SHOWN} more` : '';
  return [
    doubtful(
      `addresses of services name a namespace that is called otherwise there, and are left as they are: ${mentions.slice(0, SHOWN).join(', ')}${more}`,
      'Change them by hand, or let the application use names without the namespace.',
    ),
  ];
}

function someOf(refs: readonly ObjectRef[]): string {
  const more = refs.length > SHOWN ? ` and ${refs.length - SHOWN} more` : '';
  return `${refs.slice(0, SHOWN).map(showRef).join(', ')}${more}`;
}

function idOf(kind: string, namespace: string | undefined, name: string | undefined): string {
  return `${kind}/${namespace ?? ''}/${name ?? ''}`;
}
