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
