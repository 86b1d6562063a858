import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { type ActiveSite, readActiveSite, writeActiveSite } from './active-site.ts';
import { defineStep, type StepContext } from './contract.ts';

const outputs = z.object({
  generation: z.number().describe('Of the record that makes the recovery site the active one.'),
  vaults: z.array(z.string()).describe('Vaults that hold it.'),
});

export const recordActive = defineStep({
  name: 'record.active',
  summary: 'Record in all vaults that the recovery site is now the active one',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  after: [{ uses: 'database.promote', modes: ['failover', 'switchover', 'failback'] }],
  params: z.object({}),
  outputs,
  timeoutMs: 2 * 60_000,
  async plan({ world, run, signal }) {
    const { newest, silent } = await readActiveSite(world.vaults, signal);
    const present = newest
      ? `${newest.site} is active (generation ${newest.generation})`
      : `${run.from} is active (by the configuration)`;
    return {
      target: `record of the active site in ${world.vaults.map(({ name }) => name).join(', ')}`,
      present,
      will: [
        `create generation ${(newest?.generation ?? 0) + 1}: ${run.site}`,
        ...silent.map(({ vault }) => `leave out vault ${vault}, which does not answer`),
      ],
      problems: [],
    };
  },
  async done(context) {
    const { world, run, signal, note } = context;
    const { newest, byVault } = await readActiveSite(world.vaults, signal);
    if (newest === undefined || newest.runId !== run.id || newest.site !== run.site) return undefined;
    const holders = [...byVault].flatMap(([vault, record]) =>
      record?.generation === newest.generation ? [vault] : [],
    );
    if (holders.length < byVault.size) return undefined;
    note(`generation ${newest.generation} was found in ${holders.join(', ')}`);
    return { generation: newest.generation, vaults: holders };
  },
  async run(context) {
    const { world, run, signal, note } = context;
    const record = await nextRecord(context);
    const vaults: string[] = [];
    for (const store of world.vaults) {
      try {
        if (!(await writeActiveSite(store, record, signal))) {
          throw new DrError('conflict', `vault ${store.name} has another record of generation ${record.generation}`, {
            where: store.location,
            next: 'Somebody else decided who is active: find out with "dr runs" before you go on.',
          });
        }
        vaults.push(store.name);
      } catch (error) {
        if (signal.aborted || (error instanceof DrError && error.kind !== 'unreachable' && error.kind !== 'denied'))
          throw error;
        note(`vault ${store.name} does not know yet that ${run.site} is active: ${messageOf(error)}`);
      }
    }
    if (vaults.length === 0) {
      throw new DrError('unreachable', 'no vault took the record of the active site', {
        next: 'Make a vault reachable, then run the same command again.',
      });
    }
    note(`${run.site} is active from generation ${record.generation} on (${vaults.join(', ')})`);
    return { generation: record.generation, vaults };
  },
});

/** The record that this run writes: the same after a crash in the middle, so that it can be completed. */
async function nextRecord({ world, run, clock, signal }: StepContext): Promise<ActiveSite> {
  const { newest } = await readActiveSite(world.vaults, signal);
  if (newest?.runId === run.id) return newest;
  if (newest && newest.site !== run.from) {
    throw new DrError(
      'conflict',
      `${newest.site} became active (generation ${newest.generation}) while this run moved away from ${run.from}`,
      {
        next: `See "dr runs ${newest.runId}".`,
      },
    );
  }
  const at = new Date(clock.now()).toISOString();
  return {
    format: 1,
    generation: (newest?.generation ?? 0) + 1,
    site: run.site,
    previous: run.from,
    runId: run.id,
    at,
  };
}
