import { statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { z } from 'zod';
import { codeOf, DrError, isAbort, messageOf } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import { missingSchema } from './assess-resources.ts';
import { defineStep, runModes, type StepContext } from './contract.ts';
import { describeState } from './database-restore.ts';
import { databasePlace, directoryPlace } from './places.ts';
import { type Finding, type ResourcePoint, resourcePointSchema } from './ports.ts';

/** A restore needs its size and this much more, for WAL, spool and temporary files. */
const SPACE_FACTOR = 1.1;
const SPACE_EXTRA = 256 * 1024 * 1024;

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
  async run(context, { points, missing }) {
    const findings: Finding[] = (
      await Promise.all([
        ...Object.values(points).map((point) =>
          point.kind === 'database' ? checkDatabasePlace(context, point) : checkDirectoryPlace(context, point),
        ),
        checkSpace(context, Object.values(points)),
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

async function checkDatabasePlace(context: StepContext, point: ResourcePoint): Promise<Finding[]> {
  const { world, run, signal } = context;
  const place = databasePlace(context, point.resource);
  const findings = [...(await world.recovery.preflight(place, point, signal))];
  const state = await world.recovery.databaseState(place, signal);
  const what = `${place.directory}: ${describeState(state)}`;
  if (state.state === 'foreign') {
    findings.push({ ok: false, what, next: `Move ${place.directory} away or empty it, if it is not needed.` });
  } else if (state.state === 'promoted' && state.runId !== run.id) {
    const next = `Make sure that ${place.directory} is not the living database; then move it away.`;
    findings.push({ ok: false, what, next });
  } else findings.push({ ok: true, what });

  const target = forSite(world.config, run.site).databases[point.resource]?.target;
  const ours = (state.state === 'recovered' || state.state === 'promoted') && state.runId === run.id;
  if (target && !place.isolated && !ours) findings.push(await checkPort(target.listen, target.port));
  return findings;
}

async function checkDirectoryPlace(context: StepContext, point: ResourcePoint): Promise<Finding[]> {
  const place = directoryPlace(context, point.resource);
  const state = await context.world.recovery.directoryState(place, context.signal);
  if (state.state !== 'foreign') return [{ ok: true, what: `${place.path}: ready for ${point.resource}` }];
  const next = `Move ${place.path} away or empty it, if it is not needed.`;
  return [{ ok: false, what: `${place.path} ${state.detail}`, next }];
}

async function checkPort(listen: string, port: number): Promise<Finding> {
  // A list or "*" is PostgreSQL's notation: the port has to be free on all addresses then.
  const host = /^[\d.:a-f]+$/i.test(listen) || listen === 'localhost' ? listen : undefined;
  const what = `port ${port} on ${host ?? 'all addresses'}`;
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ port, ...(host === undefined ? {} : { host }) }, resolve);
    });
    return { ok: true, what: `${what} is free` };
  } catch (error) {
    const taken = codeOf(error) === 'EADDRINUSE';
    return {
      ok: false,
      what: `${what} ${taken ? 'is taken by another program' : `cannot be used: ${messageOf(error)}`}`,
      next: taken
        ? `Stop what listens on port ${port}, or change the port in the configuration.`
        : 'Correct "listen" in the configuration.',
    };
  } finally {
    server.close();
  }
}

/** Adds up what goes to each file system and compares it with what is free there. */
async function checkSpace(context: StepContext, points: readonly ResourcePoint[]): Promise<Finding[]> {
  const volumes = new Map<string, { free: number; needed: number; where: string }>();
  for (const point of points) {
    const where =
      point.kind === 'database'
        ? databasePlace(context, point.resource).directory
        : directoryPlace(context, point.resource).path;
    const volume = await volumeOf(where);
    const sum = volumes.get(volume.id) ?? { free: volume.free, needed: SPACE_EXTRA, where };
    sum.needed += point.bytes * SPACE_FACTOR;
    volumes.set(volume.id, sum);
  }
  return [...volumes.values()].map(({ free, needed, where }) => ({
    ok: free >= needed,
    what: `${formatBytes(free)} are free for ${where}, ${formatBytes(needed)} are needed`,
    next: `Free space on the file system of ${where}, or choose another place in the configuration.`,
  }));
}

/** The file system of a path that may not exist yet. */
async function volumeOf(path: string): Promise<{ id: string; free: number }> {
  for (let at = path; ; at = dirname(at)) {
    try {
      const { bsize, bavail, type, blocks, files } = await statfs(at);
      // statfs has no identity; these numbers together are one for all practical purposes.
      return { id: [type, bsize, blocks, files].join('/'), free: bsize * bavail };
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || at === dirname(at)) throw error;
    }
  }
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
