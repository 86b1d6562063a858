import { z } from 'zod';
import { isAbort } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import { unreachableVault } from './assess-vaults.ts';
import { witnessesOutputs } from './assess-witnesses.ts';
import { defineStep, runModes, type StepContext } from './contract.ts';
import { classifyDamage, type Observations, scopes } from './damage.ts';
import { databaseUrl } from './places.ts';
import { type ResourcePoint, resourcePointSchema } from './ports.ts';

export const assessScope = defineStep({
  name: 'assess.scope',
  summary:
    'Say what has happened: site lost, network parted, data damaged, vault lost, nothing wrong; and what fits it',
  effect: 'none',
  runsInPlan: true,
  modes: runModes,
  params: z.object({
    unreachable: z.array(unreachableVault).default([]).describe('From assess.vaults.'),
    heartbeats: witnessesOutputs.shape.heartbeats.default([]).describe('From assess.witnesses.'),
    points: z
      .record(z.string(), resourcePointSchema)
      .default({})
      .describe('From assess.resources: how far apart the recovery points of the resources lie is shown.'),
  }),
  outputs: z.object({
    scope: z.enum(scopes).describe('What has happened.'),
    meaning: z.string().describe('The same in a sentence.'),
    proposal: z.string().describe('What fits.'),
    skewMs: z.number().describe('Between the oldest and the newest recovery point, milliseconds.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan({ run }) {
    return {
      target: `site ${run.from}`,
      present: 'judged while planning, see the evidence',
      will: ['compare what the witnesses say, and propose what fits'],
      problems: [],
    };
  },
  async run(context, { unreachable, heartbeats, points }) {
    const { note, clock } = context;
    const now = clock.now();
    const observations: Observations = {
      ...(await lookAtDatabases(context)),
      endpoints: await lookAtEndpoints(context),
      archives: [...Map.groupBy(heartbeats, ({ database }) => database)].map(([database, beats]) => ({
        database,
        moves: beats.some(({ writtenAtMs, everyMs }) => now - writtenAtMs < 3 * everyMs),
      })),
      vaults: Object.keys(context.world.config.vaults).map((name) => {
        const trouble = unreachable.find(({ vault }) => vault === name);
        return {
          name,
          ofOldSite: name === context.world.from.vault,
          usable: trouble === undefined,
          answers: trouble === undefined || trouble.answers,
        };
      }),
      names: await lookAtNames(context),
    };
    const { scope, meaning, proposal, reasons } = classifyDamage(observations);
    note(`${scope}: ${meaning}`);
    for (const reason of reasons) note(reason);
    note(`what fits: ${proposal}`);
    return { scope, meaning, proposal, skewMs: skew(context, Object.values(points)) };
  },
});

async function lookAtDatabases({
  world,
  run,
  signal,
}: StepContext): Promise<Pick<Observations, 'databases' | 'failedChecks'>> {
  const failedChecks: string[] = [];
  const databases = await Promise.all(
    Object.keys(forSite(world.config, run.from).databases).map(async (name) => {
      const url = databaseUrl({ world, run } as StepContext, name, run.from);
      const probe = await world.probes.database(url, signal);
      const writes = probe.session && probe.inRecovery !== true;
      const checks = writes ? (world.config.verification.checks[name] ?? []) : [];
      for (const { sql, ok, detail } of await world.probes.asks(url, checks, signal))
        if (!ok) failedChecks.push(`${name}: ${sql} (${detail})`);
      return { name, answers: probe.reach === 'connected', writes };
    }),
  );
  return { databases, failedChecks };
}

async function lookAtEndpoints({ world, run, signal }: StepContext): Promise<Observations['endpoints']> {
  return await Promise.all(
    world.config.validation.http
      .filter(({ site }) => site === run.from)
      .map(async ({ url, status }) => ({ what: url, alive: (await world.probes.http(url, signal)).status === status })),
  );
}

/** What the world is told about the names: a record that points elsewhere explains a site that nobody reaches. */
async function lookAtNames({ world, run, signal }: StepContext): Promise<Observations['names']> {
  return await Promise.all(
    Object.values(world.config.traffic).map(async ({ name, endpoints }) => {
      try {
        const answers = await world.traffic(name).answers(signal);
        const values = answers.flatMap((answer) => (answer.error === undefined ? [answer.values] : []));
        const wanted = endpoints[run.from];
        const pointsToOldSite =
          values.length === 0 || wanted === undefined ? undefined : values.every((list) => list.includes(wanted));
        return { name, pointsToOldSite };
      } catch (error) {
        if (signal.aborted || isAbort(error)) throw error;
        return { name, pointsToOldSite: undefined };
      }
    }),
  );
}

/** A system comes back as of several moments: how far apart they lie. */
function skew({ note }: StepContext, points: readonly ResourcePoint[]): number {
  if (points.length < 2) return 0;
  const sorted = points.toSorted((a, b) => a.recoveryPointMs - b.recoveryPointMs);
  const [oldest, newest] = [sorted[0], sorted.at(-1)];
  if (oldest === undefined || newest === undefined) return 0;
  const ms = newest.recoveryPointMs - oldest.recoveryPointMs;
  note(
    `the recovery points lie ${formatDuration(ms)} apart: ${sorted.map(({ resource, recoveryPointMs }) => `${resource} ${new Date(recoveryPointMs).toISOString()}`).join(', ')}`,
  );
  return ms;
}
