import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { defineStep, type StepContext } from './contract.ts';
import { databasePlace, describePlace, memberOf } from './places.ts';

export const databaseSlot = defineStep({
  name: 'database.slot',
  summary: 'Create the replication slot at the new primary, so that no WAL is removed before its archive begins',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  over: 'databases',
  after: [{ uses: 'database.promote', modes: ['failover', 'switchover', 'failback'] }],
  params: z.object({}),
  outputs: z.object({
    slot: z.string().describe('Name of the slot; empty when this database is backed up without WAL.'),
    from: z.string().describe('The server keeps WAL from this LSN on.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan(context) {
    const slot = slotOf(context);
    return {
      target: describePlace(databasePlace(context, memberOf(context))),
      present: 'it has no slot before it is the primary',
      will: [
        slot === undefined ? 'nothing: it is backed up without WAL' : `create the physical replication slot ${slot}`,
      ],
      problems: [],
    };
  },
  // No `done`: a slot that is there stays.
  async run(context) {
    const { world, signal, note } = context;
    const name = memberOf(context);
    const slot = slotOf(context);
    if (slot === undefined) return { slot: '', from: '' };
    const { created, from } = await world.recovery.reserveWal(databasePlace(context, name), slot, signal);
    note(
      `${name}: slot ${slot} ${created ? 'created' : 'was there'}: WAL is kept from ${from} on, until the daemon of ${context.run.site} has archived it`,
    );
    return { slot, from };
  },
});

function slotOf(context: StepContext): string | undefined {
  const name = memberOf(context);
  const database = context.world.config.databases[name];
  if (database === undefined) throw new DrError('internal', `there is no database ${name}`);
  return database.wal.enabled ? database.wal.slot : undefined;
}
