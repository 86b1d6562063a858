import { randomBytes } from 'node:crypto';
import { delimiter } from 'node:path';
import { readActiveSite } from '../backup/active-site.ts';
import { DrError } from '../base/errors.ts';
import { formatLsn } from '../postgres/lsn.ts';
import { renderRunHtml } from '../report/run-html.ts';
import { renderRunMarkdown } from '../report/run-markdown.ts';
import { renderRunPlan } from '../report/run-plan.ts';
import { renderRunText } from '../report/run-text.ts';
import { list } from '../report/values.ts';
import {
  findUnfinished,
  forecastOf,
  stepHistory,
  storeMissingReports,
  type UnfinishedRun,
} from '../runbook/history.ts';
import { loadRunbook } from '../runbook/load.ts';
import { leaseOf, type Runbook } from '../runbook/model.ts';
import { planRun } from '../runbook/plan.ts';
import { type Engine, executeRun, type RunRequest, type RunResult } from '../runbook/run.ts';
import type { RenderedReport, RunReport } from '../runbook/run-report.ts';
import { withVolumes } from '../steps/cluster/volume-port.ts';
import type { RunMode } from '../steps/contract.ts';
import type { RecoveryTarget } from '../steps/ports.ts';
import { networkProbes } from '../steps/probes.ts';
import { openRecovery } from '../steps/recovery-port.ts';
import { stepRegistry } from '../steps/registry.ts';
import { sqlWriters } from '../steps/writers.ts';
import type { TrafficDriver } from '../traffic/contract.ts';
import { openTraffic } from '../traffic/open.ts';
import { acquireLease } from '../vault/lease.ts';
import { currentHolder, describeHolder } from '../vault/lease-holder.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { At, FailoverOptions } from './options.ts';
import { createRunView, type Forecast } from './run-view.ts';
import { openClusters } from './site-clusters.ts';
import { trafficPorts } from './traffic-ports.ts';
import { openWorld, type World } from './world.ts';

/** `dr failover`, `dr switchover`, `dr failback`: plans, drills or executes their runbooks. */
export async function run(context: CommandContext, options: FailoverOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: options.mode === 'plan' ? 'read' : 'write' });
  const mode = options.mode === 'drill' ? 'drill' : options.verb;
  if (options.mode !== 'plan') await storeMissingReports(world.stores, renderReport, context.log, context.signal);
  const unfinished = options.fresh ? undefined : await findUnfinishedAnywhere(context, world, mode);
  const { from, to } = await chooseSites(context, world, options, unfinished);
  const name = options.runbook ?? options.verb;
  const runbook = await loadRunbook(world.config.runbooks, name, stepRegistry);
  requireMode(runbook, mode);
  if (options.mode === 'real') await confirm(context, options, from, to);

  await using drivers = openDrivers(context, world);
  await using clusters = openClusters(context, world.config);
  const recoveryParts = {
    config: world.config,
    stores: inOrder(world, to),
    keyRing: world.keyRing,
    pool: world.pool,
    searchPath: (context.env['PATH'] ?? '').split(delimiter).filter((directory) => directory !== ''),
    log: context.log,
  };
  await using recovery = withVolumes(openRecovery(recoveryParts), {
    ...recoveryParts,
    cluster: clusters.get,
    clock: context.clock,
  });
  const view = createRunView(context.say, context.onProgress, await forecastFor(context, world, to, runbook));
  const holder = await currentHolder();
  const engine: Engine = {
    world: {
      config: world.config,
      site: siteOf(world, to),
      from: siteOf(world, from),
      vaults: inOrder(world, to),
      recovery,
      probes: networkProbes,
      writers: sqlWriters,
      traffic: drivers.get,
      cluster: clusters.get,
    },
    registry: stepRegistry,
    clock: context.clock,
    log: context.log,
    signal: context.signal,
    by: describeHolder(holder),
    random: () => randomBytes(3).toString('hex'),
    acquireLease: async (store, name, purpose) =>
      await acquireLease(store, name, { purpose, holder, clock: context.clock, log: context.log }),
    onEntry: view.onEntry,
    onProgress: view.onProgress,
    renderReport,
  };
  const request: RunRequest = {
    runbook,
    mode,
    // "10 minutes ago" means another moment each time it is said: a run that goes on keeps the one it began with.
    at:
      unfinished && options.at.kind === 'time' && unfinished.started.at.kind === 'time'
        ? unfinished.started.at
        : plainAt(options.at),
    askedAtMs: context.startedAtMs,
    reason: options.reason ?? (mode === 'drill' ? 'drill' : 'no reason given'),
    acceptSplitBrain: options.acceptSplitBrain,
    fresh: options.fresh,
    giveUp: options.abandon,
  };
  if (options.mode === 'plan') {
    const plan = await planRun(engine, request);
    return { data: plan, text: renderRunPlan(plan), ...(plan.ready ? {} : { failure: 'check-failed' }) };
  }
  const result = await executeRun(engine, request);
  const failure = failureOf(result);
  return { data: result.report, text: renderRunText(result.report), ...(failure ? { failure } : {}) };
}

