import { DrError } from '../../base/errors.ts';
import { globMatcher } from '../../base/glob.ts';
import type { Cluster, ClusterObject, ObjectRef, ObjectType, TypeRef } from '../../cluster/contract.ts';
import { refOf, showRef, splitApiVersion } from '../../cluster/contract.ts';
import type { ClusterSummary } from '../objects/layout.ts';
import { cleaned, whyLeftOut } from './clean.ts';
import { type Draft, inner, text } from './draft.ts';
import { type Live, type LiveObject, listLive, liveKey } from './live.ts';
import { type Phase, phaseOf, phases, rankOf } from './order.ts';
import { park } from './park.ts';
import type { BackedObjects } from './read.ts';
import { type Renames, rename } from './rename.ts';
import { failureOf, type ObjectResult } from './result.ts';
import { definedKinds, ServedKinds } from './served.ts';

/** What of a backup is restored, and how. */
export interface RestoreWishes {
  readonly namespaces: Renames;
  /** Globs of `Kind/namespace/name` (`Kind/name` where there is no namespace), by their names in the backup; empty = everything. */
  readonly only: readonly string[];
  readonly scaleToZero: boolean;
  /** Kinds that the cluster serves in another version only are applied in that one. */
  readonly servedVersions: boolean;
}

/** One object, ready to be applied. */
export interface Item {
  readonly object: Draft & ClusterObject;
  /** How it is served; undefined until the definition that comes with it is there. */
  readonly type: ObjectType | undefined;
  readonly phase: Phase;
  readonly rank: number;
  readonly live: LiveObject | undefined;
  /** False: whether it is there cannot be told. */
  readonly isLiveKnown: boolean;
  readonly note: string | undefined;
}

export interface RestorePlan {
  /** In the order of restoring. */
  readonly items: readonly Item[];
  /** What is decided without trying. */
  readonly settled: readonly ObjectResult[];
  readonly live: Live;
  readonly extras: readonly ObjectRef[];
  /** Places that mention a namespace by a name that it does not have any more. */
  readonly mentions: readonly string[];
}

/** Looks at backup and cluster, and decides what is to be applied in which form and order. Changes nothing. */
export async function planRestore(
  cluster: Cluster,
  { objects, summary }: BackedObjects,
  wishes: RestoreWishes,
  signal: AbortSignal,
): Promise<RestorePlan> {
  const chosen = choose(objects, wishes.only);
  const served = new ServedKinds(cluster, await cluster.discover(signal), chosen, signal);
  const settled: ObjectResult[] = [];
  const drafts: Array<{ draft: Draft & ClusterObject; type: ObjectType | undefined; notes: string[] }> = [];
  const mentions: string[] = [];
  for (const object of chosen) {
    const reason = whyLeftOut(object);
    const draft = cleaned(object);
    const mentioned = rename(draft, wishes.namespaces);
    const ref = refOf(draft);
    if (reason !== undefined) {
      settled.push({ ref, outcome: 'left', note: reason });
      continue;
    }
    mentions.push(...mentioned.map((path) => `${showRef(ref)}: ${path}`));
    const answer = await served.of(draft);
    if (answer instanceof DrError) {
      const definition = definitionOf(object, objects);
      const next = definition && `The backup has it: add --only "CustomResourceDefinition/${definition}".`;
      settled.push({ ref, outcome: 'failed', error: { ...failureOf(answer), ...(next && { next }) } });
      continue;
    }
    const other = answer !== undefined && answer.apiVersion !== draft.apiVersion ? answer.apiVersion : undefined;
    if (other !== undefined && !wishes.servedVersions) {
      settled.push({ ref, outcome: 'failed', error: failureOf(otherVersion(draft, other, cluster.target)) });
      continue;
    }
    const notes = other === undefined ? [] : [`as ${other}: the cluster does not serve ${draft.apiVersion}`];
    if (other !== undefined) (draft as Draft)['apiVersion'] = other;
    drafts.push({ draft, type: answer, notes });
  }
  const namespaces = new Set(drafts.flatMap(({ draft: { metadata } }) => metadata.namespace ?? []));
  const types = typesToList(
    drafts.map(({ type }) => type),
    wishes.only.length > 0 ? undefined : summary,
    served,
  );
  const isMade = (object: ClusterObject) =>
    whyLeftOut(object) !== undefined ||
    object.metadata.ownerReferences !== undefined ||
    (object.kind === 'ServiceAccount' && object.metadata.name === 'default');
  const live = await listLive(cluster, types, namespaces, isMade, signal);
  const autoscaled = autoscaledBy(drafts.map(({ draft }) => draft));
  const items: Item[] = [];
  for (const { draft, type, notes } of drafts) {
    const { kind, metadata } = draft;
    const there = live.objects.get(keyOf(draft));
    const { scaleToZero } = wishes;
    const isAutoscaled = autoscaled.has(`${kind}/${metadata.namespace}/${metadata.name}`);
    const { note, isLeft } = park(draft, type, there, { scaleToZero, isAutoscaled });
    const all = [...notes, ...(note === undefined ? [] : [note])].join('; ') || undefined;
    if (isLeft) settled.push({ ref: refOf(draft), outcome: 'left', note: all });
    else {
      const isListed = type === undefined || types.some((each) => each.group === type.group && each.kind === type.kind);
      const isUnknown = live.unknown.some(
        ({ what }) => type && (what === type.plural || what === `${type.plural} in ${metadata.namespace}`),
      );
      const isLiveKnown = isListed && !isUnknown;
      items.push({
        object: draft,
        type,
        phase: phaseOf(draft),
        rank: rankOf(draft),
        live: there,
        isLiveKnown,
        note: all,
      });
    }
  }
  return { items: items.sort(inOrder), settled, live, extras: extrasOf(live, objects, wishes), mentions };
}

