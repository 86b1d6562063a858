import { z } from 'zod';
import { readActiveSite, recordActiveSite } from '../backup/active-site.ts';
import { DrError } from '../base/errors.ts';
import { defineStep } from './contract.ts';

export const recordActive = defineStep({
  name: 'record.active',
  summary: 'Record in all vaults that the recovery site is now the active one',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  after: [{ uses: 'database.promote', modes: ['failover', 'switchover', 'failback'] }],
  params: z.object({}),
  outputs: z.object({
    generation: z.number().describe('Of the record that makes the recovery site the active one.'),
    unanswered: z.array(z.string()).describe('Vaults that do not know it yet.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan({ world, run, signal }) {
    const { active, unanswered } = await readActiveSite(world.vaults, signal);
    return {
      target: `record of the active site in ${world.vaults.map(({ name }) => name).join(', ')}`,
      present: active
        ? `${active.site} is active (generation ${active.generation}, by ${active.by})`
        : `${run.from} is active (by the configuration)`,
      will: [
        `create generation ${(active?.generation ?? 0) + 1}: ${run.site}`,
        ...unanswered.map(({ vault }) => `leave out vault ${vault}, which does not answer`),
      ],
      problems: [],
    };
  },
  // No `done`: recording the same run again completes what a crash left unfinished, under the same generation.
  async run(context) {
    const { world, run, signal, clock, log, note } = context;
    const { active, unanswered } = await readActiveSite(world.vaults, signal);
    if (active && active.runId !== run.id && active.site !== run.from) {
      throw new DrError('conflict', `${active.site} became active while this run moved away from ${run.from}`, {
        where: `generation ${active.generation}, by ${active.by}`,
        next: 'Somebody else decided who is active: find out with "dr runs" before you go on.',
      });
    }
    const since = new Date(clock.now()).toISOString();
    const record = { site: run.site, since, by: `run ${run.id}`, runId: run.id };
    const { generation } = await recordActiveSite(world.vaults, record, log, signal);
    const silent = unanswered.map(({ vault }) => vault);
    note(`${run.site} is active from generation ${generation} on`);
    for (const { vault, reason } of unanswered) note(`vault ${vault} does not know it yet: ${reason}`);
    return { generation, unanswered: silent };
  },
});
