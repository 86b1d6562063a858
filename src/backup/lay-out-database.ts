import { mkdir, open, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { forEachLimit } from '../base/concurrency.ts';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import { type Lsn, segmentName, segmentStart } from '../postgres/lsn.ts';
import { prepareRecovery, standaloneSettings } from '../postgres/recovery-settings.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import { type DatabaseRecoveryPoint, restoreCluster } from './recover-database.ts';
import type { RecoveryPlan } from './wal/plan.ts';
import { fetchWalFile } from './wal/reader.ts';

const FILES_IN_FLIGHT = 4;

/** In the folder of the WAL: which backup lies beside it, so that a restore that was cut off goes on. */
const MARKER = 'dr-restored';

export interface LayOutOptions {
  readonly store: ObjectStore;
  readonly point: DatabaseRecoveryPoint;
  readonly keyRing: KeyRing;
  readonly pool: SealPool;
  /** New or empty, or what an interrupted call with the same backup left. */
  readonly dataDirectory: string;
  /** Absolute, as the server will see it; may lie inside of the data directory. New, empty, or left by an interrupted call. */
  readonly walDirectory: string;
  /** Settings for `postgresql.auto.conf`, over those of the recovery. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly onProgress: OnProgress;
  readonly signal: AbortSignal;
}

/**
 * Lays a database out so that a stock PostgreSQL recovers it to the target by itself, with nothing of dr beside it: the base backup, its WAL
 * as files in a folder, and settings that fetch them with `cp`. The server becomes a hot standby that stops at the target and stays
 * read-only until somebody promotes it, after having looked that it is there; the promotion removes the folder. Called again after a
 * crash, it goes on; called again while the server is stopped, it adds the WAL that has been archived since.
 */
export async function layOutDatabase(options: LayOutOptions): Promise<{ readonly walFiles: number }> {
  const { point, dataDirectory, walDirectory } = options;
  const { manifest, database, plan } = point;
  const marker = path.join(walDirectory, MARKER);
  if ((await textOf(marker))?.trim() !== manifest.id) {
    await refuseForeign(walDirectory, dataDirectory);
    await restoreCluster(options);
    await mkdir(walDirectory, { recursive: true, mode: 0o700 });
    await writeFile(marker, `${manifest.id}\n`, { flush: true });
  }
  const walFiles = await placeWalFiles(options);
  await prepareRecovery({
    dataDirectory,
    user: undefined,
    address: undefined,
    recorded: database.settings,
    stay: { ...standaloneSettings(plan, { dataDirectory, walDirectory }), ...options.parameters },
  });
  return { walFiles };
}

/** WAL that somebody else put there must not be replayed into this database. */
async function refuseForeign(walDirectory: string, dataDirectory: string): Promise<void> {
  const inside = path.relative(dataDirectory, walDirectory);
  // What lies inside of the data directory is the business of the restore, which takes only an empty one.
  if (!inside.startsWith('..')) return;
  const there = await readdir(walDirectory).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileError(error, walDirectory, 'look at the folder for the WAL');
  });
  if (there.length === 0) return;
  throw new DrError('refused', 'the folder for the WAL is not empty', {
    where: walDirectory,
    next: 'Empty it, or name another one with --wal-to: the promotion removes it.',
  });
}

/** Every WAL file that recovery may ask for, on all timelines of the line; those that are there are not fetched again, but for the last. */
async function placeWalFiles(options: LayOutOptions): Promise<number> {
  const { store, point, keyRing, walDirectory, onProgress, signal } = options;
  const { manifest, database, plan } = point;
  const names = walFileNames(plan, database.segmentBytes);
  const present = new Set(await readdir(walDirectory));
  // What was the end of the archive the last time may have grown since.
  const last = [...present]
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort((a, b) => (a.slice(8) < b.slice(8) ? 1 : -1));
  for (const name of last.filter((each) => each.slice(8) === last[0]?.slice(8))) present.delete(name);
  let done = 0;
  await forEachLimit(names, FILES_IN_FLIGHT, async (name) => {
    if (!present.has(name)) {
      const content = await fetchWalFile(store, keyRing, database.systemId, name, signal);
      if (content) await writeWhole(path.join(walDirectory, name), upToEnd(content, name, plan, database.segmentBytes));
      else if (!isSpare(name, plan, database.segmentBytes)) {
        throw new DrError('corrupt', `the WAL file ${name} has gone from the archive`, {
          where: store.location,
          next: 'Restore from another vault (--vault NAME).',
        });
      }
    }
    done++;
    onProgress({ task: `WAL of ${manifest.resource}`, done, total: names.length, unit: 'objects' });
  });
  return names.length;
}

/**
 * Names of the WAL files of a plan: segments of each timeline from where it begins to where it was left (the segment of a fork exists on
 * both), and the histories.
 */
export function walFileNames({ line, startLsn, endLsn }: RecoveryPlan, segmentBytes: number): string[] {
  const names: string[] = [];
  const step = BigInt(segmentBytes);
  let from: Lsn = segmentStart(startLsn, segmentBytes);
  for (const [i, { timeline, end }] of line.entries()) {
    if (i > 0) names.push(`${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`);
    const until = end === undefined || end > endLsn ? endLsn : end;
    for (let at = from; at < until; at += step) names.push(segmentName(timeline, at, segmentBytes));
    from = segmentStart(until, segmentBytes);
  }
  // The backup itself may have been taken after a promotion: the server looks for the history of its own timeline too.
  const first = line[0]?.timeline ?? 1;
  if (first > 1) names.push(`${first.toString(16).toUpperCase().padStart(8, '0')}.history`);
  return names;
}

/** A file that recovery does without: the old timeline's copy of a segment that a newer one goes on with, and the first history. */
function isSpare(name: string, { line, startLsn }: RecoveryPlan, segmentBytes: number): boolean {
  const timeline = Number.parseInt(name.slice(0, 8), 16);
  if (name.endsWith('.history')) return timeline === line[0]?.timeline;
  const link = line.find((each) => each.timeline === timeline);
  if (link?.end === undefined) return false;
  const forked = segmentName(timeline, segmentStart(link.end, segmentBytes), segmentBytes);
  return name === forked && segmentStart(link.end, segmentBytes) > segmentStart(startLsn, segmentBytes);
}

/** A segment may have grown since the plan was made: what it did not know of is not to be replayed. */
function upToEnd(content: Buffer, name: string, { timeline, endLsn }: RecoveryPlan, segmentBytes: number): Buffer {
  const start = segmentStart(endLsn, segmentBytes);
  if (endLsn === start || name !== segmentName(timeline, start, segmentBytes)) return content;
  return content.fill(0, Number(endLsn - start));
}

/** A file with this name is always complete. */
async function writeWhole(file: string, content: Uint8Array): Promise<void> {
  const draft = `${file}.part`;
  try {
    const handle = await open(draft, 'w', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    throw fileError(error, file, 'write the WAL');
  }
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
    throw fileError(error, file, 'look at what an earlier restore left');
  }
}
