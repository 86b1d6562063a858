import type { ManagedFields } from '../contract.ts';
import { isJson, isSame, type Json } from '../json.ts';

/** Leaves of an object, each as its path in JSON text: `["spec","replicas"]`. Lists are leaves, as in kinds without a schema for them. */
export type Fields = ReadonlySet<string>;

/** Who owns which leaves. */
export interface Owner {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  readonly subresource?: string | undefined;
  /** ISO time. */
  readonly time: string;
  readonly fields: Fields;
}

/** Part of every object and nobody's field. */
const identity = new Set(['name', 'namespace', 'uid', 'resourceVersion', 'generation', 'managedFields']);
const ofServer = new Set(['creationTimestamp', 'deletionTimestamp', 'deletionGracePeriodSeconds', 'selfLink']);

/** The leaves of an object that managers can own. */
export function fieldsOf(object: Json): Set<string> {
  const found = new Set<string>();
  const walk = (value: unknown, path: readonly string[]): void => {
    if (path.length === 1 && (path[0] === 'apiVersion' || path[0] === 'kind')) return;
    const [first, second = ''] = path;
    if (first === 'metadata' && path.length === 2 && (identity.has(second) || ofServer.has(second))) return;
    const entries = isJson(value) ? Object.entries(value) : [];
    if (path.length > 0 && entries.length === 0) {
      if (!(path.length === 1 && first === 'metadata')) found.add(JSON.stringify(path));
    } else for (const [key, each] of entries) walk(each, [...path, key]);
  };
  walk(object, []);
  return found;
}

export function pathOf(field: string): string[] {
  const path: unknown = JSON.parse(field);
  return Array.isArray(path) ? path.map(String) : [];
}

export function valueAt(object: Json, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (isJson(value) && Object.hasOwn(value, key) ? value[key] : undefined),
    object,
  );
}

/** The object with this leaf set, or without it when `value` is undefined; the parents of a leaf that goes stay. */
export function withValue(object: Json, path: readonly string[], value: unknown): Json {
  const [key, ...rest] = path;
  if (key === undefined) return object;
  const inner = object[key];
  if (rest.length > 0) {
    if (value === undefined && !isJson(inner)) return object;
    return { ...object, [key]: withValue(isJson(inner) ? inner : {}, rest, value) };
  }
  if (value !== undefined) return { ...object, [key]: value };
  const { [key]: _gone, ...others } = object;
  return others;
}

/** `change` laid over `value` (RFC 7386). */
export function mergePatch(value: unknown, change: unknown): unknown {
  if (!isJson(change)) return change;
  const result: Record<string, unknown> = isJson(value) ? { ...value } : {};
  for (const [key, each] of Object.entries(change)) {
    if (each === null) delete result[key];
    else result[key] = mergePatch(result[key], each);
  }
  return result;
}

/** True when one path lies at or below the other. */
function overlap(a: readonly string[], b: readonly string[]): boolean {
  return a.slice(0, b.length).every((key, i) => key === b[i]);
}

/** The fields of others that an apply of `applied` would change, by manager. */
export function conflictsOf(
  live: Json,
  applied: Json,
  owners: readonly Owner[],
  manager: string,
): { readonly manager: string; readonly field: string }[] {
  const found: { manager: string; field: string }[] = [];
  for (const field of fieldsOf(applied)) {
    const path = pathOf(field);
    if (isSame(valueAt(live, path), valueAt(applied, path))) continue;
    for (const owner of owners) {
      if (owner.manager === manager && owner.operation === 'Apply') continue;
      if ([...owner.fields].some((each) => overlap(pathOf(each), path)))
        found.push({ manager: owner.manager, field: `.${path.join('.')}` });
    }
  }
  return found;
}

/** The object after an apply, and who owns what then. Conflicts are settled in favour of the applier. */
export function applied(
  live: Json,
  wanted: Json,
  owners: readonly Owner[],
  by: Omit<Owner, 'fields' | 'operation'>,
): { readonly object: Json; readonly owners: readonly Owner[] } {
  const fields = fieldsOf(wanted);
  const mine = owners.find((owner) => owner.manager === by.manager && owner.operation === 'Apply');
  const others = owners.filter((owner) => owner !== mine);
  let object = live;
  for (const field of mine?.fields ?? []) {
    if (fields.has(field) || others.some((owner) => owner.fields.has(field))) continue;
    object = withValue(object, pathOf(field), undefined);
  }
  const changed = new Set<string>();
  for (const field of fields) {
    const path = pathOf(field);
    const value = valueAt(wanted, path);
    if (isSame(valueAt(object, path), value)) continue;
    changed.add(field);
    object = withValue(object, path, value);
  }
  const own: Owner = { ...by, operation: 'Apply', fields };
  return { object, owners: [...without(others, changed), own].filter(hasFields) };
}

/** Who owns what after `manager` wrote the whole object: what changed is theirs. */
export function updated(
  before: Json | undefined,
  after: Json,
  owners: readonly Owner[],
  by: Omit<Owner, 'fields'>,
): Owner[] {
  const left = fieldsOf(after);
  const changed = new Set(
    [...left].filter(
      (field) => before === undefined || !isSame(valueAt(before, pathOf(field)), valueAt(after, pathOf(field))),
    ),
  );
  const isBy = (owner: Owner) =>
    owner.manager === by.manager && owner.operation === by.operation && owner.subresource === by.subresource;
  const kept = without(owners, changed).map((owner) => ({
    ...owner,
    fields: new Set([...owner.fields].filter((field) => left.has(field))),
  }));
  const mine = new Set([...(kept.find(isBy)?.fields ?? []), ...changed]);
  return [...kept.filter((owner) => !isBy(owner)), { ...by, fields: mine }].filter(hasFields);
}

function without(owners: readonly Owner[], changed: Fields): Owner[] {
  return owners.map((owner) => ({
    ...owner,
    fields: new Set(
      [...owner.fields].filter((field) => ![...changed].some((each) => overlap(pathOf(field), pathOf(each)))),
    ),
  }));
}

function hasFields(owner: Owner): boolean {
  return owner.fields.size > 0;
}

/** The owners as `metadata.managedFields` shows them. */
export function managedFields(owners: readonly Owner[], apiVersion: string): ManagedFields[] {
  return owners.map(({ manager, operation, subresource, time, fields }) => {
    const tree: Record<string, unknown> = {};
    for (const field of fields) {
      let at = tree;
      for (const key of pathOf(field)) {
        const next = at[`f:${key}`] ?? {};
        at[`f:${key}`] = next;
        at = next as Record<string, unknown>;
      }
    }
    const facts = { manager, operation, apiVersion, fieldsType: 'FieldsV1', fieldsV1: tree };
    // Of who scaled, servers do not say when.
    const when = subresource === 'scale' ? {} : { time };
    return { ...facts, ...when, ...(subresource !== undefined && { subresource }) };
  });
}
