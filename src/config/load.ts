import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { buildConfig } from './build.ts';
import { type Environment, readDocument } from './document.ts';
import { ConfigError, type ConfigProblem, suggestion } from './problems.ts';
import { checkRules } from './rules.ts';
import { checkShape } from './shape.ts';
import type { Config } from './types.ts';

/** The configuration as one process uses it. */
export interface LoadedConfig {
  readonly config: Config;
  /** Doubtful, but usable: in the order of the file. */
  readonly warnings: readonly ConfigProblem[];
  /** The site this process runs at: as given, else the one the file calls active. */
  readonly site: string;
}

const tooLarge = 1024 * 1024;

/**
 * Reads, expands, checks and completes the configuration.
 *
 * @param path the file, absolute or relative to the working directory
 * @param env  where `${NAME}` references are looked up; values that are secret are registered with `base/redact.ts`
 * @throws ConfigError (kind `config`) with everything that is wrong in the file; DrError `config` when there is no such
 *   file or it cannot be read; DrError `usage` when `site` is not one of the sites
 */
export async function loadConfig(
  path: string,
  env: Environment,
  options: { readonly site?: string | undefined } = {},
): Promise<LoadedConfig> {
  const file = resolve(path);
  return parseConfig(await readText(file), file, env, options);
}

/** The same for text that has been read already, such as the copy of the configuration that a vault holds. */
export function parseConfig(
  text: string,
  file: string,
  env: Environment,
  options: { readonly site?: string | undefined } = {},
): LoadedConfig {
  const document = readDocument(text, env);
  if (document.value === undefined) throw new ConfigError(file, document.problems);

  const shape = checkShape(document);
  const problems: ConfigProblem[] = [...shape.problems];
  const warnings: ConfigProblem[] = [...document.warnings];
  const config = shape.file && buildConfig(shape.file, { path: file, text });
  if (config) {
    checkRules(config, {
      wrong: (at, reason) => problems.push({ path: at, reason, ...document.locate(at) }),
      doubtful: (at, reason) => warnings.push({ path: at, reason, ...document.locate(at) }),
    });
  }

  // What a reference that could not be expanded would have held is not judged as well.
  const unexpanded = new Set(document.problems.map((problem) => JSON.stringify(problem.path)));
  const all = [...document.problems, ...problems.filter((problem) => !unexpanded.has(JSON.stringify(problem.path)))];
  if (config === undefined || all.length > 0) throw new ConfigError(file, all.sort(byPosition));

  const site = options.site ?? config.active;
  if (!Object.hasOwn(config.sites, site)) {
    throw new DrError('usage', `there is no site "${site}"${suggestion(site, Object.keys(config.sites))}`, {
      where: file,
      next: 'Give --site (or $DR_SITE) the name of the site this dr runs at.',
    });
  }
  return { config, warnings: warnings.sort(byPosition), site };
}

function byPosition(a: ConfigProblem, b: ConfigProblem): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0);
}

async function readText(file: string): Promise<string> {
  try {
    const facts = await stat(file);
    if (!facts.isFile())
      throw notUsable(
        file,
        `is ${facts.isDirectory() ? 'a folder' : 'no regular file'}`,
        'Name the configuration file itself.',
      );
    if (facts.size > tooLarge)
      throw notUsable(file, 'is larger than 1 MiB', 'Name the configuration file, not some other file.');
    const bytes = await readFile(file);
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof DrError) throw error;
    if (error instanceof TypeError) throw notUsable(file, 'is not text in UTF-8', 'Save it as UTF-8.');
    if (codeOf(error) === 'ENOENT') {
      throw notUsable(
        file,
        'does not exist',
        'Name it with --config FILE or $DR_CONFIG; config/dr.yaml, which comes with dr, is a good start.',
      );
    }
    const facts = fileError(error, file, 'read the configuration');
    if (facts instanceof DrError)
      throw new DrError('config', facts.message, { where: file, next: facts.next ?? '', cause: error });
    throw new DrError('config', 'cannot read the configuration', { where: file, cause: error });
  }
}

function notUsable(file: string, what: string, next: string): DrError {
  return new DrError('config', `the configuration file ${what}`, { where: file, next });
}
