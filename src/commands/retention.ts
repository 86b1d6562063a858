import {
  applyRetention,
  planRetention,
  type RetentionReport,
  type VaultRetention,
} from '../backup/retention/collect.ts';
import { markOutcome } from '../backup/retention/outcome.ts';
import { DrError, type ErrorKind, messageOf } from '../base/errors.ts';
import { retentionPolicies } from '../daemon/watched.ts';
import { reportError } from '../report/error.ts';
import { renderRetention } from '../report/retention.ts';
import { checkVault } from '../vault/enrol.ts';
import { requireOneSystem } from '../vault/roster.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { RetentionOptions } from './options.ts';
import { openWorld } from './world.ts';

/** `dr retention [--apply]`: what goes, why, and what it frees. Deleting that did not happen in some vault is a failure. */
export async function run(context: CommandContext, options: RetentionOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const { stores, config } = world;
  for (const store of stores) {
    await checkVault(store, { signal: context.signal }).catch((error: unknown) => {
      // One that does not answer is shown by the report, and keeps everything where it is.
      if (!(error instanceof DrError && error.kind === 'unreachable')) throw error;
      context.log.warn({ vault: store.name, reason: messageOf(error) }, 'this vault does not answer');
    });
  }
  await requireOneSystem(stores, { signal: context.signal });
  const { clock, log, signal } = context;
  const work = options.apply ? applyRetention : planRetention;
  const report = await work({ stores, policies: retentionPolicies(config), clock, log, signal });
  if (report.applied) {
    await markOutcome(stores, report, { nowMs: clock.now(), site: world.site }, log, signal);
  }
  const failure = failureOf(report);
  return {
    data: { ...report, vaults: report.vaults.map(plain) },
    text: renderRetention(report),
    ...(failure ? { failure } : {}),
  };
}

function plain({ error, ...vault }: VaultRetention): object {
  return { ...vault, ...(error === undefined ? {} : { error: reportError(error) }) };
}

/** A plan that is blocked is told and no failure, unless a vault is damaged; a deletion that did not happen is one. */
function failureOf({ applied, held, vaults }: RetentionReport): ErrorKind | undefined {
  const failed = vaults.find(({ error }) => error !== undefined);
  if (failed) return failed.error instanceof DrError ? failed.error.kind : 'internal';
  return applied && held !== undefined ? 'refused' : undefined;
}
