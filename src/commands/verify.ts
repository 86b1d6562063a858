import { leaseSomewhere } from '../backup/backup-resource.ts';
import { newestVerification, type Verification } from '../backup/verified.ts';
import { verifyResource } from '../backup/verify-resource.ts';
import { DrError } from '../base/errors.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { formatRate, formatTime } from '../report/values.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { VerifyOptions } from './options.ts';
import { type ConfiguredResource, resourcesNamed, roleAndDatabase } from './resources.ts';
import { openWorld, type World } from './world.ts';

/** `dr verify`: restores the newest recovery points to a scratch place, checks them and keeps the reports in the vaults. */
export async function run(context: CommandContext, options: VerifyOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'write' });
  const resources = resourcesNamed(world.config, options.resource === undefined ? [] : [options.resource]);
  const store = options.vault === undefined ? await vaultOfSite(world) : world.store(options.vault);
  const searchPath = (context.env.PATH ?? '').split(':').filter((directory) => directory !== '');
  const reports: Verification[] = [];
  for (const resource of resources) {
    const lease = await leaseSomewhere(
      world.backupContext(world.site),
      `verify-${resource.name}`,
      `verification of ${resource.name}`,
    );
    try {
      const { ifNoneSinceMs: sinceMs } = options;
      const before = sinceMs === undefined ? undefined : await verifiedSince(world, resource, sinceMs);
      reports.push(before ?? (await verifyOne(world, resource, store, searchPath)));
    } finally {
      await lease.release();
    }
  }
  const failed = reports.some(({ ok }) => !ok);
  return {
    data: { verifications: reports },
    text: reports.map(describe).join('\n\n'),
    ...(failed ? { failure: 'check-failed' as const } : {}),
  };
}

/** The last verification, if it was begun at that moment or later and has succeeded. */
async function verifiedSince(
  { stores }: World,
  { name }: ConfiguredResource,
  sinceMs: number,
): Promise<Verification | undefined> {
  for (const store of stores) {
    // A vault that cannot say counts as one without: at worst a backup is verified twice.
    const newest = await newestVerification([store], name, Date.now()).catch(() => undefined);
    if (newest?.ok && Date.parse(newest.startedAt) >= sinceMs) return newest;
  }
  return undefined;
}

/** Verifies one resource from one vault; also what the daemon does on schedule. */
export async function verifyOne(
  world: World,
  resource: ConfiguredResource,
  store: ObjectStore,
  searchPath: readonly string[],
): Promise<Verification> {
  const { config } = world;
  const database = config.databases[resource.name];
  const { roles, database: databaseName } = roleAndDatabase(database?.url ?? '');
  return await verifyResource(world.backupContext(world.site), {
    resource: resource.name,
    kind: resource.kind,
    store,
    keyRing: world.keyRing,
    scratch: config.scratch,
    checks: config.verification.checks[resource.name] ?? [],
    amcheck: 'sample',
    database: databaseName,
    roles,
    binaries: config.postgresql.binaries,
    searchPath,
  });
}

/** The vault of the site where this runs, else any that answers: what a recovery here would use. */
async function vaultOfSite(world: World): Promise<ObjectStore> {
  const own = world.config.sites[world.site]?.vault;
  const ordered = [...world.stores].sort((a, b) => Number(b.name === own) - Number(a.name === own));
  let failure: unknown;
  for (const store of ordered) {
    try {
      await store.folders('manifests/');
      return store;
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure ?? new DrError('config', 'no vault is configured');
}

function describe(report: Verification): string {
  const head = report.ok
    ? `${report.resource}: proven. Recovered to ${formatTime(Date.parse(report.recoveredTo))} from vault ${report.vault} in ${formatDuration(report.restoreMs)} (${formatBytes(report.bytes)}, ${formatRate(report.bytes, report.restoreMs)}).`
    : `${report.resource}: NOT RECOVERABLE from vault ${report.vault}: ${report.failure}`;
  const checks = report.checks.map(
    ({ ok, what, detail, ms }) => `  ${ok ? 'ok  ' : 'FAIL'} ${what}: ${detail} (${formatDuration(ms)})`,
  );
  return [head, ...checks].join('\n');
}
