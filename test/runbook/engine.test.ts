import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { DrError } from '../../src/base/errors.ts';
import { answerApproval } from '../../src/runbook/approval.ts';
import { within } from '../../src/runbook/deadline.ts';
import { readJournal } from '../../src/runbook/journal.ts';
import { parseRunbook } from '../../src/runbook/load.ts';
import { executeRun } from '../../src/runbook/run.ts';
import { defineStep, type StepContext, type StepKind } from '../../src/steps/contract.ts';
import { errorOfKind, FastClock, failureOf, TestWorld } from './world.ts';

// What the shipped runbook does not use, with steps made for the purpose.

const plain = {
  summary: 'x',
  modes: ['failover', 'drill'] as const,
  outputs: z.object({}),
  params: z.object({}),
  timeoutMs: 60_000,
};
const plan = async () => ({ target: '', present: '', will: [], problems: [] });

function stepOf(name: string, run: (context: StepContext) => Promise<void>, undo?: () => Promise<void>): StepKind {
  return defineStep({
    ...plain,
    name,
    effect: 'changes',
    plan,
    run: async (context) => {
      await run(context);
      return {};
    },
    ...(undo ? { undo } : {}),
  });
}

async function worldWith(steps: string, kinds: readonly StepKind[]): Promise<TestWorld> {
  const registry = new Map(kinds.map((kind) => [kind.name, kind]));
  const text = `version: 1\nname: test\nsummary: x\nmodes: [failover, drill]\nstages:\n  restore:\n${steps}`;
  const world = await TestWorld.create(parseRunbook(text, 'test.yaml', registry));
  world.registry = registry;
  return world;
}

describe('an approval', () => {
  const steps = (by: string) =>
    `    - id: ask\n      uses: act\n      approval: { prompt: "Go?", by: ${by}, timeout: 10m }\n`;
  const acted: string[] = [];
  const act = stepOf('act', async () => void acted.push('acted'));
  const answer = (world: TestWorld, runId: string, more: object = {}) =>
    answerApproval(world.east, {
      runId,
      step: 'ask',
      answer: 'approve',
      name: 'Ada',
      account: 'ada',
      at: '2026-01-01T00:00:00.000Z',
      ...more,
    });

  /** Answers as soon as the question is in the journal, in a vault that is not the journal's. */
  async function runAnswered(world: TestWorld, more: object) {
    const asked = Promise.withResolvers<void>();
    const engine = world.engine(undefined, {
      onEntry: (entry) => {
        if (entry.event.type === 'approval-requested') asked.resolve(answer(world, entry.runId, more));
      },
    });
    const result = await executeRun(engine, world.request());
    await asked.promise;
    return result;
  }

  it('lets the step begin, and is kept with its name', async () => {
    acted.length = 0;
    const world = await worldWith(steps('[Ada]'), [act]);
    const { outcome, report } = await runAnswered(world, { comment: 'go ahead' });
    expect(outcome).toBe('succeeded');
    expect(acted).toEqual(['acted']);
    expect(report.approvals).toEqual([
      { step: 'ask', name: 'Ada (ada)', at: '2026-01-01T00:00:00.000Z', comment: 'go ahead' },
    ]);
  });

  it.each([
    ['that says no', '[]', { answer: 'refuse', comment: 'not tonight' }, 'Ada refused: not tonight'],
    ['by somebody else', '[Grace]', {}, 'Ada may not answer: Grace may'],
  ])('%s stops the run before the step', async (_, by, more, message) => {
    acted.length = 0;
    const world = await worldWith(steps(by), [act]);
    const { outcome, error } = await runAnswered(world, more);
    expect([outcome, error?.kind, error?.message]).toEqual([undefined, 'refused', message]);
    expect(acted).toEqual([]);
  });

  it('that does not come stops the run, and one that comes later lets the same command go on', async () => {
    acted.length = 0;
    const world = await worldWith(steps('[]'), [act]);
    const first = await world.run();
    expect(first.error).toMatchObject({ kind: 'check-failed', message: 'nobody approved within 10 min' });
    await answer(world, first.runId);
    expect(await world.run()).toMatchObject({ runId: first.runId, outcome: 'succeeded' });
    expect(acted).toEqual(['acted']);
  });

  it('is given once', async () => {
    const world = await worldWith(steps('[]'), [act]);
    await answer(world, 'r1');
    const error = errorOfKind(await failureOf(answer(world, 'r1', { name: 'Grace', answer: 'refuse' })), 'conflict');
    expect(error.message).toContain('Ada has answered for step ask already: approve');
  });
});

