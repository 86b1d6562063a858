import { careOf, readCare, writeCare } from '../backup/care/care-record.ts';
import { examineVault, type VaultCheck } from '../backup/care/check-vault.ts';
import type { VaultProblem } from '../backup/care/check-vault-findings.ts';
import { repairVault, type VaultRepair } from '../backup/care/repair-vault.ts';
import { everything, sampleOfSeed } from '../backup/care/sample.ts';
import { listVaults } from '../backup/care/vault-contents.ts';
import { DrError, type ErrorKind, isAbort } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import type { Config } from '../config/types.ts';
import { retentionPolicies } from '../daemon/watched.ts';
import { reportError } from '../report/error.ts';
import { renderVaultChecks, renderVaultList, renderVaultRepairs } from '../report/vault.ts';
import { vaultDocuments } from '../vault/documents.ts';
import { requireOneSystem } from '../vault/roster.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { VaultOptions } from './options.ts';
import { openWorld, type World } from './world.ts';

type CareOptions = Extract<VaultOptions, { action: 'check' | 'repair' }>;

/** `dr vault list | check | repair | enrol`. */
export async function run(context: CommandContext, options: VaultOptions): Promise<CommandResult> {
  const { config } = await context.loadConfig();
  if (options.action !== 'list' && options.name !== undefined) requireVault(config, options.name);
  switch (options.action) {
    case 'list':
      return await list(context);
    case 'check':
      return await check(context, config, options);
    case 'repair':
      return await repair(context, config, options);
    case 'enrol':
      return await enrol(context, options.name);
  }
}

async function list(context: CommandContext): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const found = await listVaults(world.stores, context.signal);
  const isAway = found.vaults.every(({ problem }) => problem !== undefined);
  return {
    data: found,
    text: renderVaultList(found, context.clock.now()),
    ...(isAway ? { failure: 'unreachable' as const } : {}),
  };
}

async function check(context: CommandContext, config: Config, options: CareOptions): Promise<CommandResult> {
  const { readData, share, seed = new Date(context.clock.now()).toISOString().slice(0, 10) } = options;
  const checks: VaultCheck[] = [];
  const failed = await forVaults(context, config, options.name, async (common, { keyRing }) => {
    const opens = readData && (config.encryption === 'none' || !keyRing.isEmpty);
    const data = readData ? sampleOfSeed(share, seed) : undefined;
    checks.push(await examineVault({ ...common, data, keyRing: opens ? keyRing : undefined }));
  });
  const failure = failureOf(checks, failed);
  return {
    data: {
      readData,
      ...(share < 1 ? { share, seed } : {}),
      vaults: checks.map(plainCheck),
      failed: failed.map(plainFailed),
    },
    text: [renderVaultChecks(checks, { readData, share, seed }), renderFailed(failed)].filter(Boolean).join('\n\n'),
    ...(failure ? { failure } : {}),
  };
}

async function repair(context: CommandContext, config: Config, options: CareOptions): Promise<CommandResult> {
  const repairs: VaultRepair[] = [];
  const failed = await forVaults(context, config, options.name, async (common, { site, stores }) => {
    const { clock, log, signal } = context;
    const repair = await repairVault({ ...common, data: everything, log });
    repairs.push(repair);
    const before = await readCare(stores, repair.vault, signal);
    // The turn of the samples goes on where it was.
    const read = { share: 1, turn: before?.read?.turn ?? 0 };
    const care = careOf({ check: repair.check, repair, read, before, site, nowMs: clock.now() });
    await writeCare(stores, care, log, signal);
  });
  const failure = failureOf(
    repairs.map(({ check }) => check),
    failed,
  );
  const plain = repairs.map(({ failed, losses, check, ...rest }) => ({
    ...rest,
    losses,
    failed: failed.map(({ key, error }) => ({ key, error: reportError(error) })),
    check: plainCheck(check),
  }));
  return {
    data: { vaults: plain, failed: failed.map(plainFailed) },
    text: [renderVaultRepairs(repairs), renderFailed(failed)].filter(Boolean).join('\n\n'),
    ...(failure ? { failure } : {}),
  };
}

async function enrol(context: CommandContext, name: string): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'write', replaceVault: name });
  const store = world.store(name);
  // Still away: then this says why.
  await store.folders('');
  const text = `Vault ${name} at ${store.location} is ready. The daemon copies into it what the other vaults hold; \`dr status\` shows how far it is.`;
  return { data: { vault: name, location: store.location }, text };
}

/** A vault that could not be worked on. */
interface FailedVault {
  readonly vault: string;
  readonly error: DrError;
}

/** Damage says more than a vault that does not answer. */
function failureOf(checks: readonly VaultCheck[], failed: readonly FailedVault[]): ErrorKind | undefined {
  return checks.some(({ problems }) => problems.length > 0) ? 'corrupt' : failed[0]?.error.kind;
}

function renderFailed(failed: readonly FailedVault[]): string {
  const text = ({ vault, error }: FailedVault) =>
    `Vault ${vault}: STOPPED. ${error.message}. ${error.next ?? ''}`.trimEnd();
  return failed.map((vault) => redact(text(vault))).join('\n');
}

function plainFailed({ vault, error }: FailedVault): object {
  return { vault, error: reportError(error) };
}

/** Works on one vault or on all, one after the other; of several, one that fails does not stop the others. The vault itself is opened as it is: its marker may be what is damaged. */
async function forVaults(
  context: CommandContext,
  config: Config,
  name: string | undefined,
  work: (common: Parameters<typeof examineVault>[0], world: World) => Promise<void>,
): Promise<readonly FailedVault[]> {
  const { clock, signal, onProgress } = context;
  await using world: World = await openWorld(context, { vaults: 'read' });
  // What one vault lacks comes from the others: they must be of one system.
  await requireOneSystem(world.bare, { signal });
  const documents = await vaultDocuments();
  const policies = retentionPolicies(config);
  const failed: FailedVault[] = [];
  for (const store of world.bare) {
    if (name !== undefined && store.name !== name) continue;
    try {
      const others = world.stores.filter((other) => other.name !== store.name);
      await work({ store, others, policies, documents, clock, onProgress, signal }, world);
    } catch (error) {
      if (name !== undefined || signal.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      failed.push({ vault: store.name, error });
    }
  }
  return failed;
}

function requireVault(config: Config, name: string): void {
  if (Object.hasOwn(config.vaults, name)) return;
  throw new DrError('not-found', `there is no vault "${name}"`, {
    where: config.source.path,
    next: `Name one of: ${Object.keys(config.vaults).join(', ')}.`,
  });
}

function plainCheck({ problems, ...rest }: VaultCheck): object {
  return { ...rest, problems: problems.map(plainProblem) };
}

function plainProblem({ state, kind, key, why, touches }: VaultProblem): object {
  return { state, kind, key, why, touches };
}
