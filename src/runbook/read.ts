import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import { suggestion } from '../config/problems.ts';
import type { StepKind } from '../steps/contract.ts';
import { describeIssue, type Issue, valueAt } from '../steps/issues.ts';
import { checkSteps, type Problem } from './check.ts';
import { type Runbook, type StageName, type StepGroup, type StepSpec, stageNames } from './model.ts';
import { runbookShape, type StepShape, stageEntry } from './shape.ts';

type Path = readonly PropertyKey[];
export type Registry = ReadonlyMap<string, StepKind>;

/** A file of a runbook as it was understood. */
export interface ReadRunbook {
  /** Undefined when it could not be understood; one with problems must not be run. */
  readonly runbook: Runbook | undefined;
  /** In the order of the file. */
  readonly problems: readonly Problem[];
}

/**
 * Reads the text of a runbook and checks all of it against the registry. `name` is what the name of its file says; undefined for a text
 * that comes from a journal.
 */
export function readRunbook(text: string, path: string, registry: Registry, name?: string): ReadRunbook {
  const reader = new Reader(text, path, name);
  const runbook = reader.read(registry);
  return { runbook, problems: reader.problems.toSorted((a, b) => a.line - b.line) };
}

class Reader {
  readonly problems: Problem[] = [];
  readonly #text: string;
  readonly #path: string;
  readonly #name: string | undefined;
  readonly #lines = new LineCounter();
  #root: Node | null = null;

  constructor(text: string, path: string, name: string | undefined) {
    this.#text = text;
    this.#path = path;
    this.#name = name;
  }

