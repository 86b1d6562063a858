import { DrError } from '../base/errors.ts';
import type { RunFacts } from '../steps/contract.ts';

/** What `${{ … }}` can name. */
export type Reference =
  | { readonly kind: 'run'; readonly name: RunFact }
  | { readonly kind: 'each' }
  | { readonly kind: 'output'; readonly step: string; readonly output: string };

export const runFacts = ['id', 'mode', 'site', 'from', 'at'] as const;
export type RunFact = (typeof runFacts)[number];

const pattern = /\$\{\{\s*(.*?)\s*\}\}/g;

/** Parses what stands between the braces; a string says what is wrong with it. */
export function parseReference(text: string): Reference | string {
  if (text === 'each.name') return { kind: 'each' };
  const run = /^run\.(\w+)$/.exec(text);
  if (run) {
    const name = runFacts.find((fact) => fact === run[1]);
    return name ? { kind: 'run', name } : `a run has no "${run[1]}": it has ${runFacts.join(', ')}`;
  }
  const output = /^steps\.([\w-]+)\.outputs\.(\w+)$/.exec(text);
  if (output) return { kind: 'output', step: output[1] ?? '', output: output[2] ?? '' };
  return `"${text}" names nothing: write steps.<id>.outputs.<name>, run.<${runFacts.join('|')}> or each.name`;
}

/** One reference in a template. `whole`: it is the entire value, which then keeps its type. */
export interface FoundReference {
  readonly text: string;
  readonly whole: boolean;
}

/** Every reference in a template, however deep it stands. */
export function referencesIn(template: unknown): FoundReference[] {
  if (typeof template === 'string') {
    return [...template.matchAll(pattern)].map((match) => ({
      text: match[1] ?? '',
      whole: match[0] === template.trim(),
    }));
  }
  if (Array.isArray(template)) return template.flatMap(referencesIn);
  if (typeof template === 'object' && template !== null) return Object.values(template).flatMap(referencesIn);
  return [];
}

/** Where the values come from. `output` returns undefined for what is not known (yet). */
export interface Scope {
  readonly run: RunFacts;
  readonly each: string | undefined;
  output(step: string, output: string): unknown;
}

/**
 * The parameters of one execution. With `partial` a parameter that refers to something unknown is left out (plans);
 * otherwise that is an error: the step it needs has not finished.
 */
export function resolveParams(
  templates: Readonly<Record<string, unknown>>,
  scope: Scope,
  options: { readonly partial?: boolean } = {},
): Record<string, unknown> {
  const params: Record<string, unknown> = {};
  for (const [name, template] of Object.entries(templates)) {
    try {
      params[name] = resolve(template, scope);
    } catch (error) {
      if (!(error instanceof UnknownValue)) throw error;
      if (options.partial) continue;
      throw new DrError('check-failed', `parameter "${name}" needs ${error.message}, which is not there`, {
        next: 'See in the journal why that step has no result ("dr runs ID"), mend it and run the same command again.',
      });
    }
  }
  return params;
}

/** A text of the runbook with its references filled in. With `partial` one that is not known yet stays as it was written (plans). */
export function resolveText(template: string, scope: Scope, options: { readonly partial?: boolean } = {}): string {
  return template.replace(pattern, (written, inner: string) => {
    try {
      return asText(referredValue(inner, scope));
    } catch (error) {
      if (!(error instanceof UnknownValue)) throw error;
      if (options.partial) return written;
      throw new DrError('check-failed', `a text needs ${error.message}, which is not there`, {
        where: template,
        next: 'See in the journal why that step has no result ("dr runs ID"), mend it and run the same command again.',
      });
    }
  });
}

/** The outputs that parameters refer to and that are not known, with the parameter that needs them. */
export function unknownIn(
  templates: Readonly<Record<string, unknown>>,
  scope: Scope,
): Array<{ readonly param: string; readonly step: string }> {
  return Object.entries(templates).flatMap(([param, template]) =>
    referencesIn(template).flatMap(({ text }) => {
      const reference = parseReference(text);
      if (typeof reference === 'string' || reference.kind !== 'output') return [];
      return scope.output(reference.step, reference.output) === undefined ? [{ param, step: reference.step }] : [];
    }),
  );
}

class UnknownValue extends Error {}

function asText(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function resolve(template: unknown, scope: Scope): unknown {
  if (typeof template === 'string') {
    const [only] = referencesIn(template);
    if (only?.whole) return referredValue(only.text, scope);
    return template.replace(pattern, (_, inner: string) => asText(referredValue(inner, scope)));
  }
  if (Array.isArray(template)) return template.map((item) => resolve(item, scope));
  if (typeof template === 'object' && template !== null) {
    return Object.fromEntries(Object.entries(template).map(([key, value]) => [key, resolve(value, scope)]));
  }
  return template;
}

function referredValue(text: string, scope: Scope): unknown {
  const reference = parseReference(text);
  // The loader has refused these; reaching one here is a defect.
  if (typeof reference === 'string')
    throw new DrError('internal', `a loaded runbook has a bad reference: ${reference}`);
  if (reference.kind === 'run') return scope.run[reference.name];
  const value = reference.kind === 'each' ? scope.each : scope.output(reference.step, reference.output);
  if (value === undefined) throw new UnknownValue(text);
  return value;
}
