import { readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';

/** What a killed backup left is removed after this long; until then another one may be writing it. */
const ABANDONED_MS = 7 * 86_400_000;

/** Where the states of a resource lie: one file for each backup, of which only that of the newest is of use. */
export function stateFolder(scratch: string, resource: string): string {
  return path.join(scratch, 'previous', resource);
}

/** Removes every state but that of `backupId`. Never throws: what stays takes space and nothing else. */
export async function removeOtherStates(folder: string, backupId: string, nowMs: number): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names) {
    if (name === backupId) continue;
    const place = path.join(folder, name);
    if (name.endsWith('.tmp')) {
      const found = await stat(place).catch(() => undefined);
      if (!found || nowMs - found.mtimeMs < ABANDONED_MS) continue;
    }
    await rm(place, { force: true }).catch(() => undefined);
  }
}
