import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import type { TrafficDriver } from '../traffic/contract.ts';
import { lookAtOldAnswers, waitOutOldAnswers } from '../traffic/old-answers.ts';
import { defineStep, type StepContext } from './contract.ts';
import { memberOf } from './places.ts';

const POLL_MS = 2000;
const liveModes = ['failover', 'switchover', 'failback'] as const;

export const trafficRedirect = defineStep({
  name: 'traffic.redirect',
  summary: 'Point the traffic at the recovery site and wait until the provider has published it',
  effect: 'changes',
  modes: liveModes,
  over: 'traffic',
  after: [
    { uses: 'database.fence', modes: ['failover'] },
    { uses: 'database.promote', modes: liveModes },
  ],
  params: z.object({}),
  outputs: z.object({
    previous: z.array(z.string()).describe('What it pointed to before.'),
    values: z.array(z.string()).describe('What it points to now.'),
    ttlSeconds: z.number().describe('How long resolvers may keep the old answer.'),
  }),
  timeoutMs: 10 * 60_000,
  async plan(context) {
    const driver = context.world.traffic(memberOf(context));
    const wanted = endpointOf(context);
    const { values, ttlSeconds } = await driver.current(context.signal);
    const findings = await driver.doctor(context.signal);
    return {
      target: driver.target,
      present: values.length === 0 ? 'there is no record' : `points to ${values.join(', ')}, TTL ${ttlSeconds} s`,
      will:
        values.includes(wanted) && values.length === 1
          ? ['nothing: it points there already']
          : [`point it to ${wanted}`, 'wait until the provider has published it'],
      problems: findings.filter(({ ok }) => !ok),
    };
  },
  async done(context) {
    const driver = context.world.traffic(memberOf(context));
    const wanted = endpointOf(context);
    const { values, ttlSeconds } = await driver.current(context.signal);
    // Accepted is not published: the answers of the name servers are, and the next step looks at those.
    const answers = await driver.answers(context.signal);
    if (
      !isOnly(values, wanted) ||
      !answers.every((answer) => answer.error !== undefined || isOnly(answer.values, wanted))
    )
      return undefined;
    context.note(`${driver.target} was found pointing to ${wanted}`);
    return { previous: [], values: [...values], ttlSeconds };
  },
  async run(context) {
    const { clock, signal, note } = context;
    const driver = context.world.traffic(memberOf(context));
    const wanted = endpointOf(context);
    const before = await driver.current(signal);
    note(`${driver.target} pointed to ${before.values.join(', ') || 'nothing'} (generation ${before.generation})`);
    const change = await driver.point([wanted], before, signal);
    await driver.settled(change, signal);
    const settledAtMs = clock.now();
    const after = await driver.current(signal);
    note(`${driver.target} points to ${after.values.join(', ')} (change ${change.id}), TTL ${after.ttlSeconds} s`);
    note((await lookAtOldAnswers({ driver, before, settledAtMs, clock }, signal)).sentence);
    return { previous: [...before.values], values: [...after.values], ttlSeconds: after.ttlSeconds };
  },
  async undo(context, _params, outputs) {
    const { signal, note } = context;
    const driver = context.world.traffic(memberOf(context));
    if (outputs === undefined || outputs.previous.length === 0) {
      note(`${driver.target} stays as it is: what it pointed to before is not known`);
      return;
    }
    const change = await driver.point(outputs.previous, await driver.current(signal), signal);
    await driver.settled(change, signal);
    note(`${driver.target} points back to ${outputs.previous.join(', ')}`);
  },
});

export const trafficVerify = defineStep({
  name: 'traffic.verify',
  summary: 'See that every authoritative server answers with the recovery site',
  effect: 'none',
  modes: liveModes,
  over: 'traffic',
  params: z.object({
    oldTtl: z
      .number()
      .optional()
      .describe(
        'From traffic.shift or traffic.redirect: seconds that resolvers may keep the old answer, which is then waited out.',
      ),
  }),
  outputs: z.object({ servers: z.number().describe('Servers that answered.') }),
  timeoutMs: 5 * 60_000,
  async plan(context) {
    const driver = context.world.traffic(memberOf(context));
    const answers = await driver.answers(context.signal);
    return {
      target: `${answers.length} authoritative servers of ${driver.target}`,
      present: answers
        .map(({ server, values, error }) => `${server}: ${error ?? (values.join(', ') || 'nothing')}`)
        .join('; '),
      will: [`ask them until all answer ${endpointOf(context)}`],
      problems: [],
    };
  },
  async run(context, { oldTtl }) {
    const { clock, signal, note } = context;
    const driver = context.world.traffic(memberOf(context));
    const wanted = endpointOf(context);
    const begun = clock.now();
    for (;;) {
      const { right, wrong, dumb } = await lookAtAnswers(context);
      if (right.length > 0 && wrong.length === 0) {
        note(`${right.join(', ')} answer ${wanted} after ${formatDuration(clock.now() - begun)}`);
        for (const server of dumb) note(`${server}`);
        if (oldTtl !== undefined) await waitOut(context, driver, oldTtl);
        return { servers: right.length };
      }
      const seen = [...wrong, ...dumb].join('; ') || 'no server answered';
      await clock.sleep(POLL_MS, signal).catch((cause: unknown) => {
        throw new DrError(
          'check-failed',
          `not every authoritative server answers ${wanted} for ${driver.target}: ${seen}`,
          { where: driver.target, cause },
        );
      });
    }
  },
});

/** Waits until nobody who keeps to the TTL is sent to the old site any more. */
async function waitOut(context: StepContext, driver: TrafficDriver, ttlSeconds: number): Promise<void> {
  const { world, run, clock, signal, note, progress } = context;
  const old = forSite(world.config, run.from).endpoints[memberOf(context)];
  const settledAtMs = clock.now();
  const before = { values: old === undefined ? [] : [old], ttlSeconds };
  const onLook = ({ sentence }: { readonly sentence: string }) => {
    const passed = (clock.now() - settledAtMs) / 1000;
    progress({
      task: 'watch',
      done: Math.min(passed, ttlSeconds),
      total: ttlSeconds,
      unit: 'seconds',
      detail: sentence,
    });
  };
  const { sentence } = await waitOutOldAnswers({ driver, before, settledAtMs, clock, onLook }, signal);
  note(sentence);
}

/** Who answers with the recovery site, who with something else, and who not at all. */
export async function lookAtAnswers(
  context: StepContext,
): Promise<{ right: string[]; wrong: string[]; dumb: string[] }> {
  const wanted = endpointOf(context);
  const answers = await context.world.traffic(memberOf(context)).answers(context.signal);
  const right: string[] = [];
  const wrong: string[] = [];
  const dumb: string[] = [];
  for (const { server, values, error } of answers) {
    if (error !== undefined) dumb.push(`${server} does not answer: ${error}`);
    else if (isOnly(values, wanted)) right.push(server);
    else wrong.push(`${server} answers ${values.join(', ') || 'nothing'}`);
  }
  return { right, wrong, dumb };
}

function isOnly(values: readonly string[], wanted: string): boolean {
  return values.length === 1 && values[0] === wanted;
}

function endpointOf(context: StepContext): string {
  const name = memberOf(context);
  const endpoint = forSite(context.world.config, context.run.site).endpoints[name];
  if (endpoint !== undefined) return endpoint;
  throw new DrError('config', `traffic ${name} has no endpoint at ${context.run.site}`, {
    where: context.world.config.source.path,
    next: `Add "endpoints.${context.run.site}" to traffic.${name}.`,
  });
}
