import type { Clock } from '../../base/clock.ts';
import { DrError, messageOf } from '../../base/errors.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { type ActiveSiteView, readActiveSite } from '../active-site.ts';
import { readCare, type VaultCare } from '../care/care-record.ts';
import { readHolds } from '../retention/holds.ts';
import { readRetentionMark } from '../retention/mark.ts';
import { newestVerification } from '../verified.ts';
import { judgeResource } from './judge.ts';
import { judgeRetention } from './judge-retention.ts';
import { measureResource } from './measure.ts';
import type { Alert, CheckIntervals, ResourceStatus, Status, VaultStatus, WatchedResource } from './model.ts';
import { OldestBackups } from './oldest.ts';
import { judgeCare } from './vault-care.ts';

export interface StatusOptions {
  /** Every configured vault. */
  readonly stores: readonly ObjectStore[];
  readonly resources: readonly WatchedResource[];
  /** Region of each site, by name. */
  readonly siteRegions: Readonly<Record<string, string>>;
  /** The active site while no vault has a record of it. */
  readonly firstActive: string;
  readonly rtoMs: number;
  /** How often the vaults are looked at; nothing is said about a check that was not made when absent. */
  readonly vaultCheck?: CheckIntervals;
  /** The longest time between two runs of retention, milliseconds; nothing is said about one that did not happen when absent. */
  readonly retentionEveryMs?: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Measures how safe everything is, from what the vaults hold now and nothing else. A vault that does not answer is shown as such.
 * Throws `unreachable` when none answers.
 */
export async function measureStatus(options: StatusOptions): Promise<Status> {
  const { stores, resources, clock, signal } = options;
  const alerts: Alert[] = [];
  const [active, holds] = await Promise.all([findActive(options, alerts), readHolds(stores, signal)]);
  const region = options.siteRegions[active.site];
  const outside = stores.filter((store) => store.region !== region);
  // With all copies in one region (which the configuration has to allow in writing) there is nothing else to measure.
  const survivors = new Set(outside.length > 0 ? outside : stores);
  const problems = new Map<string, string>();
  for (const { vault, reason } of holds.unknown) problems.set(vault, reason);
  const nowMs = clock.now();
  const measured: ResourceStatus[] = [];
  const lacks = new Map<string, number>();
  const oldest = new OldestBackups(
    resources.map(({ name }) => name),
    signal,
  );
  for (const resource of resources) {
    const answering = stores.filter(({ name }) => !problems.has(name));
    const points = await Promise.all(
      answering.map(async (store) => await measureResource(store, resource, nowMs, signal)),
    );
    for (const { vault, problem } of points) if (problem?.kind === 'vault') problems.set(vault, problem.message);
    const readable = answering.filter(({ name }) => !problems.has(name));
    const verification = await newestVerification(readable, resource.name, nowMs, signal);
    const judged = judgeResource({
      resource,
      points: points.filter(({ vault }) => !problems.has(vault)),
      survivors: new Set([...survivors].map(({ name }) => name)),
      regions: new Map(stores.map((store) => [store.name, store.region])),
      verification,
      oldestId: verification ? undefined : await oldest.in(readable, resource.name),
      rtoMs: options.rtoMs,
      nowMs,
    });
    measured.push(judged.status);
    alerts.push(...judged.alerts);
    for (const [vault, number] of judged.lacks) lacks.set(vault, (lacks.get(vault) ?? 0) + number);
  }
  if (stores.length > 0 && problems.size === stores.length) throw noVault(problems);
  const readable = stores.filter(({ name }) => !problems.has(name));
  const cares = new Map<string, VaultCare>();
  for (const { name } of stores) {
    const care = await readCare(readable, name, signal);
    if (care) cares.set(name, care);
  }
  const vaults = stores.map(
    (store): VaultStatus => ({
      vault: store.name,
      region: store.region,
      location: store.location,
      problem: problems.get(store.name),
      survives: survivors.has(store),
      lacks: lacks.get(store.name) ?? 0,
      care: cares.get(store.name),
    }),
  );
  const intervals = options.vaultCheck ?? { checkEveryMs: undefined, readEveryMs: undefined };
  alerts.unshift(...vaults.flatMap(vaultAlerts));
  for (const { vault, care } of vaults) {
    const checked = care?.check !== undefined && care.read !== undefined;
    const oldestId = checked ? undefined : await oldest.in(readable.filter(({ name }) => name === vault));
    alerts.push(...judgeCare({ vault, care, intervals, oldestId, nowMs }));
  }
  for (const hold of holds.active) {
    const message = `nothing is deleted anywhere: hold ${hold.id} by ${hold.by} since ${hold.at}: ${hold.reason}`;
    alerts.push({ level: 'warning', message, next: 'When the incident is over: `dr hold clear`.' });
  }
  const mark = await readRetentionMark(readable, signal);
  const oldestId = mark?.done ? undefined : await oldest.in(readable);
  const retention = judgeRetention({ everyMs: options.retentionEveryMs, mark, oldestId, nowMs });
  alerts.push(...retention.alerts);
  const ok = !alerts.some(({ level }) => level === 'broken');
  return {
    ok,
    at: nowMs,
    active: { ...active, region },
    vaults,
    resources: measured,
    holds: holds.active,
    retention: retention.status,
    alerts,
  };
}

async function findActive(
  options: StatusOptions,
  alerts: Alert[],
): Promise<{ site: string; recorded: boolean; since?: string; by?: string }> {
  let view: ActiveSiteView;
  try {
    view = await readActiveSite(options.stores, options.signal);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    if (error instanceof DrError && error.kind === 'unreachable') throw error;
    alerts.push({
      level: 'broken',
      message: `it cannot be told which site is active: ${messageOf(error)}`,
      ...(error instanceof DrError && error.next !== undefined ? { next: error.next } : {}),
    });
    return { site: options.firstActive, recorded: false };
  }
  if (!view.active) return { site: options.firstActive, recorded: false };
  const { site, since, by } = view.active;
  return { site, recorded: true, since, by };
}

function vaultAlerts({ vault, problem, survives, lacks }: VaultStatus): Alert[] {
  if (problem !== undefined) {
    const weight = survives ? '; what it holds does not count' : '';
    return [
      {
        level: 'warning',
        vault,
        message: `vault ${vault} cannot be read: ${problem}${weight}`,
        next: 'Run `dr doctor` to see what it refuses.',
      },
    ];
  }
  if (lacks === 0) return [];
  const message = `vault ${vault} lacks ${lacks === 1 ? 'one backup' : `${lacks} backups`} that other vaults have`;
  return [
    {
      level: 'warning',
      vault,
      message,
      next: 'The daemon copies them when the vaults answer; look at its log if it does not.',
    },
  ];
}

function noVault(problems: ReadonlyMap<string, string>): DrError {
  return new DrError('unreachable', 'no vault could be read, so nothing can be said about recovery points', {
    where: [...problems].map(([vault, reason]) => `${vault}: ${reason}`).join('; '),
    next: 'Run `dr doctor` to see what each vault refuses.',
  });
}
