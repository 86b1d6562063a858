import { randomBytes } from 'node:crypto';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { layout, timedId, timeOfId } from '../vault/layout.ts';
import type { ObjectStore } from '../vault/store.ts';
import { recentNames } from './catalog.ts';
import type { Note } from './manifest.ts';

/**
 * The id of a new backup of a resource: its time is the start, or just after the newest backup where that was begun later, by a clock that
 * was ahead or is now behind. The newest backup is the last one in the order of ids everywhere, so that order must be the order in which they
 * were taken, whatever a clock says. A vault that does not answer has no say.
 */
export async function newBackupId(
  stores: readonly ObjectStore[],
  resource: string,
  startedMs: number,
  signal?: AbortSignal,
): Promise<{ readonly id: string; readonly notes: readonly Note[] }> {
  const newest = await Promise.all(
    stores.map(async (store) => {
      try {
        return (await recentNames(store, layout.manifests(resource), startedMs, signal)).at(-1);
      } catch (error) {
        if (signal?.aborted || !(error instanceof DrError)) throw error;
        return undefined;
      }
    }),
  );
  const newestId = newest
    .flatMap((id) => id ?? [])
    .sort()
    .at(-1);
  const newestMs = (newestId === undefined ? undefined : timeOfId(newestId)) ?? Number.NEGATIVE_INFINITY;
  const random = randomBytes(3).toString('hex');
  if (newestMs < startedMs) return { id: timedId(startedMs, random), notes: [] };
  const id = timedId(newestMs + 1, random);
  if (newestMs === startedMs) return { id, notes: [] };
  const ahead = formatDuration(newestMs - startedMs);
  const detail = `a clock was or is wrong: backup ${newestId}, taken before this one, bears a time ${ahead} after its start`;
  return { id, notes: [{ kind: 'other', subject: resource, detail }] };
}
