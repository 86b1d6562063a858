import { z } from 'zod';
import { suggestion } from '../config/problems.ts';
import type { Config } from '../config/types.ts';
import { describeIssues } from '../steps/issues.ts';
import type { Runbook, StepSpec } from './model.ts';
import { parseReference, type Reference, referencesIn } from './reference.ts';

/** One thing that is wrong in a runbook. */
export interface Problem {
  /** From 1. */
  readonly line: number;
  readonly reason: string;
}

/** Checks the steps of a runbook against each other and against their kinds. */
export function checkSteps(runbook: Runbook): Problem[] {
  const problems: Problem[] = [];
  const groupOf = new Map<string, number>();
  const steps = new Map<string, StepSpec>();
  let group = 0;
  for (const stage of runbook.stages) {
    for (const members of stage.groups) {
      for (const step of members) {
        const same = steps.get(step.id);
        if (same)
          problems.push({ line: step.line, reason: `the id "${step.id}" is taken by the step of line ${same.line}` });
        steps.set(step.id, step);
        groupOf.set(step.id, group);
      }
      group++;
    }
  }
  for (const step of steps.values()) {
    const report = (reason: string) => problems.push({ line: step.line, reason: `step "${step.id}": ${reason}` });
    checkStep(step, report);
    for (const { uses, modes } of step.kind.after) {
      for (const mode of modes.filter((known) => step.modes.includes(known))) {
        const before = [...steps.values()].some(
          (other) =>
            other.kind.name === uses &&
            other.modes.includes(mode) &&
            other.onFailure !== 'continue' &&
            (groupOf.get(other.id) ?? 0) < (groupOf.get(step.id) ?? 0),
        );
        if (!before)
          report(`in a ${mode}, ${step.kind.name} needs a step ${uses} before it that stops the run when it fails`);
      }
    }
    const templates = [
      ...Object.entries(step.with),
      ...(step.approval ? [['approval.prompt', step.approval.prompt] as const] : []),
    ];
    for (const [param, template] of templates) {
      for (const { text, whole } of referencesIn(template)) {
        const reference = parseReference(text);
        if (typeof reference === 'string') report(`${param}: ${reference}`);
        else {
          const wrong = wrongReference(step, reference, steps, groupOf);
          if (wrong !== undefined) report(`${param}: ${wrong}`);
          // Inside a list or an object it is one value of many.
          else if (whole && typeof template === 'string' && Object.hasOwn(step.with, param))
            checkType(step, param, reference, steps, report);
        }
      }
    }
  }
  return problems;
}

function checkStep(step: StepSpec, report: (reason: string) => void): void {
  const { kind } = step;
  if (step.modes.length === 0) {
    report(`it never runs: ${kind.name} takes part in ${kind.modes.join(', ')} only`);
  }
  if (kind.over !== step.forEach) {
    if (kind.over) report(`${kind.name} works on one member at a time: add "forEach: ${kind.over}"`);
    else if (kind.over === undefined && step.forEach) report(`${kind.name} runs once: remove "forEach"`);
  }
  if (step.onFailure === 'undo' && step.modes.length > 0 && !kind.undoable && kind.effect === 'changes') {
    report(`${kind.name} cannot be undone: use "onFailure: stop" or "continue"`);
  }
  const known: Record<string, z.ZodType> = kind.params.shape as Record<string, z.ZodType>;
  for (const [name, template] of Object.entries(step.with)) {
    const schema = Object.hasOwn(known, name) ? known[name] : undefined;
    if (schema === undefined) {
      report(`${kind.name} has no parameter "${name}"${suggestion(name, Object.keys(known))}`);
    } else if (referencesIn(template).length === 0) {
      const parsed = schema.safeParse(template);
      if (!parsed.success) report(`${name}: ${describeIssues(parsed.error, template)}`);
    }
  }
  for (const [name, schema] of Object.entries(known)) {
    if (!Object.hasOwn(step.with, name) && !schema.safeParse(undefined).success)
      report(`${kind.name} needs the parameter "${name}"`);
  }
}

