import { DrError } from '../../base/errors.ts';
import type { Cluster } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import type { BackupContext, TakenBackup } from '../context.ts';
import type { Manifest, Note } from '../manifest.ts';
import type { EntryHead, PackWriter } from '../pack-writer.ts';
import type { PreviousBackup } from '../previous/previous-backup.ts';
import { takeBackup } from '../take.ts';
import { isManagersPath } from './layout.ts';
import { type ObjectFile, readObjects } from './read-objects.ts';

export interface ObjectsSource {
  readonly name: string;
  readonly select: ObjectSelection;
  /** Globs on the paths of the files. */
  readonly exclude: readonly string[];
  readonly allowEmpty: boolean;
}

/** A whole cluster is some MB: parts of the usual size would only cost the daemon memory. */
const MOST_PART_BYTES = 4 * 1024 * 1024;

/**
 * Backs up objects of a cluster: an ordinary backup of configuration, whose files are laid out by `layout.ts`. With `newest`, content equal
 * to that backup's makes no new one. What could not be read is told by notes (`unreadable`).
 */
export async function takeObjectsBackup(
  given: BackupContext,
  source: ObjectsSource,
  cluster: Cluster,
  newest?: Manifest,
): Promise<TakenBackup> {
  const context = { ...given, partBytes: Math.min(given.partBytes, MOST_PART_BYTES) };
  if (source.select.secrets && context.keyPolicy === 'none') {
    throw new DrError('refused', `Secrets of ${source.name} would be stored readable`, {
      where: `configuration.${source.name}.kubernetes.secrets`,
      next: 'Name recipients under "encryption", or leave Secrets out.',
    });
  }
  return await takeBackup(context, {
    resource: source.name,
    kind: 'configuration',
    source: cluster.target,
    allowEmpty: source.allowEmpty,
    unlessEqualTo: newest,
    besideContent: (path) => isManagersPath(path.toString('utf8')),
    pack: async (pack, previous) => {
      // What changed after this moment may be missing.
      const recoveryPointMs = context.clock.now();
      const writer = new FileWriter(pack, previous?.rewriting(context.partBytes));
      await writer.root();
      const { objects, lost } = await readObjects(
        { cluster, select: source.select, exclude: source.exclude, signal: context.signal },
        async (file) => {
          context.onProgress?.({
            task: `backup ${source.name}`,
            done: pack.logicalBytes,
            total: 0,
            unit: 'bytes',
            detail: file.path,
          });
          await writer.add(file);
        },
      );
      const notes = lost.map(({ what, why }): Note => ({ kind: 'unreadable', subject: what, detail: why }));
      return { files: objects, notes, recoveryPointMs };
    },
  });
}

/** Files that exist nowhere but in the backup: of root, and for nobody else to read, since there may be Secrets among them. */
class FileWriter {
  readonly #pack: PackWriter;
  readonly #previous: PreviousBackup | undefined;
  readonly #folders = new Set<string>();

  constructor(pack: PackWriter, previous: PreviousBackup | undefined) {
    this.#pack = pack;
    this.#previous = previous;
  }

  async root(): Promise<void> {
    await this.#pack.add(head('', 'directory', 0));
  }

  async add({ path, text, changedAtMs }: ObjectFile): Promise<void> {
    for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) await this.#folder(path.slice(0, at));
    const entry = head(path, 'file', changedAtMs);
    const content = Buffer.from(text);
    await this.#pack.begin(entry, content.length, this.#previous?.lookup(entry.path));
    await this.#pack.write(content);
    await this.#pack.end();
  }

  async #folder(path: string): Promise<void> {
    if (this.#folders.has(path)) return;
    this.#folders.add(path);
    await this.#pack.add(head(path, 'directory', 0));
  }
}

function head(path: string, type: 'file' | 'directory', changedAtMs: number): EntryHead {
  const mode = type === 'file' ? 0o600 : 0o700;
  return { path: Buffer.from(path), type, mode, uid: 0, gid: 0, mtimeNs: BigInt(changedAtMs) * 1_000_000n };
}
