import type { Acceptance, RouteForm } from './route-form.ts';
import { list, part, type RouteObject } from './route-objects.ts';

/**
 * Gateway API: `spec.rules[].backendRefs[].weight`, a proportion of the sum of the rule; 1 where none is written. All zero means
 * that no request is answered (500), which is why that is never written.
 */
export const httpRouteForm: RouteForm = {
  kind: 'httpRoute',
  apiVersion: 'gateway.networking.k8s.io/v1',
  objectKind: 'HTTPRoute',
  plural: 'httproutes',
  field: 'rules',
  backends: 'backendRefs',
  nameOf: ({ namespace, name }) => (namespace === undefined ? String(name) : `${String(namespace)}/${String(name)}`),
  effective: (weight = 1) => weight,
  acceptance,
};

/** What each gateway that the route names says of it: `Accepted` and `ResolvedRefs`, of this generation. */
function acceptance(object: RouteObject): Acceptance[] {
  const { metadata } = object;
  const generation = metadata.generation ?? 0;
  const wanted = list(part(object['spec'])['parentRefs']);
  const parents = list(part(object['status'])['parents']).filter(({ parentRef }) =>
    // A gateway that the route has left keeps its last word in the status for a while.
    wanted.some((each) => isSameParent(each, part(parentRef), metadata.namespace)),
  );
  return parents.map(({ parentRef, conditions }): Acceptance => {
    const { namespace, name, sectionName, kind = 'Gateway' } = part(parentRef);
    const section = sectionName === undefined ? '' : ` (${String(sectionName)})`;
    const place = namespace === undefined ? '' : `${String(namespace)}/`;
    const by = `${String(kind).toLowerCase()} ${place}${String(name)}${section}`;
    for (const type of ['Accepted', 'ResolvedRefs']) {
      const condition = list(conditions).find((each) => each['type'] === type);
      const lacks = lacking(type, condition, generation);
      if (lacks !== undefined) return { by, lacks };
    }
    return { by };
  });
}

/** A gateway may write the namespace that the route left out: its own. */
function isSameParent(
  a: Readonly<Record<string, unknown>>,
  b: Readonly<Record<string, unknown>>,
  own: string | undefined,
): boolean {
  const isSamePlace = (a['namespace'] ?? own) === (b['namespace'] ?? own);
  return isSamePlace && ['name', 'sectionName', 'port'].every((key) => a[key] === b[key]);
}

function lacking(
  type: string,
  condition: Readonly<Record<string, unknown>> | undefined,
  generation: number,
): string | undefined {
  if (condition === undefined) return `it says nothing about ${type}`;
  const { status, reason, message, observedGeneration } = condition;
  if (typeof observedGeneration === 'number' && observedGeneration < generation)
    return `it has seen generation ${observedGeneration}, not yet ${generation}`;
  return status === 'True'
    ? undefined
    : `${type} is ${String(status)}: ${String(reason)} ${String(message ?? '')}`.trim();
}
