import { createHash, randomFillSync } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { formatBytes } from '../src/base/units.ts';

/** What lies in a folder: a digest for each file, and their sum in bytes. */
export interface Tree {
  readonly digests: ReadonlyMap<string, string>;
  readonly bytes: number;
}

/** Uploads of customers: some hundred pictures, and a few large files. Random bytes, as pictures are to a compressor. */
export async function makeUploads(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (let n = 1; n <= 300; n++) {
    const bytes = 2_000 + ((n * 7919) % 90_000);
    await writeFile(join(folder, `picture-${String(n).padStart(4, '0')}.jpg`), randomFillSync(Buffer.alloc(bytes)));
  }
  for (const n of [1, 2, 3]) {
    await mkdir(join(folder, 'films'), { recursive: true });
    await writeFile(join(folder, 'films', `film-${n}.mp4`), randomFillSync(Buffer.alloc(8_000_000)));
  }
}

export async function makeSettings(folder: string): Promise<void> {
  await mkdir(join(folder, 'mail'), { recursive: true });
  await writeShopSettings(folder, 'open every day');
  await writeFile(join(folder, 'taxes.ini'), '[vat]\nDE = 19\nFR = 20\n');
  await writeFile(join(folder, 'mail', 'confirmation.txt'), 'Thank you for your order, {name}!\n');
}

export async function writeShopSettings(folder: string, notice: string): Promise<void> {
  await writeFile(join(folder, 'shop.json'), `${JSON.stringify({ currency: 'EUR', notice }, undefined, 2)}\n`);
}

/** Digests everything below a folder, by relative path. */
export async function readTree(folder: string): Promise<Tree> {
  const digests = new Map<string, string>();
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const hash = createHash('sha256');
    for await (const piece of createReadStream(path)) {
      hash.update(piece);
      bytes += piece.length;
    }
    digests.set(relative(folder, path), hash.digest('hex'));
  }
  return { digests, bytes };
}

/** The files that differ, are missing or are too many; empty = the same. */
export function differences(wanted: Tree, found: Tree): string[] {
  const paths = new Set([...wanted.digests.keys(), ...found.digests.keys()]);
  return [...paths].filter((path) => wanted.digests.get(path) !== found.digests.get(path)).sort();
}

/** `303 files, 36.3 MiB`. */
export function sizeText({ digests, bytes }: Tree): string {
  return `${digests.size} files, ${formatBytes(bytes)}`;
}
