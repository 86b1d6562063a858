import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DrError, isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from './layout.ts';
import { sha256 } from './seal.ts';
import type { CallOptions, ObjectStore } from './store.ts';

/** What every vault carries for whoever has nothing but the vault: its key and its text. */
export type VaultDocuments = Readonly<Record<string, string>>;

const top = join(import.meta.dirname, '../..');

/** The description of the format and the restore script, as they come with this dr. Throws `local` when they are missing. */
export async function vaultDocuments(): Promise<VaultDocuments> {
  const read = async (path: string) => {
    try {
      return await readFile(join(top, path), 'utf8');
    } catch (error) {
      throw new DrError('local', 'a file that comes with dr is missing', {
        where: join(top, path),
        next: 'Install dr again, whole: each vault gets a copy of this file.',
        cause: error,
      });
    }
  };
  return {
    [layout.format]: await read('docs/format.md'),
    [layout.restoreScript]: await read('restore-script/dr-restore.mjs'),
  };
}

/**
 * Stores the documents that a vault lacks. Objects are never replaced: where the plain name has another text, of an older or newer dr,
 * this one goes beside it as `FORMAT-<first 8 digits of its SHA-256>.md`. Each version describes all formats up to its own.
 */
export async function storeDocuments(
  store: ObjectStore,
  documents: VaultDocuments,
  options: CallOptions = {},
): Promise<void> {
  for (const [key, text] of Object.entries(documents)) {
    const bytes = Buffer.from(text);
    const there = await readIfThere(store, key, options);
    if (there?.equals(bytes)) continue;
    if (!there && (await store.create(key, bytes, options)) === 'created') continue;
    const other = there ?? (await store.read(key, undefined, options));
    if (!other.equals(bytes)) await store.create(versionedKey(key, bytes), bytes, options);
  }
}

async function readIfThere(store: ObjectStore, key: string, options: CallOptions): Promise<Buffer | undefined> {
  try {
    return await store.read(key, undefined, options);
  } catch (error) {
    if (error instanceof DrError && error.kind === 'not-found') return undefined;
    throw error;
  }
}

/** The same for a vault in use: what goes wrong is logged, for a missing document must not keep a backup from being taken. */
export async function refreshDocuments(
  store: ObjectStore,
  documents: VaultDocuments,
  options: CallOptions & { readonly log: Log },
): Promise<void> {
  try {
    await storeDocuments(store, documents, options);
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    options.log.warn({ vault: store.name, error }, 'the vault could not be given its FORMAT.md and restore script');
  }
}

/** The name of a document that lies beside another text of the plain name. */
export function versionedKey(key: string, bytes: Uint8Array): string {
  const digest = sha256(bytes).toString('hex').slice(0, 8);
  return key.replace(/(\.[^.]*)?$/, (extension) => `-${digest}${extension}`);
}
