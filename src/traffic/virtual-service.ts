import type { Acceptance, RouteForm } from './route-form.ts';
import { list, part, type RouteObject } from './route-objects.ts';

/**
 * Istio: `spec.http[].route[].weight`, a proportion of the sum of the route; without one a destination gets nothing. A single
 * destination gets everything, whatever is written. A destination is named by its host, with its subset after a slash where it has one.
 */
export const virtualServiceForm: RouteForm = {
  kind: 'virtualService',
  apiVersion: 'networking.istio.io/v1',
  objectKind: 'VirtualService',
  plural: 'virtualservices',
  field: 'http',
  backends: 'route',
  nameOf: ({ destination }) => {
    const { host, subset } = part(destination);
    return subset === undefined ? String(host) : `${String(host)}/${String(subset)}`;
  },
  effective: (weight = 0, count) => (count === 1 ? 100 : weight),
  acceptance,
};

/** Istiod tells of a configuration only where its status is switched on; then by `Reconciled` and the generation it has seen. */
function acceptance(object: RouteObject): Acceptance[] {
  const status = part(object['status']);
  const by = 'istiod';
  const generation = object.metadata.generation ?? 0;
  // Protobuf's JSON writes 64 bit numbers as text.
  const seen = Number(status['observedGeneration'] ?? Number.NaN);
  const reconciled = list(status['conditions']).find(({ type }) => type === 'Reconciled');
  const wrong = list(status['validationMessages']).map((each) => String(part(each['type'])['code'] ?? 'a message'));
  if (Number.isNaN(seen) && reconciled === undefined) return [];
  if (seen < generation) return [{ by, lacks: `it has seen generation ${seen}, not yet ${generation}` }];
  if (wrong.length > 0) return [{ by, lacks: `it finds fault with the route: ${wrong.join(', ')}` }];
  if (reconciled === undefined || reconciled['status'] === 'True') return [{ by }];
  return [
    { by, lacks: `not all proxies have it: ${String(reconciled['message'] ?? reconciled['reason'] ?? 'no reason')}` },
  ];
}
