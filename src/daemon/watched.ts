import type { ResourceKind } from '../backup/manifest.ts';
import type { RetentionPolicy } from '../backup/retention/retention.ts';
import type { CheckIntervals, WatchedResource } from '../backup/status/model.ts';
import { nextRunAfter, worstIntervalMs } from '../config/cadence.ts';
import type { Cadence, Config, DatabaseConfig, DirectoryConfig, ObjectsConfig } from '../config/types.ts';

/** Every resource of the configuration with what is promised for it, as the measuring of the status wants it. */
export function watchedResources(config: Config): WatchedResource[] {
  const verifyEveryMs = config.verification.schedule && worstIntervalMs(config.verification.schedule);
  const common = (name: string, schedule: Cadence) => ({
    name,
    schedule: schedule.text,
    intervalMs: schedule.kind === 'on-change' ? undefined : worstIntervalMs(schedule),
    verifyEveryMs,
    nextRun: (nowMs: number) => nextRunAfter(schedule, nowMs, name),
  });
  const databases = Object.values(config.databases).map(
    (database): WatchedResource => ({
      ...common(database.name, database.schedule),
      kind: 'database',
      rpoMs: database.rpoMs,
      retentionMs: database.retentionMs,
      wal: database.wal.enabled,
    }),
  );
  const { data, configuration, objects } = config;
  const directories = [data, configuration, objects]
    .flatMap((section) => Object.values(section))
    .map(
      (directory): WatchedResource => ({
        ...common(directory.name, directory.schedule),
        kind: directory.kind,
        rpoMs: directory.rpoMs,
        retentionMs: directory.retentionMs,
        wal: false,
      }),
    );
  return [...databases, ...directories];
}

/** The longest times between two checks of a vault, milliseconds; undefined = not on schedule. */
export function checkIntervals({ daemon }: Config): CheckIntervals {
  const { schedule, readData } = daemon.vaultCheck;
  return { checkEveryMs: schedule && worstIntervalMs(schedule), readEveryMs: readData && worstIntervalMs(readData) };
}

/** How long backups of each resource are kept. */
export function retentionPolicies(config: Config): ReadonlyMap<string, RetentionPolicy> {
  const policies = new Map<string, RetentionPolicy>();
  const add = (
    kind: ResourceKind,
    { name, retentionMs, keep }: DatabaseConfig | DirectoryConfig | ObjectsConfig,
    more: Partial<RetentionPolicy> = {},
  ) => {
    const { last: keepAtLeast, ...periods } = keep;
    policies.set(name, { kind, retentionMs, keepAtLeast, periods, ...more });
  };
  for (const database of Object.values(config.databases))
    add('database', database, database.wal.enabled ? {} : { basesOnly: true });
  for (const section of [config.data, config.configuration, config.objects]) {
    for (const each of Object.values(section)) add(each.kind, each);
  }
  return policies;
}
