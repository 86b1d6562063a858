import type { BackupContext, TakenBackup } from './context.ts';
import type { Manifest } from './manifest.ts';
import { takeBackup } from './take.ts';
import { packDirectory } from './tree/walk.ts';

export interface DirectorySource {
  readonly name: string;
  readonly kind: 'data' | 'configuration';
  /** Absolute path at the active site. */
  readonly path: string;
  readonly exclude: readonly string[];
  readonly allowEmpty: boolean;
}

/** Backs up one directory. With `newest`, content equal to that backup's makes no new one. */
export async function takeDirectoryBackup(
  context: BackupContext,
  source: DirectorySource,
  newest?: Manifest,
): Promise<TakenBackup> {
  return await takeBackup(context, {
    resource: source.name,
    kind: source.kind,
    source: source.path,
    allowEmpty: source.allowEmpty,
    unlessEqualTo: newest,
    pack: async (pack, previous) => {
      // What a change after this moment did may be missing, so this is the moment that the backup stands for.
      const recoveryPointMs = context.clock.now();
      const { files, notes } = await packDirectory({
        root: source.path,
        exclude: source.exclude,
        pack,
        previous: previous?.rewriting(context.partBytes),
        now: () => context.clock.now(),
        signal: context.signal,
        onFile: (detail) =>
          context.onProgress?.({
            task: `backup ${source.name}`,
            done: pack.logicalBytes,
            total: 0,
            unit: 'bytes',
            detail,
          }),
      });
      return { files, notes, recoveryPointMs };
    },
  });
}
