import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { DrError } from '../../src/base/errors.ts';
import { createRunView } from '../../src/commands/run-view.ts';
import { renderRunPlan } from '../../src/report/run-plan.ts';
import { headline, renderRunText } from '../../src/report/run-text.ts';
import { answerApproval } from '../../src/runbook/approval.ts';
import { parseRunbook } from '../../src/runbook/load.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { executeRun, type RunResult } from '../../src/runbook/run.ts';
import { type Collection, defineStep, type StepContext, type StepKind } from '../../src/steps/contract.ts';
import { errorOfKind, failureOf, TestWorld } from './world.ts';

// What people read before, during and after a run.

interface Part {
  readonly over?: Collection;
  readonly looks?: boolean;
  readonly needs?: z.ZodObject;
  readonly act?: (context: StepContext) => void;
}

const kind = (name: string, { over, looks = false, needs = z.object({}), act = () => {} }: Part = {}): StepKind =>
  defineStep({
    name,
    summary: name,
    effect: looks ? 'none' : 'changes',
    runsInPlan: looks,
    modes: ['failover', 'drill'],
    ...(over ? { over } : {}),
    params: needs,
    outputs: z.object({ found: z.string() }),
    timeoutMs: 60_000,
    plan: async () => ({ target: '', present: '', will: [], problems: [] }),
    run: async (context) => {
      act(context);
      return { found: 'replica 3' };
    },
    ...(looks ? {} : { undo: async () => {} }),
  });
const fails = (error: Error) => () => {
  throw error;
};

async function worldWith(steps: readonly string[], kinds: readonly StepKind[]): Promise<TestWorld> {
  const registry = new Map(kinds.map((known) => [known.name, known]));
  const lines = steps.map((step) => `    - ${step}\n`).join('');
  const text = `version: 1\nname: test\nsummary: x\nmodes: [failover, drill]\nstages:\n  restore:\n${lines}`;
  const world = await TestWorld.create(parseRunbook(text, 'test.yaml', registry));
  world.registry = registry;
  return world;
}

describe('the question of an approval', () => {
  const ask = [
    '{ id: look, uses: look }',
    '{ id: act, uses: act, forEach: databases, approval: { prompt: "${{ each.name }} at ${{ run.site }} from ${{ steps.look.outputs.found }}?", by: [Ada, Grace], timeout: 10m } }',
  ];
  const kinds = [kind('look', { looks: true }), kind('act', { over: 'databases' })];

  /** Runs it with an answer to every question; gives the questions, and the lines that a person saw. */
  async function asked(world: TestWorld, name: string, mode: 'failover' | 'drill' = 'failover') {
    const questions: string[] = [];
    const lines: string[] = [];
    const answers: Array<Promise<void>> = [];
    const view = createRunView(
      (line) => lines.push(line),
      () => {},
    );
    const engine = world.engine(undefined, {
      onEntry: (entry, state) => {
        view.onEntry(entry, state);
        const { event, runId, at } = entry;
        if (event.type !== 'approval-requested') return;
        questions.push(`${event.step}: ${event.prompt}`);
        answers.push(
          answerApproval(world.west, { runId, step: event.step, answer: 'approve', name, account: 'x', at }),
        );
      },
    });
    const result = await executeRun(engine, world.request({ mode }));
    await Promise.all(answers);
    return { questions, lines, result };
  }

  it('has its references filled in, in a plan as far as they are known, and is asked for each member', async () => {
    const world = await worldWith(ask, kinds);
    expect(renderRunPlan(await planRun(world.engine(), world.request()))).toContain(
      'asks  orders at west from replica 3?',
    );
    const { questions, result } = await asked(world, 'Ada');
    expect(questions).toEqual(['act[orders]: orders at west from replica 3?']);
    expect(result.outcome).toBe('succeeded');
  });

  it('that needs what a plan does not know shows the reference', async () => {
    const world = await worldWith(ask, [kind('look'), kind('act', { over: 'databases' })]);
    expect(renderRunPlan(await planRun(world.engine(), world.request()))).toContain(
      'asks  orders at west from ${{ steps.look.outputs.found }}?',
    );
  });

  it('comes with the command that answers it, and who may', async () => {
    const world = await worldWith(ask, kinds);
    const { lines } = await asked(world, 'Ada');
    expect(lines.join('\n')).toMatch(
      /Answer: "dr runs \S+ --approve 'act\[orders\]' --as NAME" \(NAME is Ada or Grace, written like this\)/,
    );
  });

  it('is asked in a drill too, which has ended when the answer is wrong', async () => {
    const { result } = await asked(await worldWith(ask, kinds), 'Eve', 'drill');
    expect(result).toMatchObject({
      outcome: 'failed',
      error: { message: 'Eve may not answer: Ada, Grace may', next: expect.not.stringContaining('--new') },
    });
  });
});

