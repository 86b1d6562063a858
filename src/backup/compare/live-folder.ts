import { lstat, open, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../../base/errors.ts';
import { globMatcher } from '../../base/glob.ts';
import { runDigest } from '../../vault/seal-runs.ts';
import { type IndexEntry, isWholeRun } from '../index-format.ts';
import { fingerprintOf, type Side, type SideFile } from './side.ts';

/** Files up to this size are read as one. */
const SMALL_BYTES = 4 * 1024 * 1024;

/** A folder of this machine as it is now, for the comparison with a backup of it. */
export async function liveFolder(
  root: string,
  exclude: readonly string[],
  other: ReadonlyMap<string, IndexEntry>,
  nowMs: number,
): Promise<Side> {
  const excludes = globMatcher(exclude);
  const files = new Map<string, SideFile>();
  const walk = async (folder: string): Promise<void> => {
    for (const found of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? found.name : `${folder}/${found.name}`;
      if (excludes(path) !== undefined) continue;
      if (found.isDirectory()) await walk(path);
      else if (found.isSymbolicLink() || found.isFile())
        files.set(path, await lookAt(join(root, path), other.get(path)));
    }
  };
  try {
    await walk('');
  } catch (error) {
    throw fileError(error, root, 'read the folder');
  }
  const read = async (paths: readonly string[]) =>
    new Map(await Promise.all(paths.map(async (path) => [path, await readFile(join(root, path))] as const)));
  return { name: 'live', atMs: nowMs, where: root, files, read };
}

async function lookAt(absolute: string, entry: IndexEntry | undefined): Promise<SideFile> {
  const stat = await lstat(absolute);
  const mode = stat.mode & 0o7777;
  if (stat.isSymbolicLink()) {
    const target = await readlink(absolute);
    return { type: 'link', size: target.length, mode, fingerprint: `symlink:${target}`, target };
  }
  const { size } = stat;
  if (size <= SMALL_BYTES) return { type: 'file', size, mode, fingerprint: fingerprintOf(await readFile(absolute)) };
  const isSame = entry?.type === 'file' && entry.size === size && (await isAsIndexed(absolute, entry));
  return {
    type: 'file',
    size,
    mode,
    fingerprint: isSame ? (entry.checksum?.toString('base64') ?? '') : `live:${size}`,
  };
}

/** True when a file holds what an index says, as far as its digests tell. */
async function isAsIndexed(absolute: string, { extents, blockBytes, size }: IndexEntry): Promise<boolean> {
  const file = await open(absolute);
  try {
    let at = 0;
    for (const extent of extents) {
      if (!isWholeRun(extent)) return false;
      if (!(await isZero(at, extent.position))) return false;
      const content = await piece(extent.position, extent.length);
      if (content.length !== extent.length || !runDigest(content, blockBytes).equals(extent.digest)) return false;
      at = extent.position + extent.length;
    }
    return await isZero(at, size);
  } finally {
    await file.close();
  }

  async function piece(position: number, length: number): Promise<Buffer> {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, position);
    return buffer.subarray(0, bytesRead);
  }

  async function isZero(from: number, to: number): Promise<boolean> {
    for (let at = from; at < to; at += SMALL_BYTES) {
      if ((await piece(at, Math.min(SMALL_BYTES, to - at))).some((byte) => byte !== 0)) return false;
    }
    return true;
  }
}
