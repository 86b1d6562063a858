import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Progress } from '../base/progress.ts';
import type { RunMode } from '../steps/contract.ts';
import type { RecoveryTarget, World } from '../steps/ports.ts';
import { timedId } from '../vault/layout.ts';
import type { Lease } from '../vault/lease.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { EventOf, Outcome, StoredError } from './events.ts';
import { type Ending, Executor } from './execute.ts';
import { findUnfinished, type UnfinishedRun } from './history.ts';
import { Journal, type OnEntry } from './journal.ts';
import { parseRunbook, type Registry } from './load.ts';
import { membersAt, objectivesAt } from './members.ts';
import { instancesOf, leaseOf, type Runbook, type StepInstance } from './model.ts';
import { buildReport, type RenderedReport, type RunReport, storeReport } from './run-report.ts';

/** What the engine works with; built by the command. */
export interface Engine {
  readonly world: World;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Log;
  /** Ctrl-C. */
  readonly signal: AbortSignal;
  /** Who runs this: `ops@db-host-1, process 4711`. */
  readonly by: string;
  /** Six random characters a-z0-9. */
  random(): string;
  acquireLease(store: ObjectStore, name: string, purpose: string): Promise<Lease>;
  readonly onEntry: OnEntry;
  onProgress(step: string, progress: Progress): void;
  /** The report as documents for people, for the vaults. */
  renderReport(report: RunReport): RenderedReport;
}

export interface RunRequest {
  readonly runbook: Runbook;
  readonly mode: RunMode;
  readonly at: RecoveryTarget;
  /** When the command was given, milliseconds since 1970; default: now. */
  readonly askedAtMs?: number;
  /** Why, in the words of who started it. */
  readonly reason: string;
  readonly acceptSplitBrain: string | undefined;
  /** Do not go on with an unfinished run: abandon it and begin anew. */
  readonly fresh: boolean;
  /** Give up the unfinished run: take back what can be taken back, and begin nothing. */
  readonly giveUp?: boolean;
}

export interface RunResult {
  readonly runId: string;
  /** An unfinished run was continued. */
  readonly resumed: boolean;
  /** Undefined: the run has stopped and the same command continues it. */
  readonly outcome: Outcome | undefined;
  /** Why it stopped, failed or could not clean up. */
  readonly error: StoredError | undefined;
  readonly report: RunReport;
}

/** The vault that holds the journal: that of the recovery site, because it has to be there when the old site is not. */
export function journalStore(world: World): ObjectStore {
  const store = world.vaults.find(({ name }) => name === world.site.vault);
  if (store) return store;
  throw new DrError(
    'unreachable',
    `the vault of site ${world.site.name} cannot be opened, and the journal belongs there`,
    {
      where: world.site.vault,
      next: 'Make that vault reachable; "dr doctor" says what is wrong with it.',
    },
  );
}

/**
 * Runs a runbook from its beginning, or goes on with the unfinished run of the same mode. Returns when the run has ended or stopped;
 * throws when nothing (more) may be done: `lease-held`, `config`, `refused`, a vault that takes no journal entry.
 */
export async function executeRun(engine: Engine, request: RunRequest): Promise<RunResult> {
  const store = journalStore(engine.world);
  const { mode } = request;
  const purpose = `${mode} to ${engine.world.site.name}`;
  const lease = await engine.acquireLease(store, leaseOf(mode), purpose);
  try {
    const unfinished = await findUnfinished(store, leaseOf(mode), engine.log);
    const [newest] = unfinished;
    if (newest && !request.fresh && !request.giveUp) return await resumeRun(engine, request, lease, newest);
    let given: RunResult | undefined;
    for (const run of unfinished) given = await abandon(engine, lease, run);
    if (!request.giveUp) return await startRun(engine, request, lease);
    if (given) return given;
    throw new DrError('not-found', `there is no unfinished ${mode} to give up`, { next: 'See "dr runs".' });
  } finally {
    await lease.release();
  }
}

