import { isJson } from '../../../src/cluster/json.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';

/** A rule as a role has it; `*` stands for everything. */
export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
  /** Absent for a rule of a ClusterRole that is bound in the whole cluster. */
  readonly namespace?: string;
}

/** What somebody wants to do. */
export interface Attempt {
  readonly verb: string;
  readonly group: string;
  /** `deployments`, `deployments/scale`. */
  readonly resource: string;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

export const everything: readonly Rule[] = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }];

export function isAllowed(rules: readonly Rule[], attempt: Attempt): boolean {
  const has = (list: readonly string[], value: string) => list.includes('*') || list.includes(value);
  return rules.some(
    (rule) =>
      has(rule.apiGroups, attempt.group) &&
      has(rule.resources, attempt.resource) &&
      has(rule.verbs, attempt.verb) &&
      (rule.namespace === undefined || rule.namespace === attempt.namespace) &&
      (rule.resourceNames === undefined || rule.resourceNames.includes(attempt.name ?? '')),
  );
}

/** The sentence of the API server. */
export function denial(user: string, { verb, group, resource, namespace, name }: Attempt): string {
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const object = name === undefined ? '' : ` "${name}"`;
  return `${resource}${group === '' ? '' : `.${group}`}${object} is forbidden: User "${user}" cannot ${verb} resource "${resource}" in API group "${group}" ${scope}`;
}

/** What the roles of the cluster give a user, by the bindings that name them. */
export function rulesOf(objects: MemoryObjects, user: string): Rule[] {
  const all = objects.all();
  return all
    .filter(({ kind }) => kind === 'RoleBinding' || kind === 'ClusterRoleBinding')
    .filter(({ subjects }) => Array.isArray(subjects) && subjects.some((each) => isJson(each) && each['name'] === user))
    .flatMap(({ metadata, roleRef }) => {
      const { kind, name } = isJson(roleRef) ? roleRef : {};
      const isRole = (object: (typeof all)[number]) =>
        object.kind === kind &&
        object.metadata.name === name &&
        (kind === 'ClusterRole' || object.metadata.namespace === metadata.namespace);
      const rules = all.find(isRole)?.['rules'];
      const { namespace } = metadata;
      return (Array.isArray(rules) ? rules : []).map((rule: Rule) => ({ ...rule, ...(namespace && { namespace }) }));
    });
}