function renderReport(report: RunReport): RenderedReport {
  return { markdown: renderRunMarkdown(report), html: renderRunHtml(report) };
}

/** What earlier runs took; a vault that cannot say so must not keep anybody waiting. */
async function forecastFor(context: CommandContext, world: World, to: string, runbook: Runbook): Promise<Forecast> {
  const store = world.stores.find(({ name }) => name === siteOf(world, to).vault);
  if (store === undefined) return new Map();
  try {
    return forecastOf(
      await stepHistory(store, runbook.name, AbortSignal.any([context.signal, AbortSignal.timeout(5000)])),
    );
  } catch (error) {
    context.signal.throwIfAborted();
    context.log.debug({ vault: store.name, error }, 'no forecast: the reports of earlier runs cannot be read');
    return new Map();
  }
}

/** A runbook is run only in a mode that it was written for. */
function requireMode({ name, modes, source }: Runbook, mode: RunMode): void {
  if (modes.includes(mode)) return;
  throw new DrError('usage', `runbook ${name} is not made for a ${mode}, but for: ${modes.join(', ')}`, {
    where: source.path,
    next: 'Use the command of one of these, or another --runbook.',
  });
}

/** What the shell is told about a run that came to some end. */
function failureOf({ outcome, error, report }: RunResult): CommandResult['failure'] {
  if (outcome === 'succeeded' || outcome === 'degraded') {
    // A drill proves the way, not the age of what the vaults hold at this moment.
    const missed = report.resources.some(
      ({ status, met }) => status === 'lost' || (met === false && report.mode !== 'drill'),
    );
    return outcome === 'degraded' || missed || !report.rto.met ? 'objective-broken' : undefined;
  }
  return (error?.kind as CommandResult['failure']) ?? 'internal';
}

/**
 * The unfinished run that "the same command" means, wherever its journal lies: once the new site is recorded as active, the vaults
 * alone would suggest to fail over back to the old one.
 */
async function findUnfinishedAnywhere(
  context: CommandContext,
  world: World,
  mode: RunMode,
): Promise<UnfinishedRun | undefined> {
  const found: UnfinishedRun[] = [];
  for (const store of world.stores) {
    const runs = await findUnfinished(store, leaseOf(mode), context.log).catch((error: unknown) => {
      context.log.warn({ vault: store.name, error }, 'this vault cannot be asked for unfinished runs');
      return [];
    });
    // The others hold copies.
    found.push(...runs.filter(({ started }) => world.config.sites[started.site]?.vault === store.name));
  }
  return found.sort((a, b) => (a.id < b.id ? 1 : -1))[0];
}

