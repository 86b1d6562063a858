import { join } from 'node:path';
import { DrError } from '../base/errors.ts';
import { forSite } from '../config/sites.ts';
import type { Config, WorkloadConfig } from '../config/types.ts';
import type { StepContext } from './contract.ts';
import type { DatabasePlace, DirectoryPlace, ResourcePoint } from './ports.ts';

/** The directory that holds everything a drill restores. */
export function drillDirectory(context: StepContext): string {
  return join(context.world.config.scratch, `drill-${context.run.id}`);
}

/** Where a database is brought up in this run: at the recovery site's place, or in a drill at a scratch place of its own. */
export function databasePlace(context: StepContext, name: string): DatabasePlace {
  const { run, world } = context;
  const isolated = run.mode === 'drill';
  const target = forSite(world.config, run.site).databases[name]?.target;
  if (target === undefined) throw noPlace(context, name);
  const directory = isolated ? join(drillDirectory(context), name) : target.dataDirectory;
  const volume = isolated ? undefined : volumeAt(world.config, name, run.site);
  return { name, runId: run.id, directory, isolated, site: run.site, ...(volume && { volume }) };
}

/** The StatefulSet in whose volume a database is brought up at a site; undefined where it is a server of this machine. */
export function volumeAt(config: Config, name: string, site: string): WorkloadConfig | undefined {
  return Object.values(config.workloads).find(
    ({ database, restore, sites }) => database === name && restore !== undefined && sites.includes(site),
  );
}

/** The place in words. */
export function describePlace({ directory, volume }: DatabasePlace): string {
  if (volume === undefined) return directory;
  return `volume of StatefulSet ${volume.namespace}/${volume.name} (${directory})`;
}

/** The same for a data set or a configuration. */
export function directoryPlace(context: StepContext, name: string): DirectoryPlace {
  const { run, world } = context;
  const place = forSite(world.config, run.site).directories[name];
  if (place === undefined) throw noPlace(context, name);
  return { name, runId: run.id, path: run.mode === 'drill' ? join(drillDirectory(context), name) : place.path };
}

/** How clients reach a database at a site, credentials included: for probes, never for messages. */
export function databaseUrl(context: StepContext, name: string, site: string): string {
  const place = forSite(context.world.config, site).databases[name];
  if (place === undefined) throw noPlace(context, name);
  return place.url;
}

/** The member that this repetition of a step works on. */
export function memberOf(context: StepContext): string {
  if (context.each !== undefined) return context.each;
  throw new DrError('internal', 'a step that works on one member was run without one');
}

/** The recovery point of one resource among those that the assessment chose. */
export function pointOf(points: Readonly<Record<string, ResourcePoint>>, name: string): ResourcePoint {
  const point = Object.hasOwn(points, name) ? points[name] : undefined;
  if (point) return point;
  throw new DrError('not-found', `no vault has a recovery point of ${name} that could be used`, {
    where: name,
    next: 'See the evidence of the assessment; make another vault reachable or choose another --at, then begin anew with --new.',
  });
}

function noPlace(context: StepContext, name: string): DrError {
  const { run, world } = context;
  return new DrError('config', `the configuration has no place for ${name} at site ${run.site}`, {
    where: world.config.source.path,
    next: `Add "recover.${run.site}" to ${name}.`,
  });
}