describe('a plan', () => {
  const needs = z.object({ what: z.string(), more: z.string().optional() });
  const steps = (param: string) => [
    '{ id: look, uses: look }',
    `{ id: next, uses: next, with: { what: "x", ${param}: "\${{ steps.look.outputs.found }}" } }`,
  ];

  it('says in words why a step cannot look yet', async () => {
    const broken = kind('look', { looks: true, act: fails(new DrError('not-found', 'no vault is initialised')) });
    const text = steps('what').map((step) => step.replace('what: "x", ', ''));
    const world = await worldWith(text, [broken, kind('next', { looks: true, needs })]);
    const plan = await planRun(world.engine(), world.request());
    expect(plan.steps[1]?.problems).toEqual([
      {
        what: 'it could not look: "what" from step "look" has no value yet, because no vault is initialised',
        next: undefined,
      },
    ]);
  });

  it('gives only the beginning of a long reason, and all that is missing at once', async () => {
    const reason = `nothing can be brought back: ${'orders: no vault has it; '.repeat(20)}`;
    const broken = kind('look', { looks: true, act: fails(new DrError('not-found', reason)) });
    const both = needs.extend({ more: z.string() });
    const text = steps('more').map((step) => step.replace('"x"', '"${{ steps.look.outputs.found }}"'));
    const world = await worldWith(text, [broken, kind('next', { looks: true, needs: both })]);
    const what = (await planRun(world.engine(), world.request())).steps[1]?.problems[0]?.what ?? '';
    expect(what).toMatch(
      /^it could not look: "what" and "more" from step "look" have no value yet, because nothing can/,
    );
    expect(what).toMatch(/ … \(see there\)$/);
    expect(what.length).toBeLessThan(220);
  });

  it('looks all the same without a value that is optional', async () => {
    const broken = kind('look', { looks: true, act: fails(new DrError('not-found', 'no vault is initialised')) });
    let looked = 0;
    const next = kind('next', { looks: true, needs, act: () => void looked++ });
    const world = await worldWith(steps('more'), [broken, next]);
    expect((await planRun(world.engine(), world.request())).steps[1]?.problems).toEqual([]);
    expect(looked).toBe(1);
  });

  it('takes it for no problem that it does not run a step that changes something', async () => {
    const text = steps('what').map((step) => step.replace('what: "x", ', ''));
    const world = await worldWith(text, [kind('look'), kind('next', { looks: true, needs })]);
    const plan = await planRun(world.engine(), world.request());
    expect(plan.ready).toBe(true);
    expect(plan.steps[1]?.evidence).toEqual([
      'it could not look: "what" from step "look" has no value yet, because a plan does not run it',
    ]);
  });
});

describe('parameters that do not fit', () => {
  it('are named in words, not as a dump', async () => {
    const next = kind('next', { needs: z.object({ points: z.record(z.string(), z.number()) }) });
    const failure = next.run({} as StepContext, { points: 'all' });
    const error = errorOfKind(await failureOf(failure), 'config');
    expect(error.message).toBe(
      'next cannot work with this: points: must be keys with values, as { KEY: VALUE }, not the text "all"',
    );
  });
});

describe('the end of a run', () => {
  const textOf = ({ report }: RunResult) => renderRunText(report);

  it.each([
    [
      ['test.restore', 'check.sql', 'database.promote'],
      /^The drill succeeded: recovered, checked and promoted in .*, the copy is removed\.$/,
    ],
    [['test.restore'], /^The drill succeeded: recovered in .*, the copy is removed\.$/],
    [['look'], /^The drill succeeded: every step came to its end in .*; production was not touched\.$/],
  ])('of a drill with %j names what happened', async (names, wanted) => {
    const world = await worldWith(
      names.map((name, i) => `{ id: step${i}, uses: ${name} }`),
      names.map((name) => kind(name)),
    );
    expect(headline((await world.run({ mode: 'drill' })).report)).toMatch(wanted);
  });

  it('says of a drill that failed that it has ended, and of a run that it goes on', async () => {
    const broken = kind('act', { act: fails(new DrError('local', 'no space')) });
    const drill = await (await worldWith(['{ id: act, uses: act }'], [broken])).run({ mode: 'drill' });
    expect(textOf(drill)).toMatch(
      /^The drill FAILED, and has cleaned up: it has ended, and the same command begins another/,
    );
    expect(textOf(drill)).not.toMatch(/goes on/);
    const run = await (await worldWith(['{ id: act, uses: act }'], [broken])).run();
    expect(textOf(run)).toMatch(/^The run has STOPPED; the same command goes on from here/);
  });

  it('says of an approval that a drill waited for in vain how the next one gets it', async () => {
    const step = '{ id: act, uses: act, approval: { prompt: "Go?", by: [Ada], timeout: 1m } }';
    const drill = await (await worldWith([step], [kind('act')])).run({ mode: 'drill' });
    expect(drill.error?.next).toMatch(/^Start another drill/);
    const run = await (await worldWith([step], [kind('act')])).run();
    expect(run.error?.next).toMatch(
      /^Approve with "dr runs \S+ --approve 'act' --as NAME" \(NAME is Ada, written like this\), then/,
    );
  });
});
