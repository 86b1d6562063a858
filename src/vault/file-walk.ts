import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isListed, orUndefined } from './file-root.ts';
import { compareKeys } from './object-key.ts';
import type { ObjectInfo } from './store.ts';

/** Files whose size and time are asked for at once. */
const STAT_BATCH = 64;

/**
 * The files below `root` whose path begins with `prefix`, after `startAfter`, in byte order of the whole path.
 * Holds the entries of the directories on the way to the current one, never the tree. Symbolic links are no objects.
 */
export function walkFiles(
  root: string,
  prefix: string,
  startAfter: string | undefined,
): AsyncGenerator<ObjectInfo, void> {
  return walk(root, prefix.slice(0, prefix.lastIndexOf('/') + 1), prefix, startAfter ?? '');
}

async function* walk(root: string, folder: string, prefix: string, after: string): AsyncGenerator<ObjectInfo, void> {
  const entries = (await orUndefined(readdir(join(root, folder), { withFileTypes: true }))) ?? [];
  // A directory sorts as its name with the slash: "a.b" < "a/b", although "a" < "a.b".
  const keys = entries
    .filter((entry) => isListed(entry.name) && (entry.isFile() || entry.isDirectory()))
    .map((entry) => `${folder}${entry.name}${entry.isDirectory() ? '/' : ''}`)
    .sort(compareKeys);
  let files: string[] = [];
  for (const key of keys) {
    if (!key.endsWith('/')) {
      if (key.startsWith(prefix) && key > after) files.push(key);
      if (files.length < STAT_BATCH) continue;
    }
    yield* await statAll(root, files);
    files = [];
    if (!key.endsWith('/')) continue;
    const wanted = key.startsWith(prefix) || prefix.startsWith(key);
    const passed = key < after && !after.startsWith(key);
    if (wanted && !passed) yield* walk(root, key, prefix, after);
  }
  yield* await statAll(root, files);
}

async function statAll(root: string, keys: readonly string[]): Promise<ObjectInfo[]> {
  const infos = await Promise.all(
    keys.map(async (key) => {
      const info = await orUndefined(lstat(join(root, key)));
      return info?.isFile() ? { key, size: info.size, modifiedMs: info.mtimeMs } : undefined;
    }),
  );
  return infos.filter((info) => info !== undefined);
}
