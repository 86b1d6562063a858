import type { Dir } from 'node:fs';
import { lstat, opendir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isListed, orUndefined } from './file-root.ts';
import type { ListOptions, ObjectInfo } from './store.ts';

/** Files whose size and time are asked for at once. */
const STAT_BATCH = 64;

/**
 * The files below `root` whose path begins with `prefix`, in byte order of the whole path, in batches. Holds the entries of the
 * directories on the way to the current one, never the tree. Symbolic links are no objects.
 */
export async function* walkFiles(
  root: string,
  prefix: string,
  range: Pick<ListOptions, 'startAfter' | 'before'>,
): AsyncGenerator<readonly ObjectInfo[], void> {
  for await (const names of walkNames(root, prefix, range)) {
    for (let at = 0; at < names.length; at += STAT_BATCH) yield await statAll(root, names.slice(at, at + STAT_BATCH));
  }
}

/** The same, paths only: one look at each directory and none at the files. */
export function walkNames(
  root: string,
  prefix: string,
  { startAfter = '', before }: Pick<ListOptions, 'startAfter' | 'before'>,
): AsyncGenerator<readonly string[], void> {
  const isWanted = (key: string) =>
    key.startsWith(prefix) && key > startAfter && (before === undefined || key < before);
  const isOnTheWay = (folder: string) =>
    (folder.startsWith(prefix) || prefix.startsWith(folder)) &&
    (folder >= startAfter || startAfter.startsWith(folder)) &&
    (before === undefined || folder < before);
  return walk(root, prefix.slice(0, prefix.lastIndexOf('/') + 1), isWanted, isOnTheWay);
}

async function* walk(
  root: string,
  folder: string,
  isWanted: (key: string) => boolean,
  isOnTheWay: (folder: string) => boolean,
): AsyncGenerator<readonly string[], void> {
  const entries = (await orUndefined(readdir(join(root, folder), { withFileTypes: true }))) ?? [];
  const keys: string[] = [];
  for (const entry of entries) {
    if (!isListed(entry.name)) continue;
    // A directory sorts as its name with the slash: "a.b" < "a/b", although "a" < "a.b".
    const key = entry.isDirectory() ? `${folder}${entry.name}/` : folder + entry.name;
    if (entry.isFile() ? isWanted(key) : entry.isDirectory() && isOnTheWay(key)) keys.push(key);
  }
  // In the order of code units, which for keys (ASCII) is that of bytes.
  keys.sort();
  let files: string[] = [];
  for (const key of keys) {
    if (!key.endsWith('/')) {
      files.push(key);
      continue;
    }
    if (files.length > 0) yield files;
    files = [];
    yield* walk(root, key, isWanted, isOnTheWay);
  }
  if (files.length > 0) yield files;
}

/** True when a file lies in a folder, or anywhere below it: the first one that the system names is enough. */
export async function hasFile(root: string, folder: string): Promise<boolean> {
  const directory: Dir | undefined = await orUndefined(opendir(join(root, folder)));
  if (!directory) return false;
  for await (const entry of directory) {
    if (!isListed(entry.name)) continue;
    if (entry.isFile()) return true;
    if (entry.isDirectory() && (await hasFile(root, `${folder}${entry.name}/`))) return true;
  }
  return false;
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
