import type { z } from 'zod';

/** An issue as zod gives it. */
export type Issue = z.core.$ZodIssue;

/**
 * What is wrong with a value, for who wrote it: `by: must be a list, as [NAME, …], not a text`. `value` is what was checked: it says
 * what stands there instead.
 */
export function describeIssue(issue: Issue, value: unknown): string {
  const name = issue.path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('');
  return `${name === '' ? '' : `${name.replace(/^\./, '')}: `}${wanted(issue, valueAt(value, issue.path))}`;
}

/** All that is wrong with a value, in one sentence. */
export function describeIssues(error: z.ZodError, value: unknown): string {
  return error.issues.map((issue) => describeIssue(issue, value)).join('; ');
}

/** What stands at `path` inside a value; undefined where nothing does. */
export function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const key of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<PropertyKey, unknown>)[key];
  }
  return at;
}

function wanted(issue: Issue, found: unknown): string {
  switch (issue.code) {
    case 'invalid_type': {
      const shape = shapes[issue.expected] ?? issue.expected;
      return found === undefined ? `is missing; it must be ${shape}` : `must be ${shape}, not ${shapeOf(found)}`;
    }
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}${found === undefined ? '' : `, not ${JSON.stringify(found)}`}`;
    case 'too_small':
      if (issue.origin === 'string') return 'must not be empty';
      return issue.origin === 'array' ? 'must have at least one entry' : `must be at least ${issue.minimum}`;
    case 'too_big':
      return issue.origin === 'string'
        ? `must be at most ${issue.maximum} characters long`
        : `must be at most ${issue.maximum}`;
    case 'unrecognized_keys':
      return `unknown key ${issue.keys.map((key) => `"${key}"`).join(', ')}`;
    case 'invalid_union':
      return found === undefined ? 'is missing' : `${JSON.stringify(found)} is not what belongs here`;
    default:
      return issue.message;
  }
}

const shapes: Readonly<Record<string, string>> = {
  array: 'a list, as [A, B]',
  object: 'keys with values, as { KEY: VALUE }',
  record: 'keys with values, as { KEY: VALUE }',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

function shapeOf(value: unknown): string {
  if (value === null) return 'empty';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'keys with values';
  if (typeof value === 'string') return `the text ${JSON.stringify(value)}`;
  return String(value);
}
