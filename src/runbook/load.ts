import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import { DrError, fileError } from '../base/errors.ts';
import { suggestion } from '../config/problems.ts';
import type { StepKind } from '../steps/contract.ts';
import { checkSteps, type Problem } from './check.ts';
import { type Runbook, type StageName, type StepGroup, type StepSpec, stageNames } from './model.ts';
import { runbookShape, type StepShape, stageEntry } from './shape.ts';

type Path = readonly PropertyKey[];
export type Registry = ReadonlyMap<string, StepKind>;

/** Runbooks that come with dr. */
export const shippedRunbooks = join(import.meta.dirname, '../../runbooks');

/** Reads `<name>.yaml` of a directory. Throws like `parseRunbook`, and `not-found` for a name that is not there. */
export async function loadRunbook(directory: string, name: string, registry: Registry): Promise<Runbook> {
  const path = join(directory, `${name}.yaml`);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const there = (await readdir(directory).catch(() => []))
      .filter((file) => file.endsWith('.yaml'))
      .map((file) => file.slice(0, -'.yaml'.length));
    const facts = fileError(error, path, 'read the runbook');
    if (facts instanceof DrError && facts.kind === 'not-found') {
      throw new DrError('not-found', `there is no runbook "${name}"${suggestion(name, there)}`, {
        where: path,
        next: 'Correct the name, or set "runbooks" in the configuration to the directory that has it.',
        cause: error,
      });
    }
    throw facts;
  }
  return parseRunbook(text, path, registry);
}

/**
 * Reads a runbook and checks all of it against the registry: kinds, parameters, references and their types, modes.
 * Throws DrError `config` that lists every problem with its line.
 */
export function parseRunbook(text: string, path: string, registry: Registry): Runbook {
  const reader = new Reader(text, path);
  const runbook = reader.read(registry);
  if (reader.problems.length > 0 || runbook === undefined) {
    const lines = reader.problems
      .sort((a, b) => a.line - b.line)
      .map((problem) => `  - ${path}:${problem.line}: ${problem.reason}`);
    const count = lines.length === 1 ? 'one problem' : `${lines.length} problems`;
    throw new DrError('config', `the runbook has ${count}:\n${lines.join('\n')}`, {
      where: path,
      next: 'Correct the file; docs/runbooks.md lists every step with its parameters and outputs.',
    });
  }
  return runbook;
}

class Reader {
  readonly problems: Problem[] = [];
  readonly #text: string;
  readonly #path: string;
  readonly #lines = new LineCounter();
  #root: Node | null = null;

  constructor(text: string, path: string) {
    this.#text = text;
    this.#path = path;
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
      const name = at.filter((part) => typeof part === 'string').at(-1);
      if (issue.code === 'unrecognized_keys') {
        const known = knownKeys(schema, issue.path);
        for (const key of issue.keys)
          this.problems.push({
            line: this.#lineOf([...at, key]),
            reason: `unknown key "${key}"${suggestion(key, known)}`,
          });
      } else {
        this.problems.push({
          line: this.#lineOf(at),
          reason: `${name === undefined ? '' : `${String(name)}: `}${issue.message}`,
        });
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
