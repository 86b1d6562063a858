import { leaseSomewhere } from '../backup/backup-resource.ts';
import { careOf, readCare, type VaultCare, writeCare } from '../backup/care/care-record.ts';
import { examine, type VaultCheck } from '../backup/care/check-vault.ts';
import { repairVault, type VaultRepair } from '../backup/care/repair-vault.ts';
import { sampleOfTurn, turnOfDay } from '../backup/care/sample.ts';
import type { BackupContext } from '../backup/context.ts';
import type { RetentionPolicy } from '../backup/retention/retention.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { worstIntervalMs } from '../config/cadence.ts';
import type { Cadence, VaultCheckConfig } from '../config/types.ts';
import type { VaultDocuments } from '../vault/documents.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Job } from './job.ts';
import type { RoleKeeper } from './role.ts';

export interface VaultCheckJobsOptions {
  readonly role: Pick<RoleKeeper, 'state'>;
  readonly context: BackupContext;
  readonly config: VaultCheckConfig;
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  /** The vaults themselves, not guarded: what is wrong with a marker is to be found and mended as well. */
  readonly bare: readonly ObjectStore[];
  /** The vault of this site: the others are looked at here only when their own sites do not. */
  readonly ownVault: string;
  /** What every vault carries for people. */
  readonly documents: () => Promise<VaultDocuments>;
}

/** How many intervals another site's vault may go without check until this site makes it. */
const PATIENCE = 1.5;

export function checkJobName(vault: string): string {
  return `check ${vault}`;
}

export function readJobName(vault: string): string {
  return `read ${vault}`;
}

/**
 * For each vault: a look at every object, and a sample of the content compared with its SHA-256, another one each time until all was
 * read. What is found is mended from the other vaults at once. Both are told to every vault, so that any site sees it.
 */
export function vaultCheckJobs(options: VaultCheckJobsOptions): Job[] {
  const { schedule, readData, sample } = options.config;
  return options.bare.flatMap((store) => [
    ...(schedule ? [job(options, store, schedule, undefined)] : []),
    ...(readData ? [job(options, store, readData, sample)] : []),
  ]);
}

function job(options: VaultCheckJobsOptions, store: ObjectStore, cadence: Cadence, share: number | undefined): Job {
  const { role, context, ownVault } = options;
  const { stores, clock } = context;
  const name = share === undefined ? checkJobName(store.name) : readJobName(store.name);
  const log = context.log.child({ job: name });
  const doneAt = (care: VaultCare | undefined) => (share === undefined ? care?.check : care?.read)?.finishedAt;
  const lastDone = async (signal: AbortSignal) => {
    const at = doneAt(await readCare(stores, store.name, signal));
    if (at === undefined) return 'never';
    const doneMs = Date.parse(at);
    const isPatient = store.name !== ownVault && clock.now() - doneMs < PATIENCE * worstIntervalMs(cadence);
    return isPatient ? 'not-due' : doneMs;
  };
  return {
    name,
    lane: 'check',
    lease: leaseName(store),
    cadence,
    seed: name,
    // A vault that is damaged beyond repair is so in a minute as well: what is tried again is one that did not answer.
    retries: 1,
    enabled: () => role.state.role !== 'unknown',
    lastDone,
    run: async (signal, reason) => {
      if (reason === 'scheduled' && (await lastDone(signal)) === 'not-due') return { leftTo: 'the site of the vault' };
      const lease = await leaseSomewhere({ ...context, signal }, leaseName(store), `check of vault ${store.name}`);
      const both = AbortSignal.any([signal, lease.signal]);
      try {
        return await checkAndMend(options, store, share, log, both);
      } catch (error) {
        throw lease.signal.aborted && !signal.aborted ? lease.signal.reason : error;
      } finally {
        await lease.release();
      }
    },
  };
}

function leaseName(store: ObjectStore): string {
  return `check-${store.name}`;
}

async function checkAndMend(
  options: VaultCheckJobsOptions,
  store: ObjectStore,
  share: number | undefined,
  log: Log,
  signal: AbortSignal,
): Promise<object> {
  const { context, config, policies, documents } = options;
  const { stores, clock, site } = context;
  const others = stores.filter(({ name }) => name !== store.name);
  const before = await readCare(stores, store.name, signal);
  // The turn after the last one; who cannot know it (the hint is lost) goes by the day.
  const read = share === undefined ? undefined : { share, turn: turnAfter(before, clock.now()) };
  const data = read && sampleOfTurn(read.share, read.turn);
  const also = new Set(before?.named.map(({ key }) => key));
  const common = { store, others, policies, data, also, documents: await documents(), clock, signal };
  const found = await examine(common);
  const { check } = found;
  let repair: VaultRepair | undefined;
  if (check.problems.length > 0) {
    tellFound(log, check);
    if (config.repair && others.length > 0) repair = await repairVault({ ...common, found, log });
  }
  const nowMs = clock.now();
  const care = careOf({ check, repair, read, before, site, nowMs });
  await writeCare(stores, care, log, signal);
  const facts = { objects: check.objects, readBytes: check.readBytes, foreign: care.check.foreign };
  const mended = repair && {
    mended: repair.mended.length,
    backups: repair.copied.length,
    walObjects: repair.walCopied,
  };
  if (care.problems > 0) throw stillWrong(store, care, repair);
  return { ...facts, ...mended };
}

function turnAfter(before: VaultCare | undefined, nowMs: number): number {
  return before?.read ? before.read.turn + 1 : turnOfDay(nowMs);
}

function tellFound(log: Log, { vault, problems, moreProblems }: VaultCheck): void {
  for (const { state, key, why, touches } of problems.slice(0, 100)) {
    log.warn({ vault, state, key, why, touches }, 'the check has found an object that is not as it should be');
  }
  const more = moreProblems + Math.max(0, problems.length - 100);
  if (more > 0) log.warn({ vault, more }, 'the check has found more objects that are not as they should be');
}

function stillWrong(store: ObjectStore, care: VaultCare, repair: VaultRepair | undefined): DrError {
  const [first] = care.named;
  const number = care.problems === 1 ? 'one object' : `${care.problems} objects`;
  const lost = repair && repair.losses.length > 0 ? `; ${repair.losses.map(({ text }) => text).join('; ')}` : '';
  const mended = repair ? ' and could not be mended' : '';
  return new DrError(
    'corrupt',
    `in vault ${store.name} ${number} are missing or damaged${mended}: ${first?.key}: ${first?.why}${lost}`,
    {
      where: store.location,
      next: `Run \`dr vault repair ${store.name}\` to see each of them and what it touches; take a new backup of what is lost.`,
      retryable: false,
    },
  );
}
