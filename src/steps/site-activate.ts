import { z } from 'zod';
import { portFinding, spaceFindings } from '../backup/doctor/host.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Finding as DoctorFinding } from '../base/finding.ts';
import { forSite } from '../config/sites.ts';
import { missingSchema } from './assess-resources.ts';
import { defineStep, runModes, type StepContext } from './contract.ts';
import { describeState } from './database-restore.ts';
import { databasePlace, describePlace, directoryPlace } from './places.ts';
import { type Finding, type ResourcePoint, resourcePointSchema } from './ports.ts';

export const siteActivate = defineStep({
  name: 'site.activate',
  summary: 'Make sure that the recovery site can take over: programs, space, places, ports, traffic permissions',
  effect: 'none',
  runsInPlan: true,
  modes: runModes,
  inDrill:
    'Looks at the scratch directory instead of the real places, and only reads the record; ports are not needed.',
  params: z.object({
    points: z
      .record(z.string(), resourcePointSchema)
      .describe('Recovery points, from assess.resources: they say what is needed.'),
    missing: z
      .array(missingSchema)
      .describe('Resources without one, from assess.resources: without a database a site does not take over.'),
  }),
  outputs: z.object({
    warnings: z.array(z.string()).describe('What does not stop a recovery but should be mended.'),
  }),
  timeoutMs: 2 * 60_000,
  async plan({ run }) {
    return {
      target: `site ${run.site}`,
      present: 'looked at while planning, see the evidence',
      will: ['check everything that the later steps need'],
      problems: [],
    };
  },
  async run(context, { points: all, missing }) {
    const { objects } = forSite(context.world.config, context.run.site);
    // Objects go into a cluster: there is no place on this machine to look at.
    const points = Object.values(all).filter(({ resource }) => objects[resource] === undefined);
    const findings: Finding[] = (
      await Promise.all([
        ...points.map((point) =>
          point.kind === 'database' ? checkDatabasePlace(context, point) : checkDirectoryPlace(context, point),
        ),
        checkSpace(context, points),
      ])
    ).flat();
    const warnings = await checkTraffic(context);
    for (const { name, kind, problem } of missing) {
      if (kind !== 'database') warnings.push(`${name} will not come back: ${problem}`);
      else {
        const next = `Make a recovery point of ${name} reachable, or give it a place at ${context.run.site}.`;
        findings.push({ ok: false, what: `database ${name} cannot be brought back: ${problem}`, next });
      }
    }
    for (const { what, ok } of findings) context.note(ok ? what : `PROBLEM: ${what}`);
    for (const warning of warnings) context.note(`warning: ${warning}`);
    const problems = findings.filter(({ ok }) => !ok);
    if (problems.length > 0) {
      throw new DrError(
        'refused',
        `site ${context.run.site} cannot take over: ${problems.map(({ what }) => what).join('; ')}`,
        {
          where: `site ${context.run.site}`,
          next: [...problems.flatMap(({ next }) => next ?? []), 'Then run the same command again.'].join(' '),
        },
      );
    }
    return { warnings };
  },
});

/** What a person does about a volume that is not free. */
const NEXT_VOLUME =
  'Make sure that it is not the living database; then scale its StatefulSet to 0 and delete its claim: dr makes it anew.';

async function checkDatabasePlace(context: StepContext, point: ResourcePoint): Promise<Finding[]> {
  const { world, run, signal } = context;
  const place = databasePlace(context, point.resource);
  const findings = [...(await world.recovery.preflight(place, point, signal))];
  const state = await world.recovery.databaseState(place, signal);
  const what = `${describePlace(place)}: ${describeState(state)}`;
  if (state.state === 'foreign') {
    findings.push({
      ok: false,
      what,
      next: place.volume ? NEXT_VOLUME : `Move ${place.directory} away or empty it, if it is not needed.`,
    });
  } else if (state.state === 'promoted' && state.runId !== run.id) {
    const next = place.volume
      ? NEXT_VOLUME
      : `Make sure that ${place.directory} is not the living database; then move it away.`;
    findings.push({ ok: false, what, next });
  } else findings.push({ ok: true, what });

  const target = forSite(world.config, run.site).databases[point.resource]?.target;
  const ours = (state.state === 'recovered' || state.state === 'promoted') && state.runId === run.id;
  if (target && !place.isolated && !place.volume && !ours) {
    findings.push(asFinding(await portFinding(target.listen, target.port)));
  }
  return findings;
}

async function checkDirectoryPlace(context: StepContext, point: ResourcePoint): Promise<Finding[]> {
  const place = directoryPlace(context, point.resource);
  const state = await context.world.recovery.directoryState(place, context.signal);
  if (state.state !== 'foreign') return [{ ok: true, what: `${place.path}: ready for ${point.resource}` }];
  const next = `Move ${place.path} away or empty it, if it is not needed.`;
  return [{ ok: false, what: `${place.path} ${state.detail}`, next }];
}

/** What comes back to each file system fits there. */
async function checkSpace(context: StepContext, points: readonly ResourcePoint[]): Promise<Finding[]> {
  // A volume's size is looked at where its claim is.
  const here = points.filter(
    ({ kind, resource }) => kind !== 'database' || databasePlace(context, resource).volume === undefined,
  );
  const needs = here.map(({ kind, resource, bytes }) => ({
    path: kind === 'database' ? databasePlace(context, resource).directory : directoryPlace(context, resource).path,
    bytes,
  }));
  return (await spaceFindings(needs)).map(asFinding);
}

/** What the doctor says of this machine, as a step says it. */
function asFinding({ verdict, what, next }: DoctorFinding): Finding {
  return { ok: verdict !== 'fail', what, ...(next === undefined ? {} : { next }) };
}

async function checkTraffic(context: StepContext): Promise<string[]> {
  const { world, run, signal } = context;
  const warnings: string[] = [];
  for (const name of Object.keys(forSite(world.config, run.site).endpoints)) {
    try {
      const driver = world.traffic(name);
      // The doctor asks for permission with a change that must be rejected: in a drill not even that.
      if (run.mode === 'drill') {
        const { values } = await driver.current(signal);
        if (values.length === 0) warnings.push(`traffic ${name}: there is no record`);
        continue;
      }
      for (const { ok, what, next } of await driver.doctor(signal)) {
        if (!ok) warnings.push(`traffic ${name}: ${what}${next ? ` (${next})` : ''}`);
      }
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      warnings.push(`traffic ${name}: ${messageOf(error)}`);
    }
  }
  return warnings;
}