async function startRun(engine: Engine, request: RunRequest, lease: Lease): Promise<RunResult> {
  const { world, clock } = engine;
  const { runbook, mode } = request;
  const journal = Journal.begin(journalOptions(engine, timedId(clock.now(), engine.random())), engine.onEntry);
  const instances = instancesOf(runbook, mode, membersAt(world.config, world.site.name));
  await lease.stillHeld();
  await journal.append({
    type: 'run-started',
    mode,
    site: world.site.name,
    from: world.from.name,
    at: request.at,
    ...(request.askedAtMs === undefined ? {} : { askedAt: new Date(request.askedAtMs).toISOString() }),
    reason: request.reason,
    runbook: { name: runbook.name, path: runbook.source.path, text: runbook.source.text },
    objectives: world.config.objectives,
    resourceObjectives: objectivesAt(world.config),
    steps: instances.map(plannedStep),
  });
  await recordAcceptance(journal, request);
  return await goOn(engine, journal, instances, lease, false);
}

async function resumeRun(engine: Engine, request: RunRequest, lease: Lease, run: UnfinishedRun): Promise<RunResult> {
  const { world } = engine;
  const { started } = run;
  const differs = [
    started.mode !== request.mode && `it is a ${started.mode}, this is a ${request.mode}`,
    started.site !== world.site.name && `it goes to ${started.site}, this goes to ${world.site.name}`,
    JSON.stringify(started.at) !== JSON.stringify(request.at) && 'it recovers to another moment (--at)',
  ].filter((reason) => reason !== false);
  if (differs.length > 0) {
    throw new DrError(
      'refused',
      `run ${run.id} has not finished, and this command is another one: ${differs.join('; ')}`,
      {
        where: `run ${run.id}`,
        next: 'Give the command with which it was started to go on with it, or add --new to abandon it and begin anew.',
      },
    );
  }
  const journal = await Journal.open(journalOptions(engine, run.id), engine.onEntry);
  const instances = instancesFor(engine, started);
  await lease.stillHeld();
  await journal.append({ type: 'run-resumed' });
  if (journal.state.status === 'running') await recordAcceptance(journal, request);
  return await goOn(engine, journal, instances, lease, true);
}

/**
 * Ends an unfinished run for good. A drill is cleaned up on the way, and a planned move taken back as far as that is possible. Throws
 * `refused` for a planned move whose new primary may live already: then there is only the way forward.
 */
async function abandon(engine: Engine, lease: Lease, run: UnfinishedRun): Promise<RunResult> {
  const { mode, site } = run.started;
  const begun = run.state.steps.find(({ plan, attempts }) => plan.uses === 'database.promote' && attempts > 0);
  const planned = mode === 'switchover' || mode === 'failback';
  if (planned && begun) {
    throw new DrError('refused', `run ${run.id} has begun to promote: ${site} may be the primary already`, {
      where: begun.plan.id,
      next: `Go on with it: dr ${mode} --to ${site}.`,
    });
  }
  const journal = await Journal.open(journalOptions(engine, run.id));
  await lease.stillHeld();
  await journal.append({ type: 'run-resumed' });
  if (mode === 'drill' || planned) {
    if (journal.state.status === 'running') await journal.append({ type: 'undo-started', outcome: 'abandoned' });
    await new Executor({ ...engine, journal, instances: instancesFor(engine, run.started), lease }).backward();
    const stuck = journal.state.steps.find(({ status }) => status === 'undo-failed');
    // The old primary may still be locked: that must not be forgotten with the run.
    if (planned && stuck) {
      throw new DrError('refused', `run ${run.id} could not be taken back: ${stuck.error?.message}`, {
        where: stuck.plan.id,
        next: `Mend what it complains about, then give it up again: dr ${mode} --abandon.`,
      });
    }
  }
  await journal.append({ type: 'run-finished', outcome: 'abandoned' });
  const report = await saveReport(engine, journal);
  return { runId: journal.runId, resumed: true, outcome: 'abandoned', error: undefined, report };
}

