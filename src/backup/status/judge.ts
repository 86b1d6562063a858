import { formatDuration } from '../../base/units.ts';
import { timeOfId } from '../../vault/layout.ts';
import { RECENT_MS } from '../catalog.ts';
import { lossesOf, type Manifest } from '../manifest.ts';
import type { Verification } from '../verified.ts';
import type { Alert, ResourceStatus, VaultPoint, WatchedResource } from './model.ts';

/** A schedule is missed when its interval has passed and a quarter more: the work itself takes its time, and starts with jitter. */
const SCHEDULE_SLACK = 1.25;

export interface Judgement {
  readonly status: ResourceStatus;
  readonly alerts: readonly Alert[];
  /** How many backups within retention each vault lacks. */
  readonly lacks: ReadonlyMap<string, number>;
}

/** Compares what was measured of one resource with what is promised. Pure. */
export function judgeResource(facts: {
  readonly resource: WatchedResource;
  /** Of the vaults that answered. */
  readonly points: readonly VaultPoint[];
  /** Vaults that are left when the region of the active site is lost. */
  readonly survivors: ReadonlySet<string>;
  readonly regions: ReadonlyMap<string, string>;
  readonly verification: Verification | undefined;
  /** The oldest backup in all vaults; asked for only where it was never verified. */
  readonly oldestId: string | undefined;
  readonly rtoMs: number;
  readonly nowMs: number;
}): Judgement {
  const { resource, points, survivors, regions, verification, nowMs } = facts;
  const alerts: Alert[] = [];
  const alert = (level: Alert['level'], message: string, next: string, vault?: string) => {
    alerts.push({ level, resource: resource.name, ...(vault === undefined ? {} : { vault }), message, next });
  };
  const surviving = points.filter(({ vault }) => survivors.has(vault));
  const recoveryPointMs = newestOf(surviving.map((point) => point.recoveryPointMs));
  // Clocks of two machines: a moment just ahead of ours is now.
  const rpoNowMs = recoveryPointMs === undefined ? undefined : Math.max(0, nowMs - recoveryPointMs);
  const objectiveMs = objectiveOf(resource);
  const newest = points.flatMap(({ backup }) => backup ?? []).sort((a, b) => (a.id < b.id ? 1 : -1))[0];

  if (surviving.length === 0) {
    const names = [...survivors].join(', ');
    alert(
      'broken',
      `what of ${resource.name} would survive cannot be measured: no answer from ${names}`,
      'Run `dr doctor`.',
    );
  } else if (rpoNowMs === undefined) {
    alert(
      'broken',
      `${resource.name} cannot be recovered: ${whyNoPoint(surviving)}`,
      `Take a backup: dr backup ${resource.name}.`,
    );
  } else if (objectiveMs !== undefined && rpoNowMs > objectiveMs) {
    const promise = `${formatDuration(objectiveMs)} ${resource.rpoMs === undefined ? 'follow from its schedule' : 'are promised'}`;
    const message = `${formatDuration(rpoNowMs)} of ${resource.name} would be lost now; ${promise}`;
    alert('broken', message, 'Look at the log of the daemon of the active site, and run `dr doctor`.');
  }
  for (const { vault, problem } of points) {
    if (problem)
      alert(
        'warning',
        `${resource.name} in vault ${vault}: ${problem.message}`,
        'Restore from another vault until it is mended.',
        vault,
      );
  }

  if (newest) alerts.push(...judgeLosses(newest));
  const overdueMs = resource.intervalMs === undefined ? undefined : resource.intervalMs * SCHEDULE_SLACK;
  if (resource.wal && overdueMs !== undefined && newest && nowMs - Date.parse(newest.finishedAt) > overdueMs) {
    const age = formatDuration(nowMs - Date.parse(newest.finishedAt));
    alert(
      'warning',
      `the newest base backup of ${resource.name} is ${age} old (${resource.schedule})`,
      `Take one: dr backup ${resource.name}.`,
    );
  }

  const crossRegion = isCrossRegion(points, regions, newest?.id, resource, objectiveMs);
  if (newest && !crossRegion && new Set(regions.values()).size > 1) {
    alert(
      'warning',
      `${resource.name} is not cross-region: its newest state lies in one region only`,
      'See which vault lacks it; the daemon copies it when the vault answers.',
    );
  }

  alerts.push(...judgeVerification(facts));
  const lacks = new Map(points.map(({ vault }) => [vault, missingIn(vault, points, resource.retentionMs, nowMs)]));
  return {
    status: {
      name: resource.name,
      kind: resource.kind,
      schedule: resource.schedule,
      ok: !alerts.some(({ level }) => level === 'broken'),
      recoveryPointMs,
      rpoNowMs,
      objectiveMs,
      newest: newest && {
        id: newest.id,
        finishedAtMs: Date.parse(newest.finishedAt),
        logicalBytes: newest.logicalBytes,
        storedBytes: newest.storedBytes,
        losses: lossesOf(newest).map(({ subject, detail }) => `${subject}: ${detail}`),
      },
      crossRegion,
      verified: verification,
      maxAgeMs: overdueMs,
      nextRunMs: resource.nextRun(nowMs),
      vaults: points,
    },
    alerts,
    lacks,
  };
}

