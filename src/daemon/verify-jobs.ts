import { leaseSomewhere } from '../backup/backup-resource.ts';
import { newestBackup, oldestBackupId } from '../backup/catalog.ts';
import type { BackupContext } from '../backup/context.ts';
import type { ResourceKind } from '../backup/manifest.ts';
import { newestVerification, type Verification } from '../backup/verified.ts';
import { DrError } from '../base/errors.ts';
import { previousDue, worstIntervalMs } from '../config/cadence.ts';
import type { Cadence, Config } from '../config/types.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { ObjectStore } from '../vault/store.ts';
import { readVerificationOutcome, type VerificationOutcome } from './command-results.ts';
import type { Executor } from './executor.ts';
import type { Job } from './job.ts';
import type { RoleKeeper } from './role.ts';
import { watchedResources } from './watched.ts';

export interface VerifyJobsOptions {
  /** Where backups are restored for it. */
  readonly executor: Executor;
  readonly config: Config;
  readonly role: RoleKeeper;
  readonly context: BackupContext;
  readonly keyRing: KeyRing;
  /** Vaults in the order in which a recovery would use them now. */
  stores(): readonly ObjectStore[];
  /** Restores the newest recovery point to a scratch place, checks it, and keeps the report in the vaults. */
  verify(
    resource: { readonly name: string; readonly kind: ResourceKind },
    store: ObjectStore,
    signal: AbortSignal,
  ): Promise<Verification>;
}

/** The active site leaves verification to the other ones, unless nobody has done it for this many intervals. */
const PATIENCE = 1.5;

/**
 * False without the identity that opens the vaults: verification is then the part of a site that has it. Whether KMS opens them is found
 * out when it is asked.
 */
export function canVerify(config: Config, keyRing: KeyRing): boolean {
  return config.encryption === 'none' || !keyRing.isEmpty || config.encryption.kms !== undefined;
}

/** True where KMS is what opens the vaults and these credentials may only wrap: as it should be where backups are written. */
async function mayOnlyWrap(
  { config, keyRing }: VerifyJobsOptions,
  store: ObjectStore,
  resource: string,
): Promise<boolean> {
  if (config.encryption === 'none' || !keyRing.isEmpty) return false;
  const keyId = (await newestBackup(store, resource))?.index.keyId;
  if (keyId === undefined) return false;
  try {
    await keyRing.open(store, keyId);
    return false;
  } catch (error) {
    if (error instanceof DrError && error.kind === 'denied') return true;
    throw error;
  }
}

/** One job for each resource: restores its newest recovery point to a scratch place and checks it. */
export function verifyJobs(options: VerifyJobsOptions): Job[] {
  const { config, keyRing } = options;
  const { schedule } = config.verification;
  if (schedule === undefined || !canVerify(config, keyRing)) return [];
  return watchedResources(config).map(({ name, kind }) => verifyJob(options, name, kind, schedule));
}

function verifyJob(options: VerifyJobsOptions, resource: string, kind: ResourceKind, schedule: Cadence): Job {
  const { role, context, stores } = options;
  const log = context.log.child({ resource });
  const seed = `verify ${resource}`;
  const enabled = () => role.state.role !== 'unknown';
  const lastDone = async (signal: AbortSignal) => {
    const readable = await vaultsWithBackup(stores(), resource, signal);
    if (readable.length === 0) return 'not-due';
    const newest = await newestVerification(readable, resource, context.clock.now(), signal);
    if (!newest) return 'never';
    const doneMs = Date.parse(newest.startedAt);
    // The active site leaves it to the others, until they have let a slot go by.
    const patient = role.state.role === 'active' && context.clock.now() - doneMs < PATIENCE * worstIntervalMs(schedule);
    return patient ? 'not-due' : doneMs;
  };
  return {
    name: seed,
    lane: 'verify',
    lease: `verify-${resource}`,
    cadence: schedule,
    // A backup that does not restore will not restore in a minute: what is tried again is a vault that was away.
    retries: 1,
    seed,
    enabled,
    lastDone,
    run: async (signal, reason) => {
      if (reason === 'scheduled' && role.state.role === 'active' && (await lastDone(signal)) === 'not-due') {
        return { leftTo: 'the sites that stand by' };
      }
      const [store] = await vaultsWithBackup(stores(), resource, signal);
      if (!store) return { nothing: 'there is no backup yet' };
      if (await mayOnlyWrap(options, store, resource)) return { leftTo: 'a site that has an identity or kms:Decrypt' };
      const nowMs = context.clock.now();
      return await options.executor.run(
        {
          verb: 'verify',
          resource,
          occurrenceMs: reason === 'asked' ? nowMs : (previousDue(schedule, nowMs, seed) ?? nowMs),
          args: ['--vault', store.name],
          wanted: enabled,
          told: (result) => told(readVerificationOutcome(result, resource)),
          here: async (until) =>
            await verify(options, { ...context, log, signal: until }, { name: resource, kind }, store),
        },
        signal,
      );
    },
  };
}

async function verify(
  options: VerifyJobsOptions,
  context: BackupContext,
  resource: { readonly name: string; readonly kind: ResourceKind },
  store: ObjectStore,
): Promise<object> {
  const { name } = resource;
  const lease = await leaseSomewhere(context, `verify-${name}`, `verification of ${name}`);
  try {
    const until = context.signal ? AbortSignal.any([context.signal, lease.signal]) : lease.signal;
    return told(await options.verify(resource, store, until));
  } finally {
    await lease.release();
  }
}

function told({ resource, ok, failure, backupId, vault, recoveredTo, bytes, restoreMs }: VerificationOutcome): object {
  if (ok) return { backup: backupId, vault, recoveredTo, bytes, restoreMs };
  throw new DrError('check-failed', `the verification of ${resource} failed: ${failure}`, {
    where: `backup ${backupId} in vault ${vault}`,
    next: `Look at the report with \`dr backups ${resource}\`; verify another vault with \`dr verify ${resource} --vault NAME\`, and take a new backup.`,
  });
}

/** Vaults that answer and have a backup of the resource, in the order given. Throws when none answers. */
async function vaultsWithBackup(
  stores: readonly ObjectStore[],
  resource: string,
  signal: AbortSignal,
): Promise<ObjectStore[]> {
  const found: ObjectStore[] = [];
  const failures: unknown[] = [];
  for (const store of stores) {
    try {
      if ((await oldestBackupId(store, resource, signal)) !== undefined) found.push(store);
    } catch (error) {
      failures.push(error);
    }
    signal.throwIfAborted();
  }
  if (stores.length > 0 && failures.length === stores.length) throw failures[0];
  return found;
}