async function goOn(
  engine: Engine,
  journal: Journal,
  instances: readonly StepInstance[],
  lease: Lease,
  resumed: boolean,
): Promise<RunResult> {
  const executor = new Executor({ ...engine, journal, instances, lease });
  if (journal.state.status === 'running') await conclude(journal, await executor.forward());
  if (journal.state.status === 'undoing') {
    await executor.backward();
    const { outcome, steps } = journal.state;
    // What could not be removed keeps the run open: the next command tries again.
    if (outcome && !steps.some(({ status }) => status === 'undo-failed'))
      await journal.append({ type: 'run-finished', outcome });
  }
  const report = await saveReport(engine, journal);
  const { status, outcome, error, steps } = journal.state;
  const leftover = steps.find((step) => step.status === 'undo-failed');
  return {
    runId: journal.runId,
    resumed,
    outcome: status === 'finished' ? outcome : undefined,
    error: leftover?.error ?? error,
    report,
  };
}

/** From how the steps ended to what becomes of the run. */
async function conclude(journal: Journal, ending: Ending): Promise<void> {
  const drill = journal.state.started?.mode === 'drill';
  if (ending.kind === 'complete') {
    const outcome = journal.state.steps.some(({ tolerated }) => tolerated) ? 'degraded' : 'succeeded';
    await journal.append(drill ? { type: 'undo-started', outcome } : { type: 'run-finished', outcome });
    return;
  }
  const { error } = ending;
  const because = ending.kind;
  if (drill || (ending.kind === 'failed' && ending.undo))
    await journal.append({ type: 'undo-started', outcome: because, error });
  else await journal.append({ type: 'run-stopped', because, error });
}

/** The report is made from the journal, so a vault that does not take it loses nothing: it can be made again. */
async function saveReport(engine: Engine, journal: Journal): Promise<RunReport> {
  const report = buildReport(journal.runId, journal.entries, journal.state, journal.lastDigest);
  const rendered = engine.renderReport(report);
  const others = engine.world.vaults.filter(({ name }) => name !== engine.world.site.vault);
  for (const store of [journalStore(engine.world), ...others]) {
    try {
      await storeReport(store, report, rendered);
    } catch (error) {
      engine.log.warn(
        { vault: store.name, reason: messageOf(error) },
        'The report of the run could not be stored here.',
      );
    }
  }
  await journal.settle();
  return report;
}

async function recordAcceptance(journal: Journal, request: RunRequest): Promise<void> {
  if (request.acceptSplitBrain !== undefined)
    await journal.append({ type: 'split-brain-accepted', name: request.acceptSplitBrain });
}

/** The steps of a run as it was started; refused when the configuration has other resources now. */
function instancesFor(engine: Engine, started: EventOf<'run-started'>): StepInstance[] {
  const { world, registry } = engine;
  const runbook = parseRunbook(started.runbook.text, started.runbook.path, registry);
  const instances = instancesOf(runbook, started.mode, membersAt(world.config, started.site));
  const now = instances.map(({ id }) => id).join(', ');
  const then = started.steps.map(({ id }) => id).join(', ');
  if (now === then) return instances;
  throw new DrError('refused', 'the configuration has changed since the run began: it has other resources now', {
    where: `then: ${then}; now: ${now}`,
    next: 'Use the configuration with which the run began, or abandon the run and begin anew with --new.',
  });
}

function journalOptions(engine: Engine, runId: string) {
  const { world, by, clock, log } = engine;
  return { store: journalStore(world), copies: world.vaults, runId, by, executor: engine.random(), clock, log };
}

function plannedStep(instance: StepInstance) {
  const { spec, each } = instance;
  return {
    id: instance.id,
    stage: spec.stage,
    group: instance.group,
    uses: spec.kind.name,
    title: spec.title,
    ...(each === undefined ? {} : { each }),
    needsApproval: spec.approval !== undefined,
    undoable: spec.kind.undoable,
  };
}
