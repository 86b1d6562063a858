import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
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
  process.env[variable] = root;
  return root;
}

/** A new empty directory (mode 0755), removed at the end of the run at the latest. Short, because socket paths are limited. */
export async function tempDir(name = 't'): Promise<string> {
  const directory = await mkdtemp(join(testRoot(), `${name}-`));
  chmodSync(directory, 0o755);
  return directory;
}
