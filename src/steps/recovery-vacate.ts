import { chmod, chown, mkdir, rename, rmdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { adoptServer } from '../postgres/server-process.ts';
import { markerPath, namesIn, readMarker } from './recovery-marker.ts';

/** What a recovery makes beside a place. */
const BESIDE = ['.dr-restored', '.tablespaces'];

/**
 * Puts aside what lies at a place, unless this run put it there: stops a server that runs in it on this machine, renames the directory
 * to `<path>.before-<run>`, and leaves an empty one of the same owner and mode. Returns the new name; undefined when nothing was
 * there. Goes on where an interrupted call stopped.
 */
export async function vacate(place: { readonly path: string; readonly runId: string }): Promise<string | undefined> {
  const path = resolve(place.path);
  const aside = `${path}.before-${place.runId}`;
  const marker = await readMarker(path);
  if (marker?.runId === place.runId) return undefined;
  const names = await namesIn(path);
  if (names.length > 0) {
    const server = await adoptServer(path, join(path, 'log', 'dr-recovery.log'));
    await server?.stop('fast');
    await moveAside(path, aside);
  }
  // A marker without its directory: this was interrupted here before.
  for (const suffix of BESIDE) await moveBeside(path + suffix, aside + suffix);
  await moveBeside(markerPath(path), markerPath(aside));
  return names.length > 0 || marker !== undefined ? aside : undefined;
}

async function moveAside(path: string, aside: string): Promise<void> {
  try {
    const { mode, uid, gid } = await stat(path);
    await rename(path, aside);
    await mkdir(path, { mode: 0o700 });
    await chmod(path, mode & 0o7777);
    await chown(path, uid, gid);
  } catch (error) {
    if (codeOf(error) === 'EBUSY' || codeOf(error) === 'EXDEV') {
      throw new DrError('refused', 'what the site held before lies on a mount point, which cannot be renamed', {
        where: path,
        next: 'Move its content away yourself, or mount an empty volume there; then give the same command again.',
        cause: error,
      });
    }
    throw fileError(error, path, 'put aside what the site held before');
  }
}

async function moveBeside(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    // Both are there: the one that was moved first is the real one, and the other can only be an empty directory.
    if (codeOf(error) === 'ENOTEMPTY') return await rmdir(from).catch(() => {});
    throw fileError(error, from, 'put aside what the site held before');
  }
}
