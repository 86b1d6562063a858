import { z } from 'zod';
import { readHolds, setHold } from '../backup/retention/holds.ts';
import { defineStep } from './contract.ts';

export const holdSet = defineStep({
  name: 'hold.set',
  summary: 'Stop all deletion in all vaults until a person clears the hold',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  after: [],
  params: z.object({}),
  outputs: z.object({
    hold: z.string().describe('Id of the hold, for `dr hold clear`.'),
    unanswered: z.array(z.string()).describe('Vaults that do not know it.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan({ world, run, signal }) {
    const { active } = await readHolds(world.vaults, signal);
    return {
      target: `holds in ${world.vaults.map(({ name }) => name).join(', ')}`,
      present: active.length === 0 ? 'no hold stands' : `${active.length} stand already`,
      will: [`set hold run-${run.id}: retention deletes nothing until \`dr hold clear\``],
      problems: [],
    };
  },
  // No `done`: a run's hold is set once however often it is asked for.
  async run({ world, run, clock, signal, note }) {
    const facts = { reason: `${run.mode} to ${run.site}`, by: `run ${run.id}`, nowMs: clock.now(), runId: run.id };
    const { hold, lost } = await setHold(world.vaults, facts, signal);
    note(`nothing is deleted in any vault until \`dr hold clear ${hold.id}\``);
    for (const { vault, reason } of lost) note(`vault ${vault} does not know of the hold: ${reason}`);
    return { hold: hold.id, unanswered: lost.map(({ vault }) => vault) };
  },
});
