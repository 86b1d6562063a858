import type { ObjectType } from '../../../src/cluster/contract.ts';

/** Groups whose own server is down: named, and without kinds. */
export type Missing = ReadonlySet<string>;

function byVersion(types: readonly ObjectType[]): Map<string, ObjectType[]> {
  const found = new Map<string, ObjectType[]>();
  for (const type of types) found.set(type.apiVersion, [...(found.get(type.apiVersion) ?? []), type]);
  return found;
}

function groupsOf(types: readonly ObjectType[], missing: Missing): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  const all = [...types.map(({ group, version }) => [group, version] as const), ...[...missing].map(parts)];
  for (const [group, version] of all) {
    const versions = groups.get(group) ?? [];
    if (!versions.includes(version)) groups.set(group, [...versions, version]);
  }
  return groups;
}

function parts(apiVersion: string): readonly [string, string] {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return [group, version];
}

/** `/api` and `/apis` as servers since 1.26 answer them (`apidiscovery.k8s.io/v2`). */
export function aggregatedDiscovery(types: readonly ObjectType[], missing: Missing, isCore: boolean): object {
  const groups = [...groupsOf(types, missing)].filter(([group]) => (group === '') === isCore);
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: groups.map(([group, versions]) => ({
      metadata: { ...(group !== '' && { name: group }), creationTimestamp: null },
      versions: versions.map((version) => {
        const apiVersion = group === '' ? version : `${group}/${version}`;
        return {
          version,
          freshness: missing.has(apiVersion) ? 'Stale' : 'Current',
          resources: (byVersion(types).get(apiVersion) ?? []).map((type) => ({
            resource: type.plural,
            responseKind: { group, version, kind: type.kind },
            scope: type.namespaced ? 'Namespaced' : 'Cluster',
            singularResource: type.kind.toLowerCase(),
            verbs: type.verbs,
            subresources: type.subresources.map((subresource) => ({ subresource, verbs: ['get', 'patch', 'update'] })),
          })),
        };
      }),
    })),
  };
}

/** `/apis` in the plain form (`APIGroupList`). */
export function groupList(types: readonly ObjectType[], missing: Missing): object {
  const groups = [...groupsOf(types, missing)].filter(([group]) => group !== '');
  return {
    kind: 'APIGroupList',
    apiVersion: 'v1',
    groups: groups.map(([name, versions]) => ({
      name,
      versions: versions.map((version) => ({ groupVersion: `${name}/${version}`, version })),
      preferredVersion: { groupVersion: `${name}/${versions[0]}`, version: versions[0] },
    })),
  };
}

/** `/apis/apps/v1` (`APIResourceList`); undefined where there is no such group version. */
export function resourceList(types: readonly ObjectType[], apiVersion: string): object | undefined {
  const found = byVersion(types).get(apiVersion);
  if (found === undefined) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersion,
    resources: found.flatMap(({ plural, kind, namespaced, verbs, subresources }) => [
      { name: plural, singularName: kind.toLowerCase(), namespaced, kind, verbs },
      ...subresources.map((sub) => ({
        name: `${plural}/${sub}`,
        singularName: '',
        namespaced,
        kind: sub === 'scale' ? 'Scale' : kind,
        verbs: ['get', 'patch', 'update'],
      })),
    ]),
  };
}
