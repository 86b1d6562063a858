import { countOutcomes, failureOfAll, type ObjectsResult } from '../backup/objects-restore/result.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { showRef } from '../cluster/contract.ts';
import { forSite } from '../config/sites.ts';
import type { StepContext, StepPlan } from './contract.ts';
import type { ObjectsPlace, ResourcePoint } from './ports.ts';

/** Objects that an error or note names. */
const SHOWN = 5;
/** Findings that go into the journal. */
const NOTED = 10;

/** True for a configuration that goes into the cluster of the recovery site. */
export function isObjects({ run, world }: StepContext, name: string): boolean {
  return forSite(world.config, run.site).objects[name] !== undefined;
}

/** Where it is brought up in this run. A drill only asks the API server. */
async function placeOf({ run, world }: StepContext, name: string): Promise<ObjectsPlace> {
  return {
    name,
    site: run.site,
    cluster: await world.cluster(run.site),
    scaleToZero: forSite(world.config, run.site).objects[name]?.target?.scaleToZero ?? true,
    dryRun: run.mode === 'drill',
  };
}

/** What a restore into a cluster would do. Only whether it answers is looked at. */
export async function planObjects(context: StepContext, name: string, from: string): Promise<StepPlan> {
  const { run, signal } = context;
  const will =
    run.mode === 'drill'
      ? `let the API server check the objects from ${from} (dry run: nothing is stored)`
      : `apply the objects from ${from}; nothing is deleted`;
  let target = `cluster of site ${run.site}`;
  try {
    const { cluster, scaleToZero } = await placeOf(context, name);
    target = cluster.target;
    const { git } = await cluster.version(signal);
    const waiting = scaleToZero ? ['workloads that are new wait with 0 replicas'] : [];
    return { target, present: `Kubernetes ${git}`, will: [will, ...waiting], problems: [] };
  } catch (error) {
    if (!(error instanceof DrError) || error.kind === 'interrupted') throw error;
    const problem = { what: messageOf(error), next: error.next };
    return { target, present: 'it cannot be asked', will: [will], problems: [problem] };
  }
}

/** Restores, notes what a person should know, and fails where an object failed. Doing it again changes nothing that is right. */
export async function runObjects(context: StepContext, name: string, point: ResourcePoint) {
  const place = await placeOf(context, name);
  const { cluster, dryRun } = place;
  const result = await context.world.recovery.restoreObjects(place, point, context.progress, context.signal);
  const counts = countOutcomes(result.objects);
  const did = Object.entries(counts).flatMap(([outcome, number]) => (number > 0 ? [`${number} ${outcome}`] : []));
  context.note(
    `${name}: ${did.join(', ') || 'nothing'} in ${cluster.target} from vault ${point.vault}${dryRun ? ' (dry run: nothing was stored)' : ''}`,
  );
  for (const { what } of result.findings.slice(0, NOTED)) context.note(`${name}: ${what}`);
  if (result.findings.length > NOTED)
    context.note(`${name}: … and ${result.findings.length - NOTED} more of that kind`);
  requireAll(result, place);
  return {
    path: cluster.target,
    bytes: result.bytes,
    entries: result.objects.length,
    recoveredToMs: point.recoveryPointMs,
  };
}

function requireAll(result: ObjectsResult, { name, cluster, site }: ObjectsPlace): void {
  const kind = failureOfAll(result);
  if (kind === undefined) return;
  if (result.stopped) throw result.stopped;
  const failed = result.objects.filter(({ error }) => error);
  const told = failed.slice(0, SHOWN).map(({ ref, error }) => `${showRef(ref)}: ${error?.message}`);
  const more = failed.length > SHOWN ? `; and ${failed.length - SHOWN} more` : '';
  throw new DrError(
    kind,
    `${failed.length} of ${result.objects.length} objects of ${name} failed: ${told.join('; ')}${more}`,
    {
      where: cluster.target,
      next: `See all of it with "dr config restore ${name} --to ${site} --diff"; mend it there, or take fields over with --force-conflicts, and go on.`,
    },
  );
}
