import { z } from 'zod';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import { checkVault } from '../vault/enrol.ts';
import { defineStep, runModes } from './contract.ts';

/** A vault that cannot be used. Journals of older versions do not say whether it answers. */
export const unreachableVault = z.object({
  vault: z.string(),
  problem: z.string(),
  answers: z.boolean().default(false),
});

const outputs = z.object({
  reachable: z.array(z.string()).describe('Names of the vaults that answer, the recovery site’s first.'),
  unreachable: z.array(unreachableVault).describe('The others, why, and whether they answer at all.'),
});

export const assessVaults = defineStep({
  name: 'assess.vaults',
  summary: 'Find out which vaults answer and are what they say',
  effect: 'none',
  runsInPlan: true,
  modes: runModes,
  params: z.object({}),
  outputs,
  timeoutMs: 60_000,
  async plan({ world }) {
    const names = Object.keys(world.config.vaults);
    return {
      target: names.join(', '),
      present: `${names.length} vaults in the configuration`,
      will: ['ask each vault'],
      problems: [],
    };
  },
  async run(context) {
    const { world, signal, note } = context;
    const reachable: string[] = [];
    const unreachable: Array<z.output<typeof unreachableVault>> = [];
    for (const store of world.vaults) {
      try {
        await checkVault(store, { signal });
        reachable.push(store.name);
        note(`vault ${store.name} (${store.region}) answers`);
      } catch (error) {
        if (signal.aborted || isAbort(error)) throw error;
        const answers = error instanceof DrError && error.kind !== 'unreachable';
        unreachable.push({ vault: store.name, problem: messageOf(error), answers });
      }
    }
    for (const vault of Object.keys(world.config.vaults)) {
      if (!world.vaults.some(({ name }) => name === vault))
        unreachable.push({ vault, problem: 'it could not be opened', answers: false });
    }
    for (const { vault, problem } of unreachable) note(`vault ${vault} cannot be used: ${problem}`);
    return { reachable, unreachable };
  },
});
