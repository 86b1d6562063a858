import { messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { RetentionReport } from './collect.ts';
import { writeRetentionMark } from './mark.ts';

/** Tells the vaults what has become of a retention that was applied, so that one that does not happen is noticed everywhere. */
export async function markOutcome(
  stores: readonly ObjectStore[],
  report: RetentionReport,
  by: { readonly nowMs: number; readonly site: string },
  log: Log,
  signal?: AbortSignal,
): Promise<void> {
  const at = new Date(by.nowMs).toISOString();
  const why = whyBlocked(report);
  const freedBytes = report.vaults.reduce((sum, vault) => sum + vault.freedBytes, 0);
  const news =
    why === undefined ? { done: { at, site: by.site, freedBytes } } : { blocked: { at, site: by.site, why } };
  await writeRetentionMark(stores, news, log, signal);
}

/** Why retention did not get through everywhere; undefined when it did. */
export function whyBlocked({ held, vaults }: RetentionReport): string | undefined {
  if (held !== undefined) return held;
  const stopped = vaults.find(({ blocked, error }) => blocked !== undefined || error !== undefined);
  return stopped && `vault ${stopped.vault}: ${stopped.blocked ?? messageOf(stopped.error)}`;
}
