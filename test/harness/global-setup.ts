import { rmSync } from 'node:fs';
import { npmPostgresVersions, usableNpmPostgres } from './npm-postgres.ts';
import { killLeftovers } from './process.ts';
import { abandonedRoots, createTestRoot } from './temp.ts';

/** Once per test run: the directory of the run and usable PostgreSQL servers; afterwards nothing of either is left. */
export default function setup(): () => void {
  for (const left of abandonedRoots()) remove(left);
  const root = createTestRoot();
  for (const version of npmPostgresVersions()) usableNpmPostgres(version);
  return () => remove(root);
}

function remove(root: string): void {
  killLeftovers(root);
  rmSync(root, { recursive: true, force: true, maxRetries: 5 });
}