describe('a failure with "onFailure: undo"', () => {
  it('takes back what was done, newest first, and ends the run', async () => {
    const done: string[] = [];
    const doing = (name: string) =>
      stepOf(
        name,
        async () => void done.push(name),
        async () => void done.push(`un${name}`),
      );
    const failing = stepOf(
      'fail',
      async () => {
        throw new DrError('local', 'no space');
      },
      async () => void done.push('unfail'),
    );
    const steps =
      '    - { id: one, uses: one }\n    - { id: two, uses: two }\n    - { id: bad, uses: fail, onFailure: undo }\n    - { id: last, uses: one }\n';
    const world = await worldWith(steps, [doing('one'), doing('two'), failing]);
    const { outcome, error } = await world.run();
    expect([outcome, error?.message]).toEqual(['failed', 'no space']);
    expect(done).toEqual(['one', 'two', 'unfail', 'untwo', 'unone']);
  });
});

describe('a step', () => {
  it('that takes too long fails, and is tried again as often as the runbook says', async () => {
    let tries = 0;
    const slow = stepOf('slow', async ({ clock, signal }) => {
      tries++;
      while (!signal.aborted) await clock.sleep(1000);
      throw new Error('stopped');
    });
    const world = await worldWith('    - { id: slow, uses: slow, timeout: 20s, retries: 2 }\n', [slow]);
    const { error } = await world.run();
    expect(tries).toBe(3);
    expect(error?.message).toContain('step slow took longer than 20 s');
  });

  it('that fails for good is not tried again', async () => {
    let tries = 0;
    const wrong = stepOf('wrong', async () => {
      tries++;
      throw new DrError('corrupt', 'a damaged part');
    });
    const world = await worldWith('    - { id: wrong, uses: wrong, retries: 5 }\n', [wrong]);
    expect((await world.run()).error?.message).toBe('a damaged part');
    expect(tries).toBe(1);
  });

  it('that fails lets its neighbours finish', async () => {
    const done: string[] = [];
    const wrong = stepOf('wrong', async () => {
      throw new DrError('local', 'no');
    });
    const long = stepOf('long', async ({ clock }) => {
      await clock.sleep(5000);
      done.push('long');
    });
    const world = await worldWith(
      '    - parallel:\n        - { id: wrong, uses: wrong }\n        - { id: long, uses: long }\n',
      [wrong, long],
    );
    await world.run();
    expect(done).toEqual(['long']);
  });

  it('with outputs that break its own promise fails instead of passing them on', async () => {
    const lying = {
      ...stepOf('lying', async () => {}),
      run: async (): Promise<Record<string, unknown>> => z.object({ n: z.number() }).parse({ n: 'x' }),
    };
    const world = await worldWith('    - { id: lying, uses: lying }\n', [lying]);
    const { error, runId } = await world.run();
    expect(error?.kind).toBe('internal');
    expect((await readJournal(world.west, runId)).state.status).toBe('stopped');
  });
});

describe('a vault that takes no journal', () => {
  it('stops the run before anything happens', async () => {
    const done: string[] = [];
    const world = await worldWith('    - { id: act, uses: act }\n', [
      stepOf('act', async () => void done.push('acted')),
    ]);
    const engine = world.engine();
    const create = world.west.create.bind(world.west);
    world.west.create = async (key, ...more) => {
      if (key.includes('/journal/000002')) throw new DrError('denied', 'no right to write');
      return await create(key, ...more);
    };
    errorOfKind(await failureOf(executeRun(engine, world.request())), 'denied');
    expect(done).toEqual([]);
    world.west.create = create;
    expect(await world.run()).toMatchObject({ resumed: true, outcome: 'succeeded' });
    expect(done).toEqual(['acted']);
  });

  it('for a moment is waited for', async () => {
    const world = await worldWith('    - { id: act, uses: act }\n', [stepOf('act', async () => {})]);
    const create = world.west.create.bind(world.west);
    let refusals = 3;
    world.west.create = async (key, ...more) => {
      if (key.includes('/journal/000002') && refusals-- > 0) throw new DrError('unreachable', 'no answer');
      return await create(key, ...more);
    };
    expect((await world.run()).outcome).toBe('succeeded');
  });
});

describe('a limit', () => {
  it('waits for work that ignores its signal, and then says so', async () => {
    const clock = new FastClock();
    const failure = failureOf(
      within(clock, 1000, 5000, 'work', new AbortController().signal, () => new Promise(() => {})),
    );
    for (let second = 0; second < 8; second++) {
      clock.pass(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(errorOfKind(await failure, 'internal').message).toContain('did not stop within 5 s');
  });
});
