import { userInfo } from 'node:os';
import { DrError, messageOf } from '../base/errors.ts';
import { renderRunHtml } from '../report/run-html.ts';
import { renderRunList } from '../report/run-list.ts';
import { renderRunMarkdown } from '../report/run-markdown.ts';
import { renderRunText } from '../report/run-text.ts';
import { answerApproval } from '../runbook/approval.ts';
import { listRuns } from '../runbook/history.ts';
import { type ReadJournal, readJournal } from '../runbook/journal.ts';
import { buildReport } from '../runbook/run-report.ts';
import { layout } from '../vault/layout.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { RunsOptions } from './options.ts';
import { openWorld } from './world.ts';

/** Newest runs that are listed. */
const LIMIT = 30;

/** `dr runs`: the runs that the vaults know; one of them in full; a person's answer to a step that waits. */
export async function run(context: CommandContext, options: RunsOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const { stores } = world;
  if (options.id === undefined) {
    const reachable: ObjectStore[] = [];
    for (const store of stores) {
      try {
        await store.folders('runs/', { signal: context.signal });
        reachable.push(store);
      } catch (error) {
        context.log.warn(
          { vault: store.name, reason: messageOf(error) },
          'this vault does not answer; its runs are missing here',
        );
      }
    }
    if (reachable.length === 0) {
      throw new DrError('unreachable', 'no vault answers', { next: 'Run "dr doctor" to see what each vault refuses.' });
    }
    const runs = await listRuns(reachable, LIMIT, context.signal);
    return { data: { runs: runs.map(summary) }, text: renderRunList(runs) };
  }
  const { journal, store } = await longestJournal(context, stores, options.id);
  if (options.answer) return await answer(context, store, options.id, journal, options.answer);
  const report = buildReport(options.id, journal.entries, journal.state, journal.lastDigest);
  const text =
    options.report === 'html'
      ? renderRunHtml(report)
      : options.report === 'markdown'
        ? renderRunMarkdown(report)
        : renderRunText(report);
  return { data: report, text };
}

async function answer(
  context: CommandContext,
  store: ObjectStore,
  runId: string,
  journal: ReadJournal,
  given: NonNullable<RunsOptions['answer']>,
): Promise<CommandResult> {
  const { step, kind, name, comment } = given;
  const { status, outcome } = journal.state;
  if (status === 'finished' || status === 'undoing') {
    throw new DrError(
      'refused',
      status === 'finished'
        ? `run ${runId} has ended (${outcome}): an answer changes nothing any more`
        : `run ${runId} is being taken back: an answer changes nothing any more`,
      {
        where: `${store.location}/${layout.run(runId)}`,
        next: `Nothing was recorded. See "dr runs ${runId}"; a new run asks anew.`,
      },
    );
  }
  const waiting = journal.state.steps.filter(({ approval }) => approval?.status === 'requested');
  const asked = waiting.find(({ plan }) => plan.id === step);
  if (asked === undefined) {
    const steps = waiting.map(({ plan }) => plan.id).join(', ');
    throw new DrError('not-found', `step ${step} of run ${runId} does not wait for an approval`, {
      next: waiting.length > 0 ? `Waiting: ${steps}.` : 'No step of this run waits for one.',
    });
  }
  const account = userInfo().username;
  const who = name ?? account;
  // The first answer counts: one that would not be accepted must not take the place of another.
  const from = asked.approval?.from ?? [];
  if (from.length > 0 && !from.includes(who)) {
    throw new DrError('refused', `${who} may not answer for step ${step} of run ${runId}: ${from.join(', ')} may`, {
      where: `${store.location}/${layout.run(runId)}`,
      next: 'The run goes on waiting. Let one of them answer, with --as and the name as it stands in the runbook.',
    });
  }
  const at = new Date(context.clock.now()).toISOString();
  await answerApproval(store, {
    runId,
    step,
    answer: kind,
    name: who,
    account,
    at,
    ...(comment ? { comment } : {}),
  });
  return {
    data: { runId, step, answer: kind },
    text: `${step} of run ${runId}: ${kind === 'approve' ? 'approved' : 'refused'} by ${who}.`,
  };
}

/** The journal from the vault that has the most of it: copies may lag. */
async function longestJournal(
  context: CommandContext,
  stores: readonly ObjectStore[],
  runId: string,
): Promise<{ journal: ReadJournal; store: ObjectStore }> {
  let best: { journal: ReadJournal; store: ObjectStore } | undefined;
  let failure: unknown;
  for (const store of stores) {
    try {
      const journal = await readJournal(store, runId, context.signal);
      if (!best || journal.entries.length > best.journal.entries.length) best = { journal, store };
    } catch (error) {
      context.signal.throwIfAborted();
      // "It is not here" says less than what is wrong elsewhere.
      if (failure === undefined || (failure instanceof DrError && failure.kind === 'not-found')) failure = error;
    }
  }
  if (best === undefined) throw failure;
  return best;
}

function summary(run: Awaited<ReturnType<typeof listRuns>>[number]) {
  const { state, ...rest } = run;
  const { mode, site, from, at, reason } = state?.started ?? {};
  return {
    ...rest,
    mode,
    site,
    from,
    at,
    reason,
    status: state?.status,
    outcome: state?.outcome,
    startedAtMs: state?.startedAtMs,
  };
}
