import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { printableUrl } from '../base/redact.ts';
import { formatDuration } from '../base/units.ts';
import { defineStep, type StepContext } from './contract.ts';
import { duration } from './params.ts';

/** Pause between two looks at something that is starting, milliseconds. */
const POLL_MS = 1000;

export const checkHttp = defineStep({
  name: 'check.http',
  summary: 'Wait until the system at the recovery site answers its HTTP checks',
  effect: 'none',
  modes: ['failover', 'switchover', 'failback'],
  params: z.object({ within: duration('5m').describe('How long it may take to come up.') }),
  outputs: z.object({ checks: z.number().describe('How many checks passed.') }),
  timeoutMs: 10 * 60_000,
  async plan(context) {
    const checks = checksOf(context);
    return {
      target: checks.map(({ url }) => printableUrl(url)).join(', ') || 'nothing',
      present: (await failedChecks(context)).map(({ detail }) => detail).join('; ') || 'all checks pass',
      will: checks.map(({ url, status }) => `ask ${printableUrl(url)} until it answers ${status}`),
      problems: [],
    };
  },
  async run(context, { within }) {
    const { clock, signal, note } = context;
    const begun = clock.now();
    for (;;) {
      const failed = await failedChecks(context);
      const checks = checksOf(context);
      if (failed.length === 0) {
        const took = formatDuration(clock.now() - begun);
        note(
          checks.length === 0
            ? 'the configuration has no HTTP checks for this site'
            : `all HTTP checks of the site (${checks.length}) pass after ${took}`,
        );
        return { checks: checks.length };
      }
      if (clock.now() - begun >= within) {
        throw new DrError(
          'check-failed',
          `the system at ${context.run.site} does not answer as it should: ${failed.map(({ detail }) => detail).join('; ')}`,
          {
            where: failed.map(({ url }) => url).join(', '),
            next: 'Start or mend the applications at the recovery site, then run the same command again.',
          },
        );
      }
      await clock.sleep(POLL_MS, signal);
    }
  },
});

function checksOf({ world, run }: StepContext) {
  return world.config.validation.http.filter(({ site }) => site === run.site);
}

/** The HTTP checks of the recovery site that do not pass now. */
export async function failedChecks(context: StepContext): Promise<Array<{ url: string; detail: string }>> {
  const results = await Promise.all(
    checksOf(context).map(async ({ url, status, contains }) => {
      const probe = await context.world.probes.http(url, context.signal);
      const shown = printableUrl(url);
      if (probe.status !== status) return { url: shown, detail: `${shown}: ${probe.detail}, wanted ${status}` };
      if (contains !== undefined && !probe.body.includes(contains))
        return { url: shown, detail: `${shown}: the answer lacks "${contains}"` };
      return undefined;
    }),
  );
  return results.filter((result) => result !== undefined);
}
