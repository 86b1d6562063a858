import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

async function locked(): Promise<Record<string, LockedPackage>> {
  const lock: unknown = JSON.parse(await readFile(new URL('../../package-lock.json', import.meta.url), 'utf8'));
  if (typeof lock !== 'object' || lock === null || !('packages' in lock))
    throw new Error('package-lock.json has no packages');
  return lock.packages as Record<string, LockedPackage>;
}

test('package-lock.json names no registry: it works behind any mirror', async () => {
  const resolved = Object.entries(await locked()).filter(([, entry]) => entry.resolved !== undefined);
  expect(resolved).toEqual([]);
});

// A mirror that lacks the packages of some systems makes npm leave them out, and "npm ci" then fails for everybody.
test('package-lock.json has every dependency, those for other systems too', async () => {
  const packages = await locked();
  const missing: string[] = [];
  for (const [path, entry] of Object.entries(packages)) {
    for (const name of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })) {
      const places = path.split('/node_modules/').map((_, i, parts) => parts.slice(0, i + 1).join('/node_modules/'));
      if (
        ![`node_modules/${name}`, ...places.map((place) => `${place}/node_modules/${name}`)].some(
          (key) => packages[key]?.version,
        )
      ) {
        missing.push(`${path || 'dr'} → ${name}`);
      }
    }
  }
  expect(missing).toEqual([]);
});