  read(registry: Registry): Runbook | undefined {
    const document = parseDocument(this.#text, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: true });
    for (const error of document.errors) {
      this.problems.push({ line: this.#lineAt(error.pos[0]), reason: `this is not YAML: ${error.message}` });
    }
    if (this.problems.length > 0) return undefined;
    this.#root = document.contents;
    const shape = this.#check(runbookShape, document.toJS({ maxAliasCount: 100 }), []);
    if (shape === undefined) return undefined;
    this.#checkName(shape.name);
    this.#checkOrder();

    const stages = stageNames
      .filter((name) => shape.stages[name] !== undefined)
      .map((name) => ({ name, groups: this.#groups(name, shape.stages[name] ?? [], registry) }));
    if (stages.length === 0) this.problems.push({ line: this.#lineOf(['stages']), reason: 'there are no stages' });
    if (this.problems.length > 0) return undefined;

    const { name, summary, modes } = shape;
    const narrowed = stages.map((stage) => ({
      ...stage,
      groups: stage.groups.map((group) =>
        group.map((step) => ({ ...step, modes: step.modes.filter((mode) => modes.includes(mode)) })),
      ),
    }));
    const runbook = { name, summary, modes, stages: narrowed, source: { path: this.#path, text: this.#text } };
    this.problems.push(...checkSteps(runbook));
    return runbook;
  }

  #checkName(name: string): void {
    if (this.#name === undefined || this.#name === name) return;
    const reason = `name: it is "${name}", but the file is ${this.#name}.yaml: both must say the same`;
    this.problems.push({ line: this.#lineOf(['name']), reason });
  }

  /** Stages run in a fixed order: a file that shows another one would be misread by whoever opens it in an emergency. */
  #checkOrder(): void {
    const stages = isMap(this.#root) ? this.#root.get('stages', true) : undefined;
    const written = isMap(stages)
      ? stages.items.flatMap(({ key }) => stageNames.find((name) => isScalar(key) && key.value === name) ?? [])
      : [];
    for (const [i, name] of written.entries()) {
      const before = written[i - 1];
      if (before === undefined || stageNames.indexOf(before) < stageNames.indexOf(name)) continue;
      const reason = `stage "${name}" runs before "${before}", so it has to stand before it; the order is ${stageNames.join(', ')}`;
      this.problems.push({ line: this.#lineOf(['stages', name]), reason });
    }
  }

  #groups(stage: StageName, entries: readonly unknown[], registry: Registry): StepGroup[] {
    return entries.flatMap((entry, i) => {
      const path = ['stages', stage, i];
      if (typeof entry === 'object' && entry !== null && 'parallel' in entry) {
        const shape = this.#check(stageEntry.parallel, entry, path);
        const steps = shape?.parallel.map((step, j) => this.#step(step, stage, [...path, 'parallel', j], registry));
        return steps ? [steps.filter((step) => step !== undefined)] : [];
      }
      const shape = this.#check(stageEntry.step, entry, path);
      const step = shape && this.#step(shape, stage, path, registry);
      return step ? [[step]] : [];
    });
  }

  #step(shape: StepShape, stage: StageName, path: Path, registry: Registry): StepSpec | undefined {
    const kind = registry.get(shape.uses);
    if (kind === undefined) {
      const reason = `there is no step "${shape.uses}"${suggestion(shape.uses, [...registry.keys()])}`;
      this.problems.push({ line: this.#lineOf([...path, 'uses']), reason });
      return undefined;
    }
    const { id, retries, onFailure, approval } = shape;
    return {
      id,
      stage,
      title: shape.title ?? kind.summary,
      kind,
      with: shape.with,
      forEach: shape.forEach,
      modes: kind.modes.filter((mode) => shape.when?.includes(mode) ?? true),
      timeoutMs: shape.timeout ?? kind.timeoutMs,
      retries,
      onFailure,
      approval: approval && { prompt: approval.prompt, by: approval.by, timeoutMs: approval.timeout },
      line: this.#lineOf([...path, 'id']),
    };
  }

  #check<T extends z.ZodType>(schema: T, value: unknown, path: Path): z.output<T> | undefined {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    for (const issue of parsed.error.issues) {
      const at = [...path, ...issue.path];
      if (issue.code === 'unrecognized_keys') {
        const known = knownKeys(schema, issue.path);
        for (const key of issue.keys)
          this.problems.push({
            line: this.#lineOf([...at, key]),
            reason: `unknown key "${key}"${suggestion(key, known)}`,
          });
      } else {
        this.problems.push({ line: this.#lineOf(at), reason: describeInStep(issue, value) });
      }
    }
    return undefined;
  }

  #lineAt(offset: number): number {
    return this.#lines.linePos(offset).line;
  }

  /** Line of the key that the path ends with, or of the nearest thing around it. */
  #lineOf(path: Path): number {
    let node: unknown = this.#root;
    let offset = this.#root?.range?.[0] ?? 0;
    for (const key of path) {
      if (isMap(node)) {
        const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
        if (pair === undefined) break;
        if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset;
        node = pair.value;
      } else if (isSeq(node) && typeof key === 'number') {
        node = node.items[key];
        if (isScalar(node) || isMap(node)) offset = node.range?.[0] ?? offset;
      } else break;
    }
    return this.#lineAt(offset);
  }
}

/** Keys that the object at `path` inside a schema may have. */
function knownKeys(schema: z.ZodType, path: Path): string[] {
  let at: unknown = schema;
  for (const key of path) {
    at = unwrap(at);
    if (typeof at !== 'object' || at === null) return [];
    if ('shape' in at) at = (at.shape as Record<PropertyKey, unknown>)[key];
    else if ('element' in at) at = at.element;
    else return [];
  }
  at = unwrap(at);
  return typeof at === 'object' && at !== null && 'shape' in at ? Object.keys(at.shape as object) : [];
}

function unwrap(schema: unknown): unknown {
  let at = schema;
  while (
    typeof at === 'object' &&
    at !== null &&
    'unwrap' in at &&
    typeof at.unwrap === 'function' &&
    !('element' in at)
  )
    at = at.unwrap();
  return at;
}

/** The same, with the step in which it stands and the way to it from there. */
function describeInStep(issue: Issue, value: unknown): string {
  for (let depth = issue.path.length - 1; depth >= 0; depth--) {
    const around = valueAt(value, issue.path.slice(0, depth));
    if (typeof around !== 'object' || around === null || !('uses' in around && 'id' in around)) continue;
    const inside = describeIssue({ ...issue, path: issue.path.slice(depth) }, around);
    return inside.startsWith('id:') ? inside : `step "${String(around.id)}": ${inside}`;
  }
  return describeIssue(issue, value);
}
