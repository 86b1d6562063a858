import type { ClusterObject } from '../../cluster/contract.ts';
import { type Draft, isDraft } from './draft.ts';

/** Namespaces that have another name at the target: from → to. */
export type Renames = ReadonlyMap<string, string>;

/** What is content of an application and no description of objects: never changed. */
const contentOf: Readonly<Record<string, readonly string[]>> = {
  ConfigMap: ['data', 'binaryData'],
  Secret: ['data', 'stringData'],
};

const nameLabel = 'kubernetes.io/metadata.name';

/**
 * Moves an object to the namespaces' new names, in place: where it lives, and where it refers to others: subjects of bindings, services
 * of webhooks, backends of routes, selectors of namespaces by name. Returns the places that mention an old name in a way
 * that no rule covers (DNS names in arguments and settings): a person looks at them.
 */
export function rename(draft: Draft & ClusterObject, renames: Renames): string[] {
  if (renames.size === 0) return [];
  const mentioned: string[] = [];
  if (draft.kind === 'Namespace') {
    const to = renames.get(draft.metadata.name);
    if (to !== undefined) (draft.metadata as unknown as Draft)['name'] = to;
  }
  const skipped = contentOf[draft.kind] ?? [];
  for (const [key, value] of Object.entries(draft)) {
    if (skipped.includes(key)) collect(value, [key], renames, mentioned);
    else draft[key as keyof typeof draft] = walk(value, [key], renames, mentioned) as never;
  }
  return mentioned;
}

function walk(value: unknown, path: readonly string[], renames: Renames, mentioned: string[]): unknown {
  const key = path.at(-1) ?? '';
  if (typeof value === 'string') {
    if (/^(namespace|targetNamespace|sourceNamespace)$/.test(key) || key === nameLabel)
      return renames.get(value) ?? value;
    const account = /^(system:serviceaccounts?:)([^:]+)(:.*)?$/.exec(value);
    if (account && key === 'name')
      return `${account[1]}${renames.get(account[2] ?? '') ?? account[2]}${account[3] ?? ''}`;
    if (mentions(value, renames)) mentioned.push(path.join('.'));
    return value;
  }
  if (Array.isArray(value)) {
    const isList = /^(namespaces|matchNames|watchNamespaces|targetNamespaces)$/.test(key);
    return value.map((each, i) =>
      isList && typeof each === 'string'
        ? (renames.get(each) ?? each)
        : walk(each, [...path, String(i)], renames, mentioned),
    );
  }
  if (!isDraft(value)) return value;
  // A selector of namespaces by name in its long form: { key: kubernetes.io/metadata.name, operator: In, values: [shop] }.
  const isByName = value['key'] === nameLabel && Array.isArray(value['values']);
  for (const [each, part] of Object.entries(value)) {
    if (isByName && each === 'values' && Array.isArray(part))
      value[each] = part.map((name) => (typeof name === 'string' ? (renames.get(name) ?? name) : name));
    else value[each] = walk(part, [...path, each], renames, mentioned);
  }
  return value;
}

function collect(value: unknown, path: readonly string[], renames: Renames, mentioned: string[]): void {
  if (typeof value === 'string') {
    if (mentions(value, renames)) mentioned.push(path.join('.'));
  } else if (typeof value === 'object' && value !== null)
    for (const [key, each] of Object.entries(value)) collect(each, [...path, key], renames, mentioned);
}

/** `orders.shop.svc`: a name of a service in a namespace that is called otherwise. */
function mentions(value: string, renames: Renames): boolean {
  return [...renames].some(([from, to]) => from !== to && new RegExp(`\\.${from}\\.svc\\b`).test(value));
}

/**
 * Namespaces whose names differ between two sites, by what the configuration says for each (`recover.SITE.kubernetes.namespaces`): from what
 * they are called at `from` to what they are called at `to`.
 */
export function renamesBetween(
  recover: Readonly<Record<string, { readonly namespaces: Readonly<Record<string, string>> }>>,
  from: string,
  to: string,
): Renames {
  const at = (site: string) => (Object.hasOwn(recover, site) ? (recover[site]?.namespaces ?? {}) : {});
  const [there, here] = [at(from), at(to)];
  const renames = new Map<string, string>();
  for (const name of new Set([...Object.keys(there), ...Object.keys(here)])) {
    const [before, after] = [there[name] ?? name, here[name] ?? name];
    if (before !== after) renames.set(before, after);
  }
  return renames;
}
