import { copyMissing } from '../backup/care/repair.ts';
import type { BackupContext } from '../backup/context.ts';
import { gatherOwnConfiguration, keepOwnConfiguration } from '../backup/own-configuration.ts';
import { applyRetention } from '../backup/retention/collect.ts';
import { RETENTION_LEASE } from '../backup/retention/collect-check.ts';
import { readRetentionMark } from '../backup/retention/mark.ts';
import { markOutcome } from '../backup/retention/outcome.ts';
import type { RetentionPolicy } from '../backup/retention/retention.ts';
import { DrError } from '../base/errors.ts';
import type { Cadence } from '../config/types.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Job } from './job.ts';
import { copyMissingWal } from './repair-wal.ts';
import type { RoleKeeper } from './role.ts';

export interface CareJobsOptions {
  readonly role: RoleKeeper;
  readonly context: BackupContext;
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  /** Of retention; undefined: it is done elsewhere. */
  readonly schedule: Cadence | undefined;
  /** Names of the databases: whose WAL is being archived by somebody is told by their heartbeats. */
  readonly databases: readonly string[];
  /** The configuration of dr itself: its file, as read, and the folder of its runbooks. */
  readonly own: { readonly path: string; readonly text: string; readonly runbooks: string };
}

export const RETENTION_JOB = 'retention';
export const OWN_CONFIGURATION_JOB = 'own configuration';
/** Runbooks may change while the daemon runs; looking costs one listing in each vault. */
const OWN_LOOK: Cadence = { kind: 'every', everyMs: 3_600_000, text: 'every hour' };

export function repairJobName(vault: string): string {
  return `repair ${vault}`;
}

/**
 * Retention and repair: done by any site, whichever gets the lease. Not before the role is known, thus some vault has answered. The
 * configuration of dr is kept by the active site.
 */
export function careJobs(options: CareJobsOptions): Job[] {
  return [
    ...(options.schedule === undefined ? [] : [retentionJob(options, options.schedule)]),
    ownConfigurationJob(options),
    ...options.context.stores.map((store) => repairJob(options, store)),
  ];
}

function retentionJob({ role, context, policies }: CareJobsOptions, schedule: Cadence): Job {
  const { stores, clock, site } = context;
  const log = context.log.child({ job: RETENTION_JOB });
  return {
    name: RETENTION_JOB,
    lane: 'care',
    lease: RETENTION_LEASE,
    cadence: schedule,
    // Two sites do not begin at the same moment.
    seed: `retention ${site}`,
    enabled: () => role.state.role !== 'unknown',
    lastDone: async (signal) => {
      const mark = await readRetentionMark(stores, signal);
      return mark?.done ? Date.parse(mark.done.at) : 'never';
    },
    run: async (signal) => {
      const report = await applyRetention({ stores, policies, clock, log, signal });
      await markOutcome(stores, report, { nowMs: clock.now(), site }, log, signal);
      const failed = report.vaults.find(({ error }) => error !== undefined);
      if (failed) throw failed.error;
      const { held } = report;
      if (held !== undefined) {
        log.warn({ why: held }, 'retention deletes nothing');
        return { held };
      }
      const freed = report.vaults.map(({ vault, removals, freedBytes }) => ({
        vault,
        objects: removals.reduce((sum, { objects }) => sum + objects, 0),
        bytes: freedBytes,
      }));
      return { freed };
    },
  };
}

/** So that one vault and an identity are enough to begin anew (`dr init --from`). */
function ownConfigurationJob({ role, context, own }: CareJobsOptions): Job {
  return {
    name: OWN_CONFIGURATION_JOB,
    lane: 'configuration',
    cadence: OWN_LOOK,
    seed: OWN_CONFIGURATION_JOB,
    enabled: () => role.state.role === 'active',
    // Which vault has which is only seen by looking, so the first look is always due.
    lastDone: async () => 'never',
    run: async (signal) => {
      const gathered = await gatherOwnConfiguration(own.text, own.runbooks);
      const { stored, lost } = await keepOwnConfiguration({ ...context, signal }, { ...gathered, source: own.path });
      return { stored, away: lost.map(({ vault }) => vault) };
    },
  };
}

/** Gives one vault what it lacks. Asked for when it comes back, when a backup did not reach it, and when measuring finds a gap. */
function repairJob({ role, context, policies, databases }: CareJobsOptions, to: ObjectStore): Job {
  const { stores, clock } = context;
  const name = repairJobName(to.name);
  const log = context.log.child({ job: name });
  return {
    name,
    lane: 'care',
    cadence: undefined,
    seed: '',
    enabled: () => role.state.role !== 'unknown' && stores.length > 1,
    lastDone: async () => 'not-due',
    run: async (signal) => {
      const from = stores.filter((store) => store !== to);
      const { copied, failed, records, failedRecords } = await copyMissing({ from, to, policies, clock, log, signal });
      const wal = await copyMissingWal({ from, to, databases, clock, log, signal });
      const [lacking] = failed;
      if (lacking) {
        throw new DrError(
          'corrupt',
          `vault ${to.name} still lacks ${failed.length === 1 ? 'one backup' : `${failed.length} backups`} of ${lacking.resource} (${lacking.id})`,
          {
            where: to.location,
            next: 'Look at the cause: the copies in the other vaults are damaged; `dr verify` says which backups restore.',
            cause: lacking.error,
            retryable: false,
          },
        );
      }
      const bytes = copied.reduce((sum, backup) => sum + backup.bytes, 0);
      return { backups: copied.length, bytes, records, failedRecords: failedRecords.length, wal };
    },
  };
}