/** Why a step cannot use this reference; undefined when it can. */
function wrongReference(
  step: StepSpec,
  reference: Reference,
  steps: ReadonlyMap<string, StepSpec>,
  groupOf: ReadonlyMap<string, number>,
): string | undefined {
  if (reference.kind === 'run') return undefined;
  if (reference.kind === 'each') return step.forEach ? undefined : 'each.name is known only to steps with "forEach"';
  const source = steps.get(reference.step);
  if (source === undefined)
    return `there is no step with the id "${reference.step}"${suggestion(reference.step, [...steps.keys()])}`;
  if (dependsOn(source, step.id, steps)) return `a cycle: "${source.id}" itself waits for "${step.id}"`;
  if ((groupOf.get(source.id) ?? 0) >= (groupOf.get(step.id) ?? 0))
    return `"${source.id}" has not finished when "${step.id}" starts: move it before`;
  const outputs = Object.keys(source.kind.outputs.shape);
  if (!outputs.includes(reference.output))
    return `${source.kind.name} has no output "${reference.output}"${suggestion(reference.output, outputs)}`;
  const missing = step.modes.filter((mode) => !source.modes.includes(mode));
  if (missing.length > 0) {
    const kindLacks = missing.filter((mode) => !source.kind.modes.includes(mode));
    const why =
      kindLacks.length === 0 ? '' : ` (${source.kind.name} takes part in ${source.kind.modes.join(', ')} only)`;
    return `"${source.id}" does not run in a ${missing.join(' or ')}${why}, but "${step.id}" does: limit it with "when"`;
  }
  if (source.onFailure === 'continue')
    return `"${source.id}" may fail without stopping the run ("onFailure: continue"), so nothing can depend on its outputs`;
  return undefined;
}

/** Whether `step` refers, directly or through others, to `target`. */
function dependsOn(step: StepSpec, target: string, steps: ReadonlyMap<string, StepSpec>): boolean {
  const seen = new Set<string>();
  const open = [step];
  for (let next = open.pop(); next; next = open.pop()) {
    if (next.id === target) return true;
    if (seen.has(next.id)) continue;
    seen.add(next.id);
    for (const { text } of referencesIn(next.with)) {
      const reference = parseReference(text);
      const source =
        typeof reference === 'string' || reference.kind !== 'output' ? undefined : steps.get(reference.step);
      if (source) open.push(source);
    }
  }
  return false;
}

/** Compares the JSON types on both sides of a reference that is a whole value, where both are plain. */
function checkType(
  step: StepSpec,
  param: string,
  reference: Reference,
  steps: ReadonlyMap<string, StepSpec>,
  report: (reason: string) => void,
): void {
  const wanted = typeOf((step.kind.params.shape as Record<string, z.ZodType>)[param]);
  let given: string | undefined = 'string';
  if (reference.kind === 'run' && reference.name === 'at') given = 'object';
  if (reference.kind === 'output') {
    const source = steps.get(reference.step);
    const spread = source?.forEach !== undefined && source.forEach !== step.forEach;
    given = spread
      ? 'object'
      : typeOf((source?.kind.outputs.shape as Record<string, z.ZodType> | undefined)?.[reference.output]);
  }
  if (wanted !== undefined && given !== undefined && wanted !== given && !(wanted === 'number' && given === 'integer'))
    report(`${param}: wants ${wanted}, but the reference gives ${given}`);
}

function typeOf(schema: z.ZodType | undefined): string | undefined {
  if (schema === undefined) return undefined;
  const json = z.toJSONSchema(schema, { unrepresentable: 'any', io: 'input' });
  if (json.oneOf?.every((part) => typeof part === 'object' && part.type === 'object')) return 'object';
  return typeof json.type === 'string' ? json.type : undefined;
}

/** What the configuration lacks for a runbook, as far as that can be said without asking anybody: programs, notifications. */
export function checkAgainst(runbook: Runbook, config: Config): Problem[] {
  const steps = runbook.stages.flatMap(({ groups }) => groups.flat());
  return steps.flatMap((step) => {
    const isKnown = ([, template]: [string, unknown]) => referencesIn(template).length === 0;
    const all = Object.entries(step.with);
    const later = all.filter((entry) => !isKnown(entry)).map(([name]) => name);
    return step.kind
      .check(config, Object.fromEntries(all.filter(isKnown)), later)
      .map((reason) => ({ line: step.line, reason: `step "${step.id}": ${reason}` }));
  });
}
