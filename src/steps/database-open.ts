import { z } from 'zod';
import { defineStep } from './contract.ts';
import { databasePlace, describePlace, memberOf } from './places.ts';

export const databaseOpen = defineStep({
  name: 'database.open',
  summary: 'Let the applications in again that a planned move had locked out of the old primary',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  over: 'databases',
  after: [{ uses: 'database.promote', modes: ['failover', 'switchover', 'failback'] }],
  params: z.object({}),
  outputs: z.object({ opened: z.array(z.string()).describe('Roles that may log in again.') }),
  timeoutMs: 2 * 60_000,
  async plan(context) {
    const place = databasePlace(context, memberOf(context));
    return {
      target: describePlace(place),
      present: '',
      will: ['unlock the roles that a planned move has locked, here and nowhere else'],
      problems: [],
    };
  },
  // No `done`: it is repeatable.
  async run(context) {
    const name = memberOf(context);
    const opened = await context.world.recovery.openDatabase(databasePlace(context, name), context.signal);
    context.note(
      opened.length > 0 ? `${name}: ${opened.join(', ')} may log in again, here` : `${name}: no role was locked out`,
    );
    return { opened: [...opened] };
  },
});
