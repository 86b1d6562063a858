import { hash } from 'node:crypto';
import { type IndexEntry, treeChecksum } from '../index-format.ts';
import { type BackupSource, indexOfFiles, readFiles } from '../read-files.ts';

/** A file of one side of a comparison. */
export interface SideFile {
  readonly type: 'file' | 'link';
  /** Bytes; of a link its target. */
  readonly size: number;
  /** Permission bits. */
  readonly mode: number;
  /** Equal for equal content; content with another one may be equal all the same. */
  readonly fingerprint: string;
  /** Where a link points. */
  readonly target?: string;
}

/** One of the two states that are compared. */
export interface Side {
  /** Id of the backup, or `live`. */
  readonly name: string;
  /** The moment that it shows, milliseconds since 1970. */
  readonly atMs: number;
  /** For people: a vault, a folder, a cluster. */
  readonly where: string;
  readonly files: ReadonlyMap<string, SideFile>;
  /** Content of files of this side, by path. */
  read(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>>;
}

/** A backup as one side: only its index is read. */
export async function backupSide(
  source: BackupSource,
  signal?: AbortSignal,
): Promise<Side & { readonly index: ReadonlyMap<string, IndexEntry> }> {
  const index = await indexOfFiles(source, signal);
  const { store, manifest } = source;
  return {
    name: manifest.id,
    atMs: Date.parse(manifest.recoveryPoint),
    where: `vault ${store.name}`,
    index,
    files: new Map([...index].map(([path, entry]) => [path, sideFile(entry)])),
    read: async (paths) =>
      await readFiles(
        source,
        paths.flatMap((path) => index.get(path) ?? []),
        signal,
      ),
  };
}

function sideFile(entry: IndexEntry): SideFile {
  const { type, mode, size, target, checksum } = entry;
  if (type !== 'file') {
    const text = target?.toString('utf8') ?? '';
    return { type: 'link', size: text.length, mode, fingerprint: `${type}:${text}`, target: text };
  }
  return { type: 'file', mode, size, fingerprint: checksum?.toString('base64') ?? '' };
}

/** What a backup notes of content that it takes in one run, as it does with small files. */
export function fingerprintOf(content: Buffer): string {
  const { length } = content;
  const whole = { part: 0, frameOffset: 0, frameLength: 0, counter: 0, rawOffset: 0, skip: 0 };
  const extents =
    length === 0
      ? []
      : [{ ...whole, position: 0, length, runLength: length, digest: hash('sha256', content, 'buffer') }];
  return treeChecksum(extents, length).toString('base64');
}

/** Files in memory as one side. */
export function memorySide(
  facts: Pick<Side, 'name' | 'atMs' | 'where'>,
  contents: ReadonlyMap<string, Buffer>,
  mode: number,
): Side {
  return {
    ...facts,
    files: new Map(
      [...contents].map(([path, content]) => [
        path,
        { type: 'file', size: content.length, mode, fingerprint: fingerprintOf(content) },
      ]),
    ),
    read: async (paths) =>
      new Map(
        paths.flatMap((path) => {
          const content = contents.get(path);
          return content ? [[path, content] as const] : [];
        }),
      ),
  };
}
