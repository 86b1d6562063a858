import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import type { GitopsConfig, SiteObjectConfig, WorkloadConfig } from '../../config/types.ts';
import type { StepContext } from '../contract.ts';
import { memberOf } from '../places.ts';
import { steady } from './steady.ts';

/** Which of the two sites of a run a step acts at. */
export const where = z
  .enum(['recovery', 'old'])
  .default('recovery')
  .describe('recovery: the cluster of the site that takes over. old: that of the site that was active.');

export const ifUnreachable = z
  .enum(['stop', 'go-on'])
  .default('stop')
  .describe(
    'go-on: when the API server does not answer, that is noted and the run goes on. For an old site that may be lost: database.fence wants its own proof.',
  );

export type Where = z.output<typeof where>;

/** Pause between two looks at something that takes its time, milliseconds. */
export const LOOK_EVERY_MS = 2000;

export function siteOf({ run }: StepContext, side: Where): string {
  return side === 'old' ? run.from : run.site;
}

export function workloadOf(context: StepContext): WorkloadConfig {
  return entryOf(context, context.world.config.workloads, 'workloads');
}

export function gitopsOf(context: StepContext): GitopsConfig {
  return entryOf(context, context.world.config.gitops, 'gitops');
}

function entryOf<T>(context: StepContext, entries: Readonly<Record<string, T>>, section: string): T {
  const name = memberOf(context);
  const found = Object.hasOwn(entries, name) ? entries[name] : undefined;
  if (found) return found;
  throw new DrError('not-found', `the configuration has no ${section} entry "${name}"`, {
    where: context.world.config.source.path,
  });
}

/**
 * Does `work` in the cluster of a site where the entry is. `elsewhere` says why there is nothing to do: the entry is not at that site, or its
 * cluster does not answer and the runbook goes on without it.
 */
export async function atSite<T>(
  context: StepContext,
  entry: SiteObjectConfig,
  side: Where,
  unreachable: z.output<typeof ifUnreachable>,
  work: (cluster: Cluster, site: string) => Promise<T>,
): Promise<{ readonly elsewhere: string } | { readonly elsewhere: undefined; readonly result: T }> {
  const site = siteOf(context, side);
  if (!entry.sites.includes(site)) return { elsewhere: `${entry.entry} is not at site ${site}` };
  try {
    return { elsewhere: undefined, result: await work(steady(await context.world.cluster(site), context.clock), site) };
  } catch (error) {
    if (unreachable !== 'go-on' || !(error instanceof DrError) || error.kind !== 'unreachable') throw error;
    if (context.signal.aborted) throw error;
    return {
      elsewhere: `the cluster of ${site} does not answer (${error.message}): nothing is known of ${entry.entry}`,
    };
  }
}

/** Looks again and again until `look` says that it is over; says what was seen last when the time is up. */
export async function until<T>(
  context: StepContext,
  look: () => Promise<
    { readonly over: T; readonly detail?: undefined } | { readonly over?: undefined; readonly detail: string }
  >,
): Promise<T> {
  const { clock, signal, progress, note } = context;
  const begun = clock.now();
  let detail = '';
  try {
    for (;;) {
      const seen = await look();
      if (seen.detail === undefined) return seen.over;
      detail = seen.detail;
      progress({ task: 'wait', done: (clock.now() - begun) / 1000, total: 0, unit: 'seconds', detail });
      await clock.sleep(LOOK_EVERY_MS, signal);
    }
  } catch (error) {
    if (detail !== '') note(`seen last: ${detail}`);
    throw error;
  }
}

/** The object, or undefined where there is none. */
export async function find(cluster: Cluster, ref: ObjectRef, signal: AbortSignal): Promise<ClusterObject | undefined> {
  try {
    return await cluster.get(ref, signal);
  } catch (error) {
    if (error instanceof DrError && error.kind === 'not-found') return undefined;
    throw error;
  }
}

/** How often a change is decided anew because somebody else changed the object meanwhile. */
const RACES_MAX = 20;

/**
 * Changes an object from what it is now: `decide` gives the merge patch, or undefined when it is as it should be. Somebody else's change in
 * between makes it decide anew.
 */
export async function change(
  context: StepContext,
  cluster: Cluster,
  ref: ObjectRef,
  decide: (object: ClusterObject) => Readonly<Record<string, unknown>> | undefined,
  options: { readonly dryRun?: boolean } = {},
): Promise<ClusterObject> {
  for (let tries = 1; ; tries++) {
    const object = await cluster.get(ref, context.signal);
    const wanted = decide(object);
    if (wanted === undefined) return object;
    const metadata = {
      ...(wanted['metadata'] as object | undefined),
      resourceVersion: object.metadata.resourceVersion,
    };
    try {
      return await cluster.merge(ref, { ...wanted, metadata }, options, context.signal);
    } catch (error) {
      if (!(error instanceof DrError) || error.kind !== 'conflict' || tries === RACES_MAX) throw error;
    }
    await context.clock.sleep(50 * tries, context.signal);
  }
}
