import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { nodeBinary } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { type DrHome, drHome, PROCESSES, startOfDr } from './contestants.ts';
import { type Command, run } from './measure.ts';

/** A program that backs up one tree again and again. */
export interface FileContestant {
  readonly name: string;
  /** Where everything that it writes in a backup lies. */
  readonly repository: string;
  /** Makes an empty repository, which the next backup is the first in. Not measured. */
  renew(): Promise<void>;
  backup(): Command;
  /** Restores the newest backup into `target`, a directory that is there and empty. */
  restore(target: string): Command;
  /** Bytes stored so far, in one copy. */
  storedBytes(): number;
  /** Where in `target` the tree then is. */
  restored(target: string): string;
}

/** `dr` of a checkout, run as a command, with encrypted file vaults; `settings` go into its `backup` section. */
export async function drOfFiles(
  checkout: string,
  name: string,
  tree: string,
  vaults: readonly string[],
  settings: object = {},
): Promise<FileContestant> {
  const base = await tempDir('dr-files');
  const start = startOfDr(checkout);
  let home: DrHome | undefined;
  const command = (...args: string[]): Command => ({
    program: nodeBinary,
    args: [...start.args, ...args, '--config', home?.config ?? ''],
    env: { ...start.env, DR_IDENTITY_FILE: home?.identityFile ?? '' },
  });
  return {
    name,
    repository: base,
    async renew() {
      if (home) rmSync(join(home.config, '..'), { recursive: true, force: true });
      home = await drHome(undefined, vaults, {
        data: { tree: { path: tree } },
        scratch: join(base, 'scratch'),
        backup: { workers: PROCESSES, ...settings },
      });
      rmSync(join(base, 'scratch'), { recursive: true, force: true });
      mkdirSync(join(base, 'scratch'), { mode: 0o700 });
    },
    backup: () => command('backup', 'tree'),
    restore: (target) => command('restore', 'tree', '--to', target),
    storedBytes: () => bytesBelow(home?.vaults.values().next().value ?? base),
    restored: (target) => target,
  };
}

/** restic with a repository in a directory; its compression and its cache are those it has by itself. */
export async function resticOf(tree: string): Promise<FileContestant> {
  const home = await tempDir('restic');
  const repository = join(home, 'repository');
  const command = (...args: string[]): Command => ({
    program: '/usr/bin/restic',
    args: ['--quiet', ...args],
    env: {
      RESTIC_REPOSITORY: repository,
      RESTIC_PASSWORD: 'the-benchmark-has-no-secrets',
      RESTIC_CACHE_DIR: join(home, 'cache'),
    },
  });
  return {
    name: 'restic',
    repository: home,
    async renew() {
      for (const name of ['repository', 'cache']) rmSync(join(home, name), { recursive: true, force: true });
      await run(command('init'));
    },
    backup: () => command('backup', '--host', 'bench', tree),
    restore: (target) => command('restore', 'latest', '--target', target),
    storedBytes: () => bytesBelow(repository),
    restored: (target) => join(target, tree),
  };
}

function bytesBelow(directory: string): number {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return files.reduce((sum, { parentPath, name }) => sum + lstatSync(join(parentPath, name)).size, 0);
}
