import { forEachLimit } from '../base/concurrency.ts';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from '../vault/layout.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { EventOf } from './events.ts';
import { listRunIds, readJournal } from './journal.ts';
import { leaseOf } from './model.ts';
import { buildReport, type RenderedReport, type RunReport, readReport, storeReport } from './run-report.ts';
import type { RunState } from './state.ts';

/** An unfinished run older than this many others is history: nobody means it by "the same command". */
const LOOK_BACK = 20;
/** Runs whose report is looked for before another one begins. */
const REPORTS_BACK = 5;

export interface UnfinishedRun {
  readonly id: string;
  readonly started: EventOf<'run-started'>;
  readonly state: RunState;
}

/** Runs under one lease that have not finished, newest first. A journal that cannot be read stops nobody: it is logged. */
export async function findUnfinished(store: ObjectStore, lease: string, log: Log): Promise<UnfinishedRun[]> {
  const ids = (await listRunIds(store)).slice(0, LOOK_BACK);
  const found: UnfinishedRun[] = [];
  await forEachLimit(ids, 8, async (id) => {
    try {
      const { state } = await readJournal(store, id);
      const { started } = state;
      if (started && state.status !== 'finished' && leaseOf(started.mode) === lease) found.push({ id, started, state });
    } catch (error) {
      log.error(
        { run: id, vault: store.name, reason: messageOf(error) },
        'The journal of a run cannot be read; it is left alone.',
      );
    }
  });
  return found.sort((a, b) => (a.id < b.id ? 1 : -1));
}

/** One line of `dr runs`. */
export interface RunSummary {
  readonly id: string;
  /** Vault it was read from. */
  readonly vault: string;
  readonly state?: RunState;
  /** Why the journal cannot be read. */
  readonly error?: string;
}

/** The newest runs over all vaults, newest first, each from the vault that has the most of it. */
export async function listRuns(
  stores: readonly ObjectStore[],
  limit: number,
  signal?: AbortSignal,
): Promise<RunSummary[]> {
  const runs = new Map<string, RunSummary & { readonly entries: number }>();
  const idsOf = new Map<ObjectStore, readonly string[]>();
  await Promise.all(stores.map(async (store) => idsOf.set(store, await listRunIds(store, signal))));
  const newest = [...new Set([...idsOf.values()].flat())].sort().reverse().slice(0, limit);
  await forEachLimit(newest, 8, async (id) => {
    for (const store of stores) {
      if (!idsOf.get(store)?.includes(id)) continue;
      const known = runs.get(id);
      try {
        const { state, entries } = await readJournal(store, id, signal);
        if (!known || entries.length > known.entries)
          runs.set(id, { id, vault: store.name, state, entries: entries.length });
      } catch (error) {
        if (!known) runs.set(id, { id, vault: store.name, error: messageOf(error), entries: 0 });
      }
    }
  });
  return newest.flatMap((id) => {
    const run = runs.get(id);
    return run
      ? [
          {
            id: run.id,
            vault: run.vault,
            ...(run.state ? { state: run.state } : {}),
            ...(run.error ? { error: run.error } : {}),
          },
        ]
      : [];
  });
}

/**
 * Stores the report of a finished run whose executor died before it could: the newest runs are looked at. A vault that does not answer is
 * passed over.
 */
export async function storeMissingReports(
  stores: readonly ObjectStore[],
  render: (report: RunReport) => RenderedReport,
  log: Log,
  signal?: AbortSignal,
): Promise<void> {
  for (const store of stores) {
    try {
      for (const id of (await listRunIds(store, signal)).slice(0, REPORTS_BACK)) {
        if (await store.stat(layout.runReport(id, 'json'), { signal })) continue;
        const { state, entries, lastDigest } = await readJournal(store, id, signal);
        if (state.status !== 'finished') continue;
        const report = buildReport(id, entries, state, lastDigest);
        await storeReport(store, report, render(report));
        log.info({ run: id, vault: store.name }, 'the report of a run that had ended was missing; it is stored now');
      }
    } catch (error) {
      signal?.throwIfAborted();
      log.warn({ vault: store.name, reason: messageOf(error) }, 'the reports of earlier runs cannot be looked at here');
    }
  }
}

/** What earlier runs took, for forecasts: milliseconds by step id, newest first, from the reports of one vault. */
export async function stepHistory(
  store: ObjectStore,
  runbook: string,
  signal?: AbortSignal,
): Promise<Map<string, number[]>> {
  const reports: RunReport[] = [];
  for (const id of (await listRunIds(store, signal)).slice(0, LOOK_BACK)) {
    if ((await store.stat(layout.runReport(id, 'json'), { signal })) === undefined) continue;
    const report = await readReport(store, id, signal);
    if (report.runbook === runbook) reports.push(report);
  }
  const history = new Map<string, number[]>();
  for (const report of reports) {
    for (const { id, ms, status, attempts } of report.steps) {
      if (status !== 'done' && status !== 'undone') continue;
      if (ms !== undefined && attempts === 1) history.set(id, [...(history.get(id) ?? []), ms]);
    }
  }
  return history;
}

/** The median of what each step took in earlier runs, milliseconds by step id. */
export function forecastOf(history: ReadonlyMap<string, readonly number[]>): Map<string, number> {
  return new Map(
    [...history].flatMap(([id, values]) => {
      const middle = median(values);
      return middle === undefined ? [] : [[id, middle] as const];
    }),
  );
}

export function median(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
