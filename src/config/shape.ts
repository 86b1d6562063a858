import type { z } from 'zod';
import type { ConfigDocument } from './document.ts';
import { type ConfigProblem, type KeyPath, suggestion } from './problems.ts';
import { type ConfigFile, fileSchema } from './schema.ts';

type Issue = z.core.$ZodIssue;
type AnySchema = z.core.$ZodType;

/**
 * Checks the shape of the file. Unknown keys alone do not hide the rest: they are reported, and the other checks go on
 * without them, so that one run shows everything that is wrong.
 */
export function checkShape(document: ConfigDocument): {
  readonly file: ConfigFile | undefined;
  readonly problems: ConfigProblem[];
} {
  if (typeof document.value !== 'object' || document.value === null || Array.isArray(document.value)) {
    const reason = 'the file must be a mapping that begins with "version: 1"';
    return { file: undefined, problems: [{ path: [], reason, line: 1, column: 1 }] };
  }
  const first = fileSchema.safeParse(document.value);
  if (first.success) return { file: first.data, problems: [] };

  const issues = first.error.issues.flatMap((issue) => flatten(issue, []));
  const problems = issues.flatMap((issue) => problemsOf(issue, document));
  const value = structuredClone(document.value);
  for (const issue of issues) if (issue.code === 'unrecognized_keys') removeKeys(value, issue.path, issue.keys);
  const second = fileSchema.safeParse(value);
  return { file: second.success ? second.data : undefined, problems };
}

/** The issues inside a union belong to the branch that was meant: the one that looked further than the kind of value. */
function flatten(issue: Issue, prefix: readonly PropertyKey[]): Issue[] {
  const path = [...prefix, ...issue.path];
  if (issue.code === 'invalid_union') {
    const meant = issue.errors.find((branch) => branch.some(looksInside));
    if (meant) return meant.flatMap((inner) => flatten(inner, path));
  }
  return [{ ...issue, path }];
}

function looksInside(issue: Issue): boolean {
  return issue.path.length > 0 || issue.code === 'unrecognized_keys' || issue.code === 'custom';
}

function problemsOf(issue: Issue, document: ConfigDocument): ConfigProblem[] {
  const path = keyPath(issue.path);
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(fileSchema, path);
    return issue.keys.map((key) => {
      const keyed = [...path, key];
      return { path: keyed, reason: `unknown key${suggestion(key, known)}`, ...document.locate(keyed, 'key') };
    });
  }
  if (issue.code === 'invalid_key') {
    return [{ path, reason: issue.issues[0]?.message ?? issue.message, ...document.locate(path, 'key') }];
  }
  const found = valueAt(document.value, path);
  return [{ path, reason: reasonOf(issue, found), ...document.locate(path) }];
}

function reasonOf(issue: Issue, found: unknown): string {
  if (found === undefined) return `is missing${needed(issue)}`;
  if (issue.code === 'invalid_value') {
    const known = issue.values.map(String);
    const wanted = known.length === 1 ? `must be ${known[0]}` : `must be one of ${known.join(', ')}`;
    return issue.message.startsWith('must') ? issue.message : wanted;
  }
  if (issue.code === 'invalid_type' && issue.message.startsWith('Invalid input')) {
    const kinds: Record<string, string> = {
      object: 'a mapping of keys',
      record: 'a mapping of names',
      array: 'a list',
      string: 'text',
    };
    return `must be ${kinds[issue.expected] ?? issue.expected}, not ${kindOf(found)}`;
  }
  return issue.message;
}

function needed(issue: Issue): string {
  const wanted = /^must be (.+)$/.exec(issue.message)?.[1];
  return wanted === undefined ? '' : `: ${wanted}`;
}

function kindOf(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  return (
    { object: 'a mapping', string: 'text', number: 'a number', boolean: 'true or false' }[typeof value as string] ??
    typeof value
  );
}

function keyPath(path: readonly PropertyKey[]): KeyPath {
  return path.map((key) => (typeof key === 'number' ? key : String(key)));
}

function valueAt(value: unknown, path: KeyPath): unknown {
  let at = value;
  for (const key of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<string | number, unknown>)[key];
  }
  return at;
}

function removeKeys(value: unknown, path: readonly PropertyKey[], keys: readonly string[]): void {
  const container = valueAt(value, keyPath(path));
  if (typeof container !== 'object' || container === null) return;
  for (const key of keys) Reflect.deleteProperty(container, key);
}

/** The keys that the schema knows at this place of the file. */
export function knownKeys(schema: AnySchema, path: KeyPath): string[] {
  const def = schema._zod.def as z.core.$ZodTypeDef & Record<string, unknown>;
  const inner = (def['innerType'] ?? (def.type === 'pipe' ? def['in'] : undefined)) as AnySchema | undefined;
  if (inner) return knownKeys(inner, path);
  if (def.type === 'union') return (def['options'] as AnySchema[]).flatMap((option) => knownKeys(option, path));
  if (def.type === 'object') {
    const shape = def['shape'] as Record<string, AnySchema>;
    const [key, ...rest] = path;
    if (key === undefined) return Object.keys(shape);
    const next = shape[String(key)];
    return next ? knownKeys(next, rest) : [];
  }
  if (path.length > 0 && (def.type === 'record' || def.type === 'array')) {
    return knownKeys((def['valueType'] ?? def['element']) as AnySchema, path.slice(1));
  }
  return [];
}
