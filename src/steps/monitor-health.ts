import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import { failedChecks } from './check-http.ts';
import { defineStep, type StepContext } from './contract.ts';
import { databaseUrl } from './places.ts';
import { lookAtAnswers } from './traffic.ts';

/** Looks per window, and the bounds of the pause between two of them, milliseconds. */
const LOOKS = 10;
const PAUSE_MS = { least: 250, most: 5000 };

export const healthOutputs = z.object({
  healthySinceMs: z
    .number()
    .describe('From this moment on every look found everything healthy, milliseconds since 1970.'),
  looks: z.number().describe('How often it was looked at in all.'),
});

export const monitorHealth = defineStep({
  name: 'monitor.health',
  summary:
    'Watch the system at the recovery site until it has been healthy for the whole window (validation.stabilize)',
  effect: 'none',
  modes: ['failover', 'switchover', 'failback'],
  params: z.object({}),
  outputs: healthOutputs,
  timeoutMs: 60 * 60_000,
  async plan({ world, run }) {
    return {
      target: `site ${run.site}`,
      present: 'nothing to watch yet',
      will: [
        `watch databases, HTTP checks and DNS until all are healthy for ${formatDuration(world.config.validation.stabilizeMs)}`,
      ],
      problems: [],
    };
  },
  async run(context) {
    const { clock, signal, note, progress } = context;
    const windowMs = context.world.config.validation.stabilizeMs;
    const pauseMs = Math.min(PAUSE_MS.most, Math.max(PAUSE_MS.least, windowMs / LOOKS));
    let healthySinceMs: number | undefined;
    for (let looks = 1; ; looks++) {
      const lookedAt = clock.now();
      const problems = await findProblems(context);
      if (problems.length > 0 && healthySinceMs !== undefined) note(`the window began anew: ${problems.join('; ')}`);
      healthySinceMs = problems.length > 0 ? undefined : (healthySinceMs ?? lookedAt);
      const healthyMs = healthySinceMs === undefined ? 0 : clock.now() - healthySinceMs;
      const detail = problems.length > 0 ? problems.join('; ') : 'healthy';
      progress({
        task: 'watch',
        done: Math.min(healthyMs, windowMs) / 1000,
        total: windowMs / 1000,
        unit: 'seconds',
        detail,
      });
      if (healthySinceMs !== undefined && healthyMs >= windowMs) {
        note(`healthy for ${formatDuration(healthyMs)} in ${looks} looks`);
        return { healthySinceMs, looks };
      }
      await clock.sleep(pauseMs, signal).catch((cause: unknown) => {
        throw new DrError('check-failed', `the system is not healthy: ${detail}`, {
          where: `site ${context.run.site}`,
          cause,
        });
      });
    }
  },
});

/** Everything that is not as it should be at this moment. */
async function findProblems(context: StepContext): Promise<string[]> {
  const { world, run, signal } = context;
  const places = forSite(world.config, run.site);
  const databases = Object.keys(places.databases).map(async (name) => {
    const probe = await world.probes.database(databaseUrl(context, name, run.site), signal);
    if (probe.session && probe.inRecovery !== true) return [];
    return [`database ${name}: ${probe.inRecovery ? 'it is read-only' : probe.detail}`];
  });
  const names = Object.keys(places.endpoints).map(async (name) => {
    const { right, wrong, dumb } = await lookAtAnswers({ ...context, each: name });
    return right.length > 0
      ? wrong.map((server) => `traffic ${name}: ${server}`)
      : [`traffic ${name}: ${[...wrong, ...dumb].join(', ') || 'no answer'}`];
  });
  const http = failedChecks(context).then((failed) => failed.map(({ detail }) => detail));
  return (await Promise.all([...databases, ...names, http])).flat();
}
