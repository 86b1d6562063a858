import { DrError } from '../base/errors.ts';
import type { RouteObject } from './route-objects.ts';
import { list, part } from './route-objects.ts';

/** One backend of a rule with its share of the traffic. */
export interface Backend {
  /** What the endpoints of the configuration call it. */
  readonly name: string;
  /** Effective weight: what is written, or what its absence means. */
  readonly weight: number;
}

/** Whether one of those that carry out a route has taken it as it is now. */
export interface Acceptance {
  /** `gateway shop/public`. */
  readonly by: string;
  /** Why not, or not yet; undefined = it has. */
  readonly lacks?: string | undefined;
}

/** A kind of routes: where its weights stand and what they mean. */
export interface RouteForm {
  readonly kind: 'httpRoute' | 'virtualService';
  readonly apiVersion: string;
  readonly objectKind: string;
  /** Plural name in RBAC rules. */
  readonly plural: string;
  /** Field of `spec` that lists the rules; server-side apply owns it as a whole. */
  readonly field: 'rules' | 'http';
  /** Field of a rule that lists its backends. */
  readonly backends: 'backendRefs' | 'route';
  nameOf(backend: Readonly<Record<string, unknown>>): string;
  /** What the written weight of a backend means, of `count` in its rule. */
  effective(weight: number | undefined, count: number): number;
  /** Who carries the route out, and whether they have taken this version; empty where nobody says. */
  acceptance(object: RouteObject): readonly Acceptance[];
}

/** The rule of the object that the configuration means, by its number in the list. */
export function ruleOf(form: RouteForm, object: RouteObject, rule: string | undefined, target: string): number {
  const rules = rulesOf(form, object);
  const names = rules.map(({ name }, i) => (typeof name === 'string' ? `"${name}"` : `"${i}"`)).join(', ');
  const refused = (message: string) =>
    new DrError('refused', message, {
      where: target,
      next: `Set ${form.kind}.rule of this traffic entry to one of: ${names || 'none, the route has no rule'}.`,
    });
  if (rule === undefined) {
    if (rules.length === 1) return 0;
    throw refused(`the route has ${rules.length} rules, and the configuration does not say which one`);
  }
  const byName = rules.findIndex(({ name }) => name === rule);
  if (byName >= 0) return byName;
  if (/^\d+$/.test(rule) && Number(rule) < rules.length) return Number(rule);
  throw refused(`the route has no rule "${rule}"`);
}

export function rulesOf(form: RouteForm, object: RouteObject): Readonly<Record<string, unknown>>[] {
  return list(part(object['spec'])[form.field]);
}

/** The backends of a rule; refuses two of one name, which endpoints could not tell apart. */
export function backendsOf(form: RouteForm, object: RouteObject, index: number, target: string): Backend[] {
  const all = list(rulesOf(form, object)[index]?.[form.backends]);
  const found = all.map((backend): Backend => {
    const { weight } = backend;
    const written = typeof weight === 'number' ? weight : undefined;
    return { name: form.nameOf(backend), weight: form.effective(written, all.length) };
  });
  const twice = found.find(({ name }, i) => found.findIndex((other) => other.name === name) < i);
  if (twice === undefined) return found;
  throw new DrError('refused', `the rule has two backends ${twice.name}: endpoints cannot tell them apart`, {
    where: target,
    next: 'Give each site a backend of its own name.',
  });
}

/** The whole list of rules with other weights in one rule, and nothing else changed. */
export function withWeights(
  form: RouteForm,
  object: RouteObject,
  index: number,
  weights: ReadonlyMap<string, number>,
): readonly unknown[] {
  return rulesOf(form, object).map((rule, i) => {
    if (i !== index) return rule;
    const backends = list(rule[form.backends]).map((backend) => {
      return { ...backend, weight: weights.get(form.nameOf(backend)) ?? 0 };
    });
    return { ...rule, [form.backends]: backends };
  });
}
