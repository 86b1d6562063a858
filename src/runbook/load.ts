import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isMap, parseAllDocuments } from 'yaml';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { nearest } from '../config/problems.ts';
import type { Config } from '../config/types.ts';
import { checkAgainst, type Problem } from './check.ts';
import type { Runbook } from './model.ts';
import { type Registry, readRunbook } from './read.ts';

export type { Registry } from './read.ts';

/** Runbooks that come with dr. */
export const shippedRunbooks = join(import.meta.dirname, '../../runbooks');

/** A file of a runbook. */
export interface RunbookFile {
  readonly name: string;
  readonly path: string;
  readonly text: string;
  /** It lies in the folder that the configuration names; false: it comes with dr. */
  readonly own: boolean;
}

/**
 * The runbooks that can be run, by name: those of the folder `own` (the configuration's, if it names one) and those that come with dr.
 * Of two with the same name the own one counts. Manifests may lie among them. Throws what keeps a folder from being read.
 */
export async function runbookFiles(own: string | undefined): Promise<RunbookFile[]> {
  const found = new Map<string, RunbookFile>();
  if (own !== shippedRunbooks) for (const file of await filesOf(shippedRunbooks, false)) found.set(file.name, file);
  if (own !== undefined) for (const file of await filesOf(own, own !== shippedRunbooks)) found.set(file.name, file);
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function filesOf(directory: string, own: boolean): Promise<RunbookFile[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    // The shipped one of the same name would be another plan than the one that was rehearsed: nothing takes its place unasked.
    if (codeOf(error) === 'ENOENT') {
      throw new DrError('not-found', 'the folder of the runbooks is not there', {
        where: directory,
        next: 'Put it there, or correct or remove "runbooks" in the configuration.',
        cause: error,
      });
    }
    throw fileError(error, directory, 'read the runbooks');
  });
  const files: RunbookFile[] = [];
  for (const file of names.filter((name) => name.endsWith('.yaml'))) {
    const path = join(directory, file);
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      throw fileError(error, path, 'read the runbook');
    });
    if (!isManifest(text)) files.push({ name: file.slice(0, -'.yaml'.length), path, text, own });
  }
  return files;
}

/** Whether a file is for a cluster (step object.apply) and no runbook. */
function isManifest(text: string): boolean {
  return parseAllDocuments(text, { prettyErrors: false }).some(
    ({ contents }) => isMap(contents) && contents.has('apiVersion') && contents.has('kind') && !contents.has('stages'),
  );
}

/**
 * Reads the runbook of a name, from the folder `own` or among those that come with dr. Throws like `parseRunbook`, and `not-found` for a
 * name that is not there.
 */
export async function loadRunbook(own: string | undefined, name: string, registry: Registry): Promise<Runbook> {
  const files = await runbookFiles(own);
  const file = files.find((candidate) => candidate.name === name);
  if (file) return usable(readRunbook(file.text, file.path, registry, name), file.path);
  const near = nearest(
    name,
    files.map((candidate) => candidate.name),
  );
  const known = (which: boolean) => files.filter((candidate) => candidate.own === which).map(({ name }) => name);
  const [yours, shipped] = [known(true), known(false)];
  const listed = [
    ...(yours.length === 0 ? [] : [`${yours.join(', ')} (in ${own})`]),
    ...(shipped.length === 0 ? [] : [`${shipped.join(', ')} (${yours.length === 0 ? '' : 'these '}come with dr)`]),
  ].join('; ');
  const hint = near === undefined ? '; known' : `; did you mean ${near}? Known`;
  throw new DrError('not-found', `there is no runbook "${name}"${hint} are ${listed}`, {
    where: own ?? shippedRunbooks,
    next:
      own === undefined
        ? 'Correct the name, or set "runbooks" in the configuration to the folder that has it.'
        : `Correct the name, or write ${join(own, `${name}.yaml`)}.`,
  });
}

/**
 * Reads every runbook that can be run and says what is wrong with it: by itself, and with this configuration. Connects to nothing. Throws
 * DrError `config` that lists everything with its file and line, and what keeps a folder from being read.
 */
export async function checkRunbooks(config: Config, registry: Registry): Promise<RunbookFile[]> {
  const files = await runbookFiles(config.runbooks);
  const wrong = files.flatMap(({ name, path, text }) => {
    const { runbook, problems } = readRunbook(text, path, registry, name);
    const all = [...problems, ...(runbook === undefined ? [] : checkAgainst(runbook, config))];
    return all.length === 0 ? [] : [{ count: all.length, lines: formatProblems(all, path) }];
  });
  if (wrong.length === 0) return files;
  const total = wrong.reduce((sum, { count }) => sum + count, 0);
  const count = total === 1 ? 'one problem' : `${total} problems`;
  throw new DrError('config', `the runbooks have ${count}:\n${wrong.map(({ lines }) => lines).join('\n')}`, {
    where: config.runbooks ?? shippedRunbooks,
    next: 'Correct them and run "dr validate" again; docs/runbooks.md lists every step with its parameters and outputs.',
  });
}

/**
 * Reads a runbook and checks all of it against the registry: kinds, parameters, references and their types, modes.
 * Throws DrError `config` that lists every problem with its line.
 */
export function parseRunbook(text: string, path: string, registry: Registry): Runbook {
  return usable(readRunbook(text, path, registry), path);
}

function usable({ runbook, problems }: ReturnType<typeof readRunbook>, path: string): Runbook {
  if (runbook !== undefined && problems.length === 0) return runbook;
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`;
  throw new DrError('config', `the runbook has ${count}:\n${formatProblems(problems, path)}`, {
    where: path,
    next: 'Correct the file; docs/runbooks.md lists every step with its parameters and outputs.',
  });
}

/** One line for each: `  - FILE:LINE: REASON`. */
export function formatProblems(problems: readonly Problem[], path: string): string {
  return problems.map(({ line, reason }) => `  - ${path}:${line}: ${reason}`).join('\n');
}
