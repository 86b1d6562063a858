import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const variable = 'DR_TEST_ROOT';

/**
 * The one directory below which everything of a test run lies. `global-setup.ts` creates it for all workers and removes it
 * at the end; a process without it (a script) makes its own and removes it when it exits.
 */
export function testRoot(): string {
  const inherited = process.env[variable];
  if (inherited !== undefined) return inherited;
  const root = createTestRoot();
  process.on('exit', () => rmSync(root, { recursive: true, force: true }));
  return root;
}

/** Makes the directory of a test run and tells the processes started from here about it. */
export function createTestRoot(): string {
  const root = mkdtempSync(join(tmpdir(), 'dr-'));
  // PostgreSQL runs as another user when the tests run as root, so that user has to get through.
  chmodSync(root, 0o755);
  mkdirSync(join(root, 'processes'));
  writeFileSync(join(root, 'owner'), String(process.pid));
  process.env[variable] = root;
  return root;
}

/** A new empty directory (mode 0755), removed at the end of the run at the latest. Short, because socket paths are limited. */
export async function tempDir(name = 't'): Promise<string> {
  const directory = await mkdtemp(join(testRoot(), `${name}-`));
  chmodSync(directory, 0o755);
  return directory;
}

/** Directories of test runs that were killed before they could clean up. */
export function abandonedRoots(): string[] {
  return readdirSync(tmpdir())
    .filter((name) => /^dr-\w{6}$/.test(name))
    .map((name) => join(tmpdir(), name))
    .filter((root) => {
      try {
        process.kill(Number(readFileSync(join(root, 'owner'), 'utf8')), 0);
        return false;
      } catch (error) {
        // No such file: not a test run's, or not ours to read. Only a process that is gone makes it abandoned.
        return error instanceof Error && 'code' in error && error.code === 'ESRCH';
      }
    });
}
