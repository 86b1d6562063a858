import type { ClusterObject } from '../../cluster/contract.ts';

/** A copy of an object that is being made ready: only its owner changes it. */
export type Draft = Record<string, unknown>;

export function isDraft(value: unknown): value is Draft {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The record at a path of keys; undefined when there is none. */
export function inner(value: unknown, ...path: readonly string[]): Draft | undefined {
  let at = value;
  for (const key of path) {
    if (!isDraft(at) || !Object.hasOwn(at, key)) return undefined;
    at = at[key];
  }
  return isDraft(at) ? at : undefined;
}

/** The records of a list. */
export function records(value: unknown): Draft[] {
  return Array.isArray(value) ? value.filter(isDraft) : [];
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** Labels or annotations of an object. */
export function wordsOf(
  object: ClusterObject | Draft,
  key: 'labels' | 'annotations',
): Readonly<Record<string, string>> {
  const found = inner(object, 'metadata', key) ?? {};
  return Object.fromEntries(
    Object.entries(found).filter((entry): entry is [string, string] => text(entry[1]) !== undefined),
  );
}

/** Where the pods of a workload are described. */
export function podSpecOf(object: ClusterObject | Draft): Draft | undefined {
  switch (object['kind']) {
    case 'Pod':
      return inner(object, 'spec');
    case 'CronJob':
      return inner(object, 'spec', 'jobTemplate', 'spec', 'template', 'spec');
    case 'PodTemplate':
      return inner(object, 'template', 'spec');
    default: {
      // Workloads of Kubernetes, and custom ones that are built alike.
      const spec = inner(object, 'spec', 'template', 'spec');
      return Array.isArray(spec?.['containers']) ? spec : undefined;
    }
  }
}
