import { lstat, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { readOwnConfiguration, type StoredConfiguration, type TextFile } from '../backup/own-configuration.ts';
import { DrError, fileError } from '../base/errors.ts';
import { environmentReferences, runbooksOf } from '../config/references.ts';
import type { VaultConfig } from '../config/types.ts';
import { checkVault } from '../vault/enrol.ts';
import { KeyRing } from '../vault/keys.ts';
import { openVault } from '../vault/open.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { InitOptions } from './options.ts';

/** `dr init --from VAULT`: rebuilds the configuration and the runbooks on a machine that has nothing but a vault's URL and an identity. */
export async function run(context: CommandContext, options: InitOptions): Promise<CommandResult> {
  const { log, signal, env } = context;
  const identities = await context.loadIdentities();
  const store = openVault(vaultOf(options, env), log);
  let found: StoredConfiguration;
  try {
    await checkVault(store, { signal });
    found = await readOwnConfiguration(store, new KeyRing(identities ?? [], { log }), signal);
  } finally {
    await store.close();
  }
  const directory = path.resolve(options.to);
  const { folder, note } = runbookFolder(found);
  const files = [
    { name: 'dr.yaml', text: found.text },
    ...found.runbooks.map(({ name, text }) => ({ name: path.join(folder, name), text })),
  ];
  await writeNew(directory, files);
  // An empty folder is one, too: dr refuses to run anything while the one that the configuration names is missing.
  if (runbooksOf(found.text) !== undefined) await makeFolder(path.join(directory, folder));
  const variables = environmentReferences(found.text).map(({ name, required }) => ({
    name,
    required,
    set: (env[name] ?? '') !== '',
  }));
  const config = path.join(directory, 'dr.yaml');
  const lines = [
    `The configuration of ${found.storedAt} (site ${found.site}, ${found.source}) is in ${config}, its ${found.runbooks.length} runbooks in ${path.join(directory, folder)}.`,
    ...(note === undefined ? [] : [note]),
    '',
    variables.length === 0
      ? 'It refers to no environment variables.'
      : 'Set these environment variables, which it refers to (their values are in no vault):',
    ...variables.map(({ name, required, set }) => `  ${name}: ${set ? 'set' : required ? 'NOT SET' : 'has a default'}`),
    '',
    'Then, with the name of the site where this machine is:',
    `  dr doctor --config ${config} --site NAME --identity FILE    what is missing here`,
    `  dr backups --config ${config}                              what can be brought back`,
    `  dr failover --plan --config ${config} --to NAME             every step of bringing it all back`,
  ];
  const { id, storedAt, site, source } = found;
  return {
    data: {
      from: store.location,
      id,
      storedAt,
      site,
      source,
      directory,
      files: files.map(({ name }) => name),
      variables,
    },
    text: lines.join('\n'),
  };
}

function vaultOf({ from, endpoint, region }: InitOptions, env: CommandContext['env']): VaultConfig {
  return {
    name: 'vault',
    // A path is what people type for a directory.
    url: /^[./]/.test(from) ? pathToFileURL(path.resolve(from)).href : from,
    region: region ?? (env['AWS_REGION'] || env['AWS_DEFAULT_REGION'] || 'us-east-1'),
    endpoint,
    // Stores behind an endpoint of their own seldom have a host name for each bucket; AWS always has.
    forcePathStyle: endpoint !== undefined,
    credentials: undefined,
  };
}

/** Where the runbooks go: where the configuration looks for them, if that is below its own folder. */
function runbookFolder({ text, runbooks }: StoredConfiguration): { folder: string; note?: string } {
  const written = runbooksOf(text);
  if (written === undefined) {
    if (runbooks.length === 0) return { folder: 'runbooks' };
    const note =
      'It uses the runbooks that come with dr; these are as they were (write "runbooks: runbooks" to use them).';
    return { folder: 'runbooks', note };
  }
  const folder = path.normalize(written);
  if (!path.isAbsolute(folder) && !folder.startsWith('..') && !written.includes('$')) return { folder };
  return {
    folder: 'runbooks',
    note: `It looks for its runbooks in ${written}: move them there, or change "runbooks" in it to "runbooks".`,
  };
}

async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw fileError(error, folder, 'make the folder of the runbooks');
  });
}

/** Writes all files or, where one of them is there already, none. */
async function writeNew(directory: string, files: readonly TextFile[]): Promise<void> {
  for (const { name } of files) {
    const place = path.join(directory, name);
    if ((await lstat(place).catch(() => undefined)) === undefined) continue;
    throw new DrError('refused', 'a file of this name is there already, and nothing is overwritten', {
      where: place,
      next: 'Name another folder with --to DIR, or move away what is there.',
    });
  }
  try {
    for (const { name, text } of files) {
      const place = path.join(directory, name);
      await mkdir(path.dirname(place), { recursive: true });
      await writeFile(place, text, { flag: 'wx', mode: 0o600 });
    }
  } catch (error) {
    throw fileError(error, directory, 'write the configuration');
  }
}