/** How an object is found among those that are there. */
export function keyOf({ apiVersion, kind, metadata }: ClusterObject): string {
  return liveKey({ group: splitApiVersion(apiVersion).group, kind }, metadata.namespace, metadata.name);
}

function choose(objects: readonly ClusterObject[], only: readonly string[]): readonly ClusterObject[] {
  if (only.length === 0) return objects;
  const patterns = only.map((pattern) => ({
    pattern,
    matches: globMatcher(pattern.includes('/') ? [pattern] : [pattern, `${pattern}/**`]),
  }));
  const nameOf = ({ kind, metadata: { namespace, name } }: ClusterObject) =>
    namespace === undefined ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;
  for (const { pattern, matches } of patterns) {
    if (objects.some((object) => matches(nameOf(object)) !== undefined)) continue;
    throw new DrError('not-found', `the backup holds no object that --only ${pattern} means`, {
      next: 'Write Kind/namespace/name, with * for any: "Deployment/shop/*"; kinds without a namespace: "ClusterRole/*".',
    });
  }
  const isMeant = (object: ClusterObject) => patterns.some(({ matches }) => matches(nameOf(object)) !== undefined);
  const chosen = new Set(objects.filter(isMeant));
  // What lives in a namespace cannot come back without it.
  const homes = new Set([...chosen].map(({ metadata }) => metadata.namespace));
  const isHome = ({ kind, apiVersion, metadata }: ClusterObject) =>
    kind === 'Namespace' && apiVersion === 'v1' && homes.has(metadata.name);
  return objects.filter((object) => chosen.has(object) || isHome(object));
}

/** The definition of a kind among the objects of the backup. */
function definitionOf({ apiVersion, kind }: TypeRef, objects: readonly ClusterObject[]): string | undefined {
  const isIt = (object: ClusterObject) =>
    object.kind === 'CustomResourceDefinition' &&
    definedKinds(object).some((each) => each.kind === kind && each.apiVersions.includes(apiVersion));
  return objects.find(isIt)?.metadata.name;
}

function otherVersion({ apiVersion, kind }: TypeRef, other: string, where: string): DrError {
  return new DrError('not-found', `the cluster serves ${kind} as ${other}, not as ${apiVersion}`, {
    where,
    next: `Add --served-versions to apply it as ${other} (fields that version does not have are refused), or bring the cluster to the version of the backup.`,
  });
}

/** The kinds that are looked for: those of the objects, and with `summary` all that the backup looked at. */
function typesToList(
  own: ReadonlyArray<ObjectType | undefined>,
  summary: ClusterSummary | undefined,
  served: ServedKinds,
): ObjectType[] {
  const found = new Map<string, ObjectType>();
  const taken = (summary?.types ?? []).filter(({ namespaced }) => namespaced).map((type) => served.preferred(type));
  // In the version of the objects, where they have one: that is what is compared.
  for (const type of [...taken, ...own]) if (type) found.set(`${type.group}/${type.kind}`, type);
  return [...found.values()];
}

/** `Deployment/shop/orders` of each workload that an autoscaler of the backup sizes. */
function autoscaledBy(objects: readonly ClusterObject[]): Set<string> {
  return new Set(
    objects
      .filter(({ kind }) => kind === 'HorizontalPodAutoscaler' || kind === 'ScaledObject')
      .map((object) => {
        const { kind = 'Deployment', name } = inner(object, 'spec', 'scaleTargetRef') ?? {};
        return `${text(kind)}/${object.metadata.namespace}/${text(name)}`;
      }),
  );
}

/** What is there in the restored namespaces and not in the backup. */
function extrasOf(live: Live, objects: readonly ClusterObject[], { namespaces, only }: RestoreWishes): ObjectRef[] {
  if (only.length > 0) return [];
  const backed = new Set(
    objects.map(({ apiVersion, kind, metadata: { namespace, name } }) => {
      const home = namespace === undefined ? undefined : (namespaces.get(namespace) ?? namespace);
      return liveKey({ group: splitApiVersion(apiVersion).group, kind }, home, name);
    }),
  );
  return [...live.objects]
    .filter(([key, { isMade, namespace }]) => !isMade && namespace !== undefined && !backed.has(key))
    .map(([, { apiVersion, kind, namespace, name }]) => ({ apiVersion, kind, namespace, name }))
    .sort((a, b) => showRef(a).localeCompare(showRef(b)));
}

function inOrder(a: Item, b: Item): number {
  const [first, second] = [showRef(refOf(a.object)), showRef(refOf(b.object))];
  return (
    phases.indexOf(a.phase) - phases.indexOf(b.phase) ||
    a.rank - b.rank ||
    (first < second ? -1 : first > second ? 1 : 0)
  );
}
