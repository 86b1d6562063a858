import { clearHolds, type HoldWritten, readHolds, setHold } from '../backup/retention/holds.ts';
import { DrError } from '../base/errors.ts';
import { type Column, renderTable } from '../report/table.ts';
import { formatTime, list } from '../report/values.ts';
import { currentHolder } from '../vault/lease-holder.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { HoldOptions } from './options.ts';
import { openWorld } from './world.ts';

/** `dr hold set|clear|list`: while a hold stands, nothing is deleted in any vault, by nobody. */
export async function run(context: CommandContext, options: HoldOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: options.action === 'list' ? 'read' : 'write' });
  const { stores } = world;
  const { user, host } = await currentHolder();
  const by = `${user}@${host}`;
  const nowMs = context.clock.now();
  switch (options.action) {
    case 'set': {
      const written = await setHold(stores, { reason: options.reason, by, nowMs }, context.signal);
      return outcome(written, `Hold ${written.hold.id} is set: nothing is deleted in any vault until it is cleared.`);
    }
    case 'clear': {
      const written = await clearHolds(stores, { id: options.id, by, nowMs }, context.signal);
      return outcome(written, `Cleared: ${list(written.ids)}.`);
    }
    case 'list':
      return await listHolds(context, stores);
  }
}

function outcome(written: HoldWritten, sentence: string): CommandResult {
  const { ids, vaults, lost } = written;
  const lines = [sentence, ...lost.map(({ vault, reason }) => `Vault ${vault} could not be told: ${reason}`)];
  if (lost.length > 0) lines.push('It holds all the same: the record in one vault counts for all.');
  return { data: { ids, vaults, lost }, text: lines.join('\n') };
}

async function listHolds(context: CommandContext, stores: Parameters<typeof readHolds>[0]): Promise<CommandResult> {
  const { active, unknown } = await readHolds(stores, context.signal);
  const silent = unknown.map(({ vault, reason }) => ({ vault, reason }));
  if (stores.length > 0 && unknown.length === stores.length) {
    throw new DrError('unreachable', 'no vault says whether a hold stands', {
      where: silent.map(({ vault, reason }) => `${vault}: ${reason}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
      cause: unknown[0]?.error,
    });
  }
  const lines = [active.length === 0 ? 'No hold stands.' : renderTable(columns, active)];
  for (const { vault, reason } of silent) {
    lines.push(`Vault ${vault} cannot be asked, so nothing is deleted meanwhile: ${reason}`);
  }
  return { data: { holds: active, unknown: silent }, text: lines.join('\n') };
}

const columns: readonly Column<Awaited<ReturnType<typeof readHolds>>['active'][number]>[] = [
  { title: 'HOLD', value: ({ id }) => id },
  { title: 'SINCE', value: ({ at }) => formatTime(Date.parse(at)) },
  { title: 'BY', value: ({ by }) => by },
  { title: 'VAULTS', value: ({ vaults }) => list(vaults) },
  { title: 'REASON', value: ({ reason }) => reason },
];
