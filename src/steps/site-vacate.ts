import { z } from 'zod';
import { readActiveSite } from '../backup/active-site.ts';
import { DrError } from '../base/errors.ts';
import { forSite } from '../config/sites.ts';
import { defineStep, type StepContext } from './contract.ts';
import { databasePlace, directoryPlace } from './places.ts';

export const siteVacate = defineStep({
  name: 'site.vacate',
  summary: 'Put aside what the site held when it was active: stop its old servers and rename its directories',
  effect: 'changes',
  modes: ['switchover', 'failback'],
  params: z.object({}),
  outputs: z.object({ aside: z.array(z.string()).describe('Where everything lies now, to be removed by a person.') }),
  timeoutMs: 10 * 60_000,
  async plan(context) {
    const places = placesOf(context);
    return {
      target: places.map(({ path }) => path).join(', '),
      present: (await presentState(context)).join('; '),
      will: ['stop a server of an earlier time that runs there, and rename what is there; nothing is deleted'],
      problems: [],
    };
  },
  // No `done`: what has been put aside is not there any more, and what this run put there stays.
  async run(context) {
    const { world, run, signal, note } = context;
    const { active } = await readActiveSite(world.vaults, signal);
    if ((active?.site ?? world.config.active) === run.site) {
      throw new DrError('refused', `${run.site} is the active site: what lies there is alive`, {
        where: `site ${run.site}`,
        next: 'See "dr status" and "dr runs".',
      });
    }
    const aside: string[] = [];
    for (const place of placesOf(context)) {
      const moved = await world.recovery.vacate({ path: place.path, runId: run.id }, signal);
      if (moved === undefined) continue;
      aside.push(moved);
      note(`${place.name}: what was at ${place.path} lies in ${moved} now; remove it when nobody needs it`);
    }
    if (aside.length === 0) note('nothing of an earlier time is there');
    return { aside };
  },
});

function placesOf(context: StepContext): Array<{ name: string; path: string }> {
  const { databases, directories } = forSite(context.world.config, context.run.site);
  return [
    ...Object.keys(databases)
      // What lies in a volume is a claim, which only a person removes: database.restore says so.
      .filter((name) => databases[name]?.target !== undefined && databasePlace(context, name).volume === undefined)
      .map((name) => ({ name, path: databasePlace(context, name).directory })),
    ...Object.keys(directories).map((name) => ({ name, path: directoryPlace(context, name).path })),
  ];
}

async function presentState(context: StepContext): Promise<string[]> {
  const { world, run, signal } = context;
  const { databases } = forSite(world.config, run.site);
  const found: string[] = [];
  for (const name of Object.keys(databases)) {
    if (databases[name]?.target === undefined) continue;
    const { state } = await world.recovery.databaseState(databasePlace(context, name), signal);
    found.push(`${name}: ${state === 'empty' ? 'nothing is there' : 'something is there'}`);
  }
  return found;
}
