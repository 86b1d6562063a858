import type { Discovery, ObjectType } from './contract.ts';
import { splitApiVersion } from './contract.ts';
import { isJson, type Json } from './json.ts';

/** Aggregated discovery (server 1.26 and newer): everything in two requests; older ones answer the plain lists. */
export const aggregated = [
  'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
  'application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList',
  'application/json',
].join(',');

/** A group with its versions, the preferred one first. */
export interface GroupVersions {
  readonly name: string;
  readonly apiVersions: readonly string[];
}

function list(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter((each) => isJson(each)) : [];
}

function words(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

/** What an aggregated answer says; undefined when the server gave a plain one. */
export function readAggregated(answer: unknown): Discovery | undefined {
  if (!isJson(answer) || answer['kind'] !== 'APIGroupDiscoveryList') return undefined;
  const missing: string[] = [];
  const types: ObjectType[] = [];
  for (const item of list(answer['items'])) {
    const group = isJson(item['metadata']) ? String(item['metadata']['name'] ?? '') : '';
    for (const each of list(item['versions'])) {
      const version = String(each['version']);
      const apiVersion = group === '' ? version : `${group}/${version}`;
      // The server answers what it remembers of an aggregated API that is down: its objects cannot be reached.
      if (each['freshness'] === 'Stale') {
        missing.push(apiVersion);
        continue;
      }
      for (const resource of list(each['resources'])) {
        const kind = isJson(resource['responseKind']) ? resource['responseKind']['kind'] : undefined;
        types.push({
          apiVersion,
          group,
          version,
          kind: String(kind ?? ''),
          plural: String(resource['resource']),
          namespaced: resource['scope'] === 'Namespaced',
          verbs: words(resource['verbs']),
          subresources: list(resource['subresources']).map((sub) => String(sub['subresource'])),
        });
      }
    }
  }
  return { types: onePerKind(types), missing };
}

/** The groups of a plain answer to `/apis` (`APIGroupList`). */
export function readGroups(answer: unknown): GroupVersions[] {
  return list(isJson(answer) ? answer['groups'] : undefined).map((group) => {
    const preferred = isJson(group['preferredVersion']) ? String(group['preferredVersion']['groupVersion']) : undefined;
    const all = list(group['versions']).map((each) => String(each['groupVersion']));
    const apiVersions = preferred === undefined ? all : [preferred, ...all.filter((each) => each !== preferred)];
    return { name: String(group['name']), apiVersions };
  });
}

/** The kinds of one group version (`APIResourceList`). */
export function readResources(answer: unknown, apiVersion: string): ObjectType[] {
  const resources = list(isJson(answer) ? answer['resources'] : undefined);
  const { group, version } = splitApiVersion(apiVersion);
  return resources
    .filter(({ name }) => !String(name).includes('/'))
    .map(({ name, kind, namespaced, verbs }): ObjectType => {
      const plural = String(name);
      const below = resources.map((each) => String(each['name'])).filter((each) => each.startsWith(`${plural}/`));
      return {
        apiVersion,
        group,
        version,
        kind: String(kind),
        plural,
        namespaced: namespaced === true,
        verbs: words(verbs),
        subresources: below.map((each) => each.slice(plural.length + 1)),
      };
    });
}

/** Each kind in the first of its versions: the preferred ones come first. */
export function onePerKind(types: readonly ObjectType[]): ObjectType[] {
  const seen = new Set<string>();
  return types.filter(({ group, plural }) => {
    const key = `${group}/${plural}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}
