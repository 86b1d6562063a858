import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BaseBackupConsumer, BaseBackupEntry } from '../../src/postgres/base-backup.ts';
import { writeTo } from './receive.ts';

/** Writes an incremental backup into a directory as a full one: changed blocks over the files of the previous directory. */
export function layOver(previous: string, directory: string) {
  const plain = writeTo(directory);
  /** Entries of which only changed blocks came. */
  const changed: BaseBackupEntry[] = [];
  let open: { entry: BaseBackupEntry; content: Buffer; done: number } | undefined;
  const consumer: BaseBackupConsumer = {
    ...plain.consumer,
    entry: (entry) => {
      if (entry.changes === undefined) return plain.consumer.entry(entry);
      changed.push(entry);
      const content = Buffer.alloc(entry.size);
      const before = readFileSync(join(previous, entry.path));
      before.copy(content, 0, 0, Math.min(before.length, entry.changes.keptBlocks * entry.changes.blockBytes));
      open = { entry, content, done: 0 };
      return undefined;
    },
    data: (chunk) => {
      if (open === undefined) return plain.consumer.data(chunk);
      const { blocks, blockBytes } = open.entry.changes ?? { blocks: [], blockBytes: 1 };
      for (let at = 0; at < chunk.length; ) {
        const within = open.done % blockBytes;
        const piece = chunk.subarray(at, at + blockBytes - within);
        open.content.set(piece, (blocks[Math.floor(open.done / blockBytes)] ?? Number.NaN) * blockBytes + within);
        open.done += piece.length;
        at += piece.length;
      }
      return undefined;
    },
    endEntry: async () => {
      if (open === undefined) return await plain.consumer.endEntry();
      const { entry, content } = open;
      open = undefined;
      await writeFile(join(directory, entry.path), content, { mode: entry.mode });
    },
  };
  return { ...plain, consumer, changed };
}

/** Paths of all files below a directory. */
export function filesBelow(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return (readdirSync(directory, { recursive: true, encoding: 'utf8' }) as string[])
    .filter((path) => statSync(join(directory, path)).isFile())
    .sort();
}
