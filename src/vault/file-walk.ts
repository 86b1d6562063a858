import type { Dir, Dirent } from 'node:fs';
import { lstat, opendir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { forEachLimit } from '../base/concurrency.ts';
import { isListed, orUndefined } from './file-root.ts';
import type { ListOptions, ObjectInfo } from './store.ts';

/** Files whose size and time are asked for at once. */
const STAT_BATCH = 64;
/** Up to this share of a directory's names is looked at one by one. */
const FEW = 1 / 8;

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
  return walk(root, prefix.slice(0, prefix.lastIndexOf('/') + 1), {
    file: (key) => key.startsWith(prefix) && key > startAfter && (before === undefined || key < before),
    folder: (key) =>
      (key.startsWith(prefix) || prefix.startsWith(key)) &&
      (key >= startAfter || startAfter.startsWith(key)) &&
      (before === undefined || key < before),
    isRange: startAfter !== '' || before !== undefined,
  });
}

interface Wanted {
  readonly file: (key: string) => boolean;
  /** True for a folder that a wanted file may lie in. */
  readonly folder: (key: string) => boolean;
  /** Perhaps only a part of what a directory holds is wanted. */
  readonly isRange: boolean;
}

async function* walk(root: string, folder: string, wanted: Wanted): AsyncGenerator<readonly string[], void> {
  const keys: string[] = [];
  for (const entry of await entriesOf(root, folder, wanted)) {
    if (!isListed(entry.name)) continue;
    // A directory sorts as its name with the slash: "a.b" < "a/b", although "a" < "a.b".
    const key = entry.isDirectory() ? `${folder}${entry.name}/` : folder + entry.name;
    if (entry.isFile() ? wanted.file(key) : entry.isDirectory() && wanted.folder(key)) keys.push(key);
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
    yield* walk(root, key, wanted);
  }
  if (files.length > 0) yield files;
}

type Entry = Pick<Dirent, 'name' | 'isFile' | 'isDirectory'>;

/** A directory may have tens of thousands of files (the WAL of a timeline), of which the first or last few are asked for. */
async function entriesOf(root: string, folder: string, wanted: Wanted): Promise<readonly Entry[]> {
  const path = join(root, folder);
  if (wanted.isRange) {
    const all = (await orUndefined(readdir(path))) ?? [];
    const names = all.filter((name) => wanted.file(folder + name) || wanted.folder(`${folder}${name}/`));
    if (names.length <= Math.max(STAT_BATCH, all.length * FEW)) return await lookAt(path, names);
  }
  return (await orUndefined(readdir(path, { withFileTypes: true }))) ?? [];
}

async function lookAt(path: string, names: readonly string[]): Promise<Entry[]> {
  const entries: Entry[] = [];
  await forEachLimit(names, STAT_BATCH, async (name) => {
    const info = await orUndefined(lstat(join(path, name)));
    if (info) entries.push({ name, isFile: () => info.isFile(), isDirectory: () => info.isDirectory() });
  });
  return entries;
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