/** A backup that lacks what could not be read is better than none, and worse than a whole one. */
function judgeLosses(newest: Manifest): Alert[] {
  const [first, ...more] = lossesOf(newest);
  if (!first) return [];
  const { resource, id } = newest;
  const others = more.length === 0 ? '' : `, and ${more.length} more`;
  const message = `the newest backup of ${resource} is degraded: ${first.subject} could not be read (${first.detail})${others}`;
  return [
    { level: 'warning', resource, message, next: `Mend that; \`dr backups ${resource}\` tells all that ${id} lacks.` },
  ];
}

/** What may be lost: as configured, else what the schedule gives; nothing is promised for what is backed up on change. */
function objectiveOf(resource: WatchedResource): number | undefined {
  return resource.rpoMs ?? (resource.intervalMs === undefined ? undefined : resource.intervalMs * SCHEDULE_SLACK);
}

function newestOf(moments: ReadonlyArray<number | undefined>): number | undefined {
  const known = moments.filter((moment) => moment !== undefined);
  return known.length === 0 ? undefined : Math.max(...known);
}

function whyNoPoint(points: readonly VaultPoint[]): string {
  const problem = points.find((point) => point.problem)?.problem;
  if (problem) return problem.message;
  return `${points.map(({ vault }) => vault).join(' and ')} ${points.length === 1 ? 'has' : 'have'} no backup of it`;
}

function isCrossRegion(
  points: readonly VaultPoint[],
  regions: ReadonlyMap<string, string>,
  newestId: string | undefined,
  resource: WatchedResource,
  objectiveMs: number | undefined,
): boolean {
  // Against the best vault, not against now: an archive that stands still in both regions is old, but in both.
  const best = Math.max(...points.map(({ recoveryPointMs }) => recoveryPointMs ?? 0));
  const whole = points.filter(({ backup, recoveryPointMs }) => {
    if (newestId === undefined || backup?.id !== newestId || recoveryPointMs === undefined) return false;
    return !resource.wal || objectiveMs === undefined || best - recoveryPointMs <= objectiveMs;
  });
  return new Set(whole.map(({ vault }) => regions.get(vault))).size > 1;
}

/** Recent backups that some other vault has, not counting those that retention is about to delete or has deleted elsewhere. */
function missingIn(vault: string, points: readonly VaultPoint[], retentionMs: number, nowMs: number): number {
  const own = new Set(points.find((point) => point.vault === vault)?.recentIds);
  const others = new Set(points.flatMap(({ recentIds }) => recentIds));
  const sinceMs = nowMs - Math.min(retentionMs, RECENT_MS);
  let missing = 0;
  for (const id of others) if (!own.has(id) && (timeOfId(id) ?? 0) > sinceMs) missing++;
  return missing;
}

function judgeVerification(facts: {
  readonly resource: WatchedResource;
  readonly verification: Verification | undefined;
  readonly oldestId: string | undefined;
  readonly rtoMs: number;
  readonly nowMs: number;
}): Alert[] {
  const { resource, verification, oldestId, rtoMs, nowMs } = facts;
  const { name } = resource;
  const again = `Look into it with dr verify ${name}.`;
  const broken = (message: string): Alert[] => [{ level: 'broken', resource: name, message, next: again }];
  if (verification && !verification.ok) {
    const failed = verification.checks.find(({ ok }) => !ok);
    const why = verification.failure ?? (failed ? `${failed.what}: ${failed.detail}` : 'a check failed');
    return broken(
      `the last verification of ${name} (${verification.finishedAt}, vault ${verification.vault}) failed: ${why}`,
    );
  }
  if (verification && verification.restoreMs > rtoMs) {
    const took = formatDuration(verification.restoreMs);
    return broken(`restoring ${name} took ${took} in its last verification; the RTO is ${formatDuration(rtoMs)}`);
  }
  if (resource.verifyEveryMs === undefined) return [];
  const sinceMs = verification
    ? Date.parse(verification.finishedAt)
    : oldestId === undefined
      ? undefined
      : timeOfId(oldestId);
  if (sinceMs === undefined || nowMs - sinceMs <= resource.verifyEveryMs * SCHEDULE_SLACK) return [];
  const age = formatDuration(nowMs - sinceMs);
  return broken(
    verification
      ? `${name} was last verified ${age} ago; every ${formatDuration(resource.verifyEveryMs)} is configured`
      : `${name} has never been verified since its first backup ${age} ago`,
  );
}
