import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { recoveredDatabaseSchema, recoveryTargetSchema } from './ports.ts';

const markerSchema = z.object({
  format: z.literal(1),
  runId: z.string(),
  resource: z.string(),
  vault: z.string(),
  backupId: z.string(),
  at: recoveryTargetSchema.optional(),
  /** `promoting` is written before the server is told: from then on it may be a living primary. */
  state: z.enum(['restoring', 'recovered', 'promoting', 'promoted', 'complete']),
  recovered: recoveredDatabaseSchema.optional(),
  timeline: z.number().optional(),
  bytes: z.number().optional(),
  entries: z.number().optional(),
});

/**
 * What a run has put at a place, and how far it came. It lies beside the directory, not in it: no backup of the recovered thing
 * ever contains it, and it is there before the first file is.
 */
export type RunMarker = z.infer<typeof markerSchema>;

/** Path of the marker of a place. */
export function markerPath(place: string): string {
  return `${resolve(place)}.dr-run.json`;
}

/** The marker of a place; undefined if there is none. Throws `corrupt` for anything else under that name. */
export async function readMarker(place: string): Promise<RunMarker | undefined> {
  const path = markerPath(place);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw fileError(error, path, 'read what a run left at this place');
  }
  try {
    return markerSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new DrError('corrupt', 'this is not what a run of dr leaves beside a place', {
      where: path,
      next: 'Find out what lies at the place; remove this file when nothing there is needed.',
      cause: error,
    });
  }
}

/** Replaces the marker; durable when it returns. */
export async function writeMarker(place: string, marker: RunMarker): Promise<void> {
  const path = markerPath(place);
  try {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(marker, null, 1)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    const directory = await open(dirname(path), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    throw fileError(error, path, 'note what this run does at this place');
  }
}

/** Names in a directory; empty when it is not there. Throws `refused` when it is a file. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    if (codeOf(error) === 'ENOTDIR') {
      throw new DrError('refused', 'a file is where the recovery needs a directory', {
        where: directory,
        next: 'Move it away or correct the path in the configuration.',
        cause: error,
      });
    }
    throw fileError(error, directory, 'look at the place');
  }
}

/** Removes a place with everything beside it that a recovery made. The directory itself stays: it may be a mount point. */
export async function clearPlace(place: string, options: { readonly keepDirectory: boolean }): Promise<void> {
  const path = resolve(place);
  try {
    if (options.keepDirectory) {
      for (const name of await namesIn(path)) await rm(`${path}/${name}`, { recursive: true, force: true });
    } else await rm(path, { recursive: true, force: true });
    for (const suffix of ['.dr-restored', '.tablespaces', '.dr-run.json.new'])
      await rm(path + suffix, { recursive: true, force: true });
    // Last: as long as anything of it is there, it is known whose it is.
    await rm(markerPath(path), { force: true });
  } catch (error) {
    throw fileError(error, path, 'clear the place');
  }
}
