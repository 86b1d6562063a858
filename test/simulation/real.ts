import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { leaseSomewhere } from '../../src/backup/backup-resource.ts';
import type { EntryHead } from '../../src/backup/pack-writer.ts';
import { takeBackup } from '../../src/backup/take.ts';
import type { TakeReal } from './processes.ts';

/** Files of a backup; each has frames and thus parts of its own. */
const FILES = 3;
/** As said to the pack: too large to share a frame. What is written is a few bytes. */
const EXPECTED_BYTES = 2 ** 22;

/**
 * Backups as they are taken, incremental ones on what each machine keeps on its disk. In thirty times the time of the handmade ones, and
 * with threads and files of the system, so that a seed does not give quite the same history each time.
 */
export function realBackups(): { readonly take: TakeReal; close(): void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'dr-simulation-'));
  const take: TakeReal = async (context, { resource, kind, random, unchanged, database }, machine) => {
    const lease = await leaseSomewhere(context, `backup-${resource}`, `backup of ${resource}`);
    const signal = context.signal ? AbortSignal.any([context.signal, lease.signal]) : lease.signal;
    const leased = { ...context, signal, scratch: path.join(folder, machine) };
    try {
      let facts: Awaited<ReturnType<NonNullable<typeof database>>>;
      const { manifest, vaults } = await takeBackup(leased, {
        resource,
        kind,
        source: 'test',
        allowEmpty: false,
        pack: async (pack, previous) => {
          for (let n = 0; n < FILES; n++) {
            const name = Buffer.from(`file ${n}`);
            const head: EntryHead = { path: name, type: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n };
            const known = previous?.lookup(name);
            if (known?.isWhole && (unchanged || random.chance(0.6))) {
              await pack.reuse(head, known);
              continue;
            }
            await pack.begin(head, EXPECTED_BYTES, known);
            await pack.write(Buffer.from(`content ${random.hex(8)}`));
            await pack.end();
          }
          facts = await database?.(context.stores);
          return {
            notes: [],
            files: FILES,
            recoveryPointMs: context.clock.now(),
            ...(facts ? { database: facts } : {}),
          };
        },
      });
      return `${manifest.id} on ${manifest.previous?.id ?? 'nothing'} in ${vaults.join(' and ')}`;
    } finally {
      await lease.release();
    }
  };
  return { take, close: () => rmSync(folder, { recursive: true, force: true }) };
}