async function chooseSites(
  context: CommandContext,
  world: World,
  options: FailoverOptions,
  unfinished: UnfinishedRun | undefined,
): Promise<{ from: string; to: string }> {
  if (unfinished && (options.to === undefined || options.to === unfinished.started.site)) {
    return { from: unfinished.started.from, to: unfinished.started.site };
  }
  if (unfinished) {
    throw new DrError('refused', `run ${unfinished.id} to ${unfinished.started.site} has not finished`, {
      where: `run ${unfinished.id}`,
      next: `Go on with it (--to ${unfinished.started.site}), or abandon it with --new.`,
    });
  }
  const { active } = await readActiveSite(world.stores, context.signal);
  const from = active?.site ?? world.config.active;
  const others = Object.keys(world.config.sites).filter((name) => name !== from);
  const here = context.site !== from ? context.site : undefined;
  const to = options.to ?? here ?? (others.length === 1 ? others[0] : undefined);
  if (to === undefined) {
    throw new DrError('usage', 'there are several sites to recover at', {
      next: `Add --to ${others.join(' or --to ')}.`,
    });
  }
  // Given once more after it was done, the same command would go back: nothing fails back by itself.
  if (options.to === undefined && active?.runId !== undefined && options.mode === 'real') {
    throw new DrError(
      'refused',
      `${from} is the active site since ${active.since} (${active.by}): where to is not clear`,
      {
        where: `record of the active site, generation ${active.generation}`,
        next: `If that was what you wanted, it is done. To move on to ${to}, say so: --to ${to}.`,
      },
    );
  }
  if (to === from) {
    const since = active ? ` since ${active.since} (${active.by})` : ' by the configuration';
    throw new DrError('refused', `${to} is the active site${since}: there is nothing to move`, {
      next: `See "dr runs"; the other sites are ${list(others)}.`,
    });
  }
  return { from, to };
}

/** Nobody moves a system by a slip of the finger: the site's name has to be typed, or --yes given. */
async function confirm(context: CommandContext, options: FailoverOptions, from: string, to: string): Promise<void> {
  if (options.yes) return;
  const { verb, abandon } = options;
  if (context.ask === undefined) {
    throw new DrError('refused', `a ${verb} is not ${abandon ? 'given up' : 'begun'} without a person who means it`, {
      next: 'Add --yes, and --reason "WHY" for the report. "--plan" shows what it would do.',
    });
  }
  context.say(
    abandon
      ? `This gives up the unfinished ${verb} to ${to}: what can be taken back is taken back.`
      : `This moves the system from ${from} to ${to}: it ${verb === 'failover' ? 'promotes the databases there' : `locks the writers out at ${from}, promotes the databases at ${to}`} and redirects the traffic.`,
  );
  const typed = await context.ask(
    `Type the name of the site that takes over (${to}) to ${abandon ? 'give up' : 'begin'}: `,
  );
  if (typed.trim() === to) return;
  throw new DrError('refused', `"${typed.trim()}" is not ${to}: nothing has been done`, {
    next: 'Run the command again and type the name.',
  });
}

/** The recovery site's own vault first: nearest, and surely there. */
function inOrder(world: World, to: string) {
  const own = siteOf(world, to).vault;
  return [...world.stores].sort((a, b) => Number(b.name === own) - Number(a.name === own));
}

function siteOf(world: World, name: string) {
  const site = Object.hasOwn(world.config.sites, name) ? world.config.sites[name] : undefined;
  if (site) return site;
  throw new DrError('usage', `there is no site "${name}"`, {
    next: `Name one of: ${list(Object.keys(world.config.sites))}.`,
  });
}

function plainAt(at: At): RecoveryTarget {
  return at.kind === 'lsn' ? { kind: 'lsn', lsn: formatLsn(at.lsn) } : at;
}

function openDrivers(context: CommandContext, world: World): AsyncDisposable & { get(name: string): TrafficDriver } {
  const drivers = new Map<string, TrafficDriver>();
  return {
    get: (name) => {
      const config = world.config.traffic[name];
      if (config === undefined)
        throw new DrError('not-found', `the configuration has no traffic "${name}"`, {
          where: world.config.source.path,
        });
      const driver = drivers.get(name) ?? openTraffic(config, context.log, {}, trafficPorts(context));
      drivers.set(name, driver);
      return driver;
    },
    [Symbol.asyncDispose]: async () => {
      for (const driver of drivers.values()) driver.close();
    },
  };
}
