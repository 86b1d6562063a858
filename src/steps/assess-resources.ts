import { z } from 'zod';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import { defineStep, runModes } from './contract.ts';
import { type ResourceKind, type ResourcePoint, recoveryTargetSchema, resourcePointSchema } from './ports.ts';

/** A resource that cannot be brought back, and why. */
export const missingSchema = z.object({
  name: z.string(),
  kind: z.enum(['database', 'data', 'configuration']),
  problem: z.string(),
});

export const resourcesOutputs = z.object({
  points: z
    .record(z.string(), resourcePointSchema)
    .describe('The recovery point chosen for each resource: moment, vault, backup. The restore steps want it.'),
  missing: z.array(missingSchema).describe('Resources that cannot be brought back, and why.'),
});

type Missing = z.infer<typeof missingSchema>;

export const assessResources = defineStep({
  name: 'assess.resources',
  summary: 'Choose the newest recovery point of every resource over all vaults that answer',
  effect: 'none',
  runsInPlan: true,
  modes: runModes,
  params: z.object({
    at: recoveryTargetSchema.describe('Which moment to bring back; usually ${{ run.at }}.'),
    chosen: z
      .boolean()
      .default(false)
      .describe('True: the latest moment is refused, because it holds the damage that the runbook is for.'),
  }),
  outputs: resourcesOutputs,
  timeoutMs: 5 * 60_000,
  async plan({ world, run }) {
    const names = protectedResources(world.config).map(({ name }) => name);
    return {
      target: names.join(', '),
      present: `${names.length} resources to bring up at ${run.site}`,
      will: ['choose a recovery point for each'],
      problems: [],
    };
  },
  async run(context, { at, chosen }) {
    if (chosen && at.kind === 'latest') {
      throw new DrError('usage', 'this runbook brings back a moment that a person chooses, and none is given', {
        next: 'Find out when the damage began, and add --at with a time before it: --at "2026-11-23T03:10:00Z".',
      });
    }
    const { world, run, signal, clock, note } = context;
    const { databases, directories, objects } = forSite(world.config, run.site);
    const found = await Promise.all(
      protectedResources(world.config).map(async ({ name, kind }): Promise<ResourcePoint | Missing> => {
        const place = kind === 'database' ? databases[name]?.target : (directories[name] ?? objects[name]);
        if (place === undefined) {
          const problem = `the configuration gives it no place at ${run.site} (recover.${run.site})`;
          return { name, kind, problem };
        }
        try {
          return await world.recovery.assess({ name, kind }, at, signal);
        } catch (error) {
          if (signal.aborted || isAbort(error)) throw error;
          return { name, kind, problem: messageOf(error) };
        }
      }),
    );
    const points: Record<string, ResourcePoint> = {};
    const missing: Missing[] = [];
    for (const result of found) {
      if ('problem' in result) missing.push(result);
      else points[result.resource] = result;
    }
    const now = clock.now();
    for (const { resource, vault, backupId, recoveryPointMs, bytes, candidates } of Object.values(points)) {
      const age = formatDuration(Math.max(0, now - recoveryPointMs));
      note(
        `${resource}: recovery point ${new Date(recoveryPointMs).toISOString()} (${age} old, ${formatBytes(bytes)}), backup ${backupId} in vault ${vault}`,
      );
      for (const { vault: other, problem } of candidates)
        if (problem) note(`${resource}: vault ${other} cannot be used: ${problem}`);
    }
    for (const { name, problem } of missing) note(`${name} CANNOT be brought back: ${problem}`);
    if (Object.keys(points).length === 0) {
      throw new DrError(
        'not-found',
        `nothing can be brought back: ${missing.map(({ name, problem }) => `${name}: ${problem}`).join('; ')}`,
        {
          next: 'Make a vault with backups reachable ("dr backups" shows what there is), then run the same command again.',
        },
      );
    }
    return { points, missing };
  },
});

function protectedResources(config: Config): Array<{ name: string; kind: ResourceKind }> {
  return [
    ...Object.keys(config.databases).map((name) => ({ name, kind: 'database' as const })),
    ...Object.keys(config.data).map((name) => ({ name, kind: 'data' as const })),
    ...[...Object.keys(config.configuration), ...Object.keys(config.objects)].map((name) => ({
      name,
      kind: 'configuration' as const,
    })),
  ];
}
