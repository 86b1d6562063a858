import { DrError, messageOf } from '../../base/errors.ts';
import type { ServerIdentity } from '../../postgres/connection.ts';
import { formatLsn, type Lsn, segmentStart } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { blockBytesOf } from './block.ts';
import { expectationsOf } from './create.ts';
import { VaultWal, type WalPosition } from './listing.ts';
import { contiguousEnd, joinRanges, maxLsn } from './names.ts';
import { WalSession, type WalSessionOptions } from './session.ts';

/** The slot as it was found or made when the archiver connected. */
export interface SlotState {
  readonly restart: WalPosition;
  /** It was created just now: what the archive has before says nothing about it. */
  readonly isNew: boolean;
}

/**
 * Finds where the archive of this lineage ends in the vaults that answer, and opens a session that goes on from there. Vaults that do
 * not answer join later. Throws `unreachable` when none does, and `conflict` when the archive is ahead of this server.
 */
export async function openWalSession(
  stores: readonly ObjectStore[],
  server: ServerIdentity,
  slot: SlotState,
  options: WalSessionOptions,
): Promise<{ session: WalSession; base: WalPosition }> {
  const { segmentBytes, signal } = options;
  const answers = await answersOf(
    stores.map(async (store) => {
      await options.prepare(store);
      return { store, newest: await newestTimeline(store, server.systemId, signal) };
    }),
    () => options.clock.sleep(options.startGraceMs, signal, { unref: true }),
  );
  const open = answers.flatMap((answer) => (answer?.status === 'fulfilled' ? [answer.value] : []));
  if (open.length === 0) throw noVault(stores, answers);
  const newest = Math.max(...open.map((vault) => vault.newest));
  if (newest > server.timeline) throw oldPrimary(newest, server, open[0]?.store.location ?? '');
  const timeline = newest > 0 ? newest : slot.restart.timeline;
  const read = async (from: WalPosition | undefined) =>
    await Promise.all(
      open.map(async ({ store }) => ({
        store,
        contents: await VaultWal.read(store, server.systemId, from, segmentBytes, signal),
      })),
    );
  const restart = segmentStart(slot.restart.lsn, segmentBytes);
  let base: WalPosition | undefined = slot.isNew ? undefined : { timeline, lsn: restart };
  let vaults = await read(base);
  if (base && newest > 0 && vaults.every(({ contents }) => contents.ranges(timeline).length === 0)) {
    // The slot is ahead of the archive (it was made anew by hand, or on a standby): look at all there is.
    base = undefined;
    vaults = await read(base);
  }
  const end = archiveEnd(
    vaults.map(({ contents }) => contents),
    timeline,
    base,
  );
  if (end !== undefined && timeline === server.timeline && server.lsn < end) throw rolledBack(end, server);
  const start = end === undefined ? restart : blockStart(end, segmentBytes);
  const begin = base ?? { timeline, lsn: start };
  const session = new WalSession(stores, begin, { timeline, lsn: start }, options);
  const block = session.openBlock();
  await Promise.all(
    vaults.map(async ({ store, contents }) => {
      session.beginLane(store, contents, await expectationsOf(store, contents, block, signal));
    }),
  );
  return { session, base: begin };
}

/** Waits for all, but after the first success only for a grace time: a vault that hangs must not keep WAL from the others. */
async function answersOf<T>(
  work: ReadonlyArray<Promise<T>>,
  grace: () => Promise<void>,
): Promise<Array<PromiseSettledResult<T> | undefined>> {
  const answers: Array<PromiseSettledResult<T> | undefined> = work.map(() => undefined);
  const all = Promise.all(
    work.map(async (one, i) => {
      [answers[i]] = await Promise.allSettled([one]);
    }),
  );
  const firstAndGrace = Promise.any(work).then(grace);
  // When none succeeds, or the wait is interrupted, `all` decides.
  await Promise.race([all, firstAndGrace.catch(() => all)]);
  return [...answers];
}

/** Highest timeline that a vault has WAL of; 0 if there is none. */
async function newestTimeline(store: ObjectStore, systemId: string, signal: AbortSignal): Promise<number> {
  const names = await store.folders(layout.walSystem(systemId), { signal });
  return names.reduce(
    (newest, name) => Math.max(newest, /^[0-9A-F]{8}$/.test(name) ? Number.parseInt(name, 16) : 0),
    0,
  );
}

/** End of the best vault's WAL: without a hole from `base` on, or the end of its last stretch. Undefined for an empty archive. */
function archiveEnd(vaults: readonly VaultWal[], timeline: number, base: WalPosition | undefined): Lsn | undefined {
  let best: Lsn | undefined;
  for (const contents of vaults) {
    const ranges = contents.ranges(timeline);
    if (ranges.length === 0) continue;
    const end = base ? contiguousEnd(ranges, base.lsn) : joinRanges(ranges).at(-1)?.end;
    if (end !== undefined) best = best === undefined ? end : maxLsn(best, end);
  }
  return best;
}

function blockStart(lsn: Lsn, segmentBytes: number): Lsn {
  return segmentStart(lsn, blockBytesOf(segmentBytes));
}

function noVault(
  stores: readonly ObjectStore[],
  answers: ReadonlyArray<PromiseSettledResult<unknown> | undefined>,
): DrError {
  const reasons = answers.map((answer, i) =>
    answer?.status === 'rejected' ? `${stores[i]?.name}: ${messageOf(answer.reason)}` : '',
  );
  return new DrError('unreachable', 'no vault can be read, so WAL has nowhere to go', {
    where: reasons.join('; '),
    next: 'Run `dr doctor` to see what each vault refuses. The server keeps the WAL in its slot meanwhile: watch its disk.',
  });
}

function oldPrimary(newest: number, server: ServerIdentity, where: string): DrError {
  return new DrError(
    'conflict',
    `this server is on timeline ${server.timeline}, and the archive is already on timeline ${newest}: it is an old primary`,
    {
      where,
      next: 'Keep applications away from this server. Point the URL to the server that was promoted; rebuild this one as its standby, or restore it from a backup.',
    },
  );
}

function rolledBack(end: Lsn, server: ServerIdentity): DrError {
  return new DrError(
    'conflict',
    `the WAL of this server ends at ${formatLsn(server.lsn)}, and the archive of the same timeline reaches ${formatLsn(end)}: the server was set back`,
    {
      where: `system ${server.systemId}, timeline ${server.timeline}`,
      next: 'If it was restored from a copy, promote it to a new timeline (restore with a recovery target, or create standby.signal, start and pg_promote), then take a new base backup. Nothing was overwritten.',
    },
  );
}
