import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { registerSecret } from '../../src/base/redact.ts';
import type { EventOf, JournalEntry, RunEvent } from '../../src/runbook/events.ts';
import { Journal, readJournal } from '../../src/runbook/journal.ts';
import { apply, newRun, type RunState } from '../../src/runbook/state.ts';
import { layout } from '../../src/vault/layout.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { encodeRecord } from '../../src/vault/record.ts';
import { errorOfKind, FastClock, failureOf } from './world.ts';

const step = (id: string, group: number, more: object = {}) => ({
  id,
  stage: 'restore' as const,
  group,
  uses: 'x',
  title: 'x',
  needsApproval: false,
  undoable: false,
  ...more,
});
const started: EventOf<'run-started'> = {
  type: 'run-started',
  mode: 'failover',
  site: 'west',
  from: 'east',
  at: { kind: 'latest' },
  reason: 'a test',
  runbook: { name: 'x', path: 'x', text: 'x' },
  objectives: { rtoMs: 1, rpoMs: 1 },
  resourceObjectives: {},
  steps: [step('a', 0, { undoable: true }), step('b', 0), step('c', 1, { needsApproval: true })],
};
const begin = (id: string, attempt = 1): RunEvent => ({ type: 'step-started', step: id, attempt });
const finish = (id: string): RunEvent => ({ type: 'step-finished', step: id, found: false, outputs: {}, evidence: [] });
const fail = (id: string, follows: 'again' | 'stop' | 'tolerated' = 'stop'): RunEvent => ({
  type: 'step-failed',
  step: id,
  error: { kind: 'local', message: 'no' },
  evidence: [],
  follows,
});
const skip = (id: string): RunEvent => ({ type: 'step-skipped', step: id, reason: 'no' });
const ask: RunEvent = { type: 'approval-requested', step: 'c', prompt: '?', from: [] };
const agree: RunEvent = { type: 'approval-given', step: 'c', name: 'Ada', givenAt: '2026-01-01T00:00:00.000Z' };
const stop: RunEvent = { type: 'run-stopped', because: 'failed', error: { kind: 'local', message: 'no' } };
const end = (outcome: 'succeeded' | 'degraded' | 'failed' | 'abandoned'): RunEvent => ({
  type: 'run-finished',
  outcome,
});
const undo: RunEvent = { type: 'undo-started', outcome: 'failed' };
const accept: RunEvent = { type: 'split-brain-accepted', name: 'Ada' };
const resume: RunEvent = { type: 'run-resumed' };

/** Applies events by executors: a plain event is by the one that has the run; `resume` hands it to the next one. */
function play(events: readonly RunEvent[]): RunState {
  let executor = 1;
  return events.reduce((state, event, i) => {
    if (event.type === 'run-resumed') executor++;
    return apply(state, entry(event, i + 1, `e${executor}`));
  }, newRun);
}

function entry(event: RunEvent, number: number, executor: string): JournalEntry {
  const at = new Date(Date.UTC(2026, 0, 1) + number * 1000).toISOString();
  return { format: 1, runId: 'r', number, previous: '', at, by: 'ops', executor, event };
}

const groupDone = [started, begin('a'), finish('a'), begin('b'), finish('b')];
const allDone = [...groupDone, ask, agree, begin('c'), finish('c')];

describe('legal journals', () => {
  it.each<[string, RunEvent[], string]>([
    ['runs through', [...allDone, end('succeeded')], 'finished'],
    ['tries again', [started, begin('a'), fail('a', 'again'), begin('a', 2), finish('a')], 'running'],
    [
      'goes on without a step',
      [started, begin('a'), fail('a', 'tolerated'), skip('b'), skip('c'), end('degraded')],
      'finished',
    ],
    [
      'gives what failed beside the stop another chance',
      [started, begin('a'), fail('a', 'tolerated'), begin('b'), fail('b'), stop, resume, begin('a', 2), finish('a')],
      'running',
    ],
    ['stops and goes on', [started, begin('a'), fail('a'), stop, resume, begin('a', 2), finish('a')], 'running'],
    ['is killed in a step and goes on', [started, begin('a'), resume, begin('a', 2), finish('a')], 'running'],
    ['asks again after a kill', [...groupDone, ask, resume, ask, agree, begin('c')], 'running'],
    [
      'cleans up',
      [
        started,
        begin('a'),
        fail('a'),
        undo,
        { type: 'step-undo-started', step: 'a' },
        { type: 'step-undo-finished', step: 'a', evidence: [] },
        end('failed'),
      ],
      'finished',
    ],
    ['is abandoned', [started, begin('a'), resume, end('abandoned')], 'finished'],
  ])('%s', (_, events, status) => {
    expect(play(events).status).toBe(status);
  });
});

describe('illegal journals are refused', () => {
  const planned = started.steps;
  it.each<[string, RunEvent[]]>([
    ['an event before the start', [begin('a')]],
    ['a resume before the start', [resume]],
    ['a second start', [started, started]],
    ['a step that is listed twice', [{ ...started, steps: [...planned, ...planned] }]],
    ['an unknown step', [started, begin('z')]],
    ['a step of a later group', [started, begin('a'), finish('a'), ask, agree, begin('c')]],
    [
      'a later group after a failure that is not tolerated',
      [started, begin('a'), fail('a'), skip('b'), ask, agree, begin('c')],
    ],
    ['a step that runs already', [started, begin('a'), begin('a', 2)]],
    ['a step that is done', [started, begin('a'), finish('a'), begin('a', 2)]],
    ['a step that was skipped', [started, skip('a'), begin('a')]],
    ['a step that was given up', [started, begin('a'), fail('a', 'tolerated'), begin('a', 2)]],
    [
      'another chance when the run is past it',
      [
        { ...started, steps: [step('a', 0), step('b', 1), step('c', 2)] },
        ...[begin('a'), fail('a', 'tolerated'), begin('b'), finish('b'), begin('c'), fail('c'), stop, resume],
        begin('a', 2),
      ],
    ],
    [
      'a third chance without a new resume',
      [
        ...[started, begin('a'), fail('a', 'tolerated'), begin('b'), fail('b'), stop, resume],
        ...[begin('a', 2), fail('a', 'tolerated'), begin('a', 3)],
      ],
    ],
    ['an attempt that is counted wrong', [started, begin('a', 2)]],
    ['an end of a step that does not run', [started, finish('a')]],
    ['a failure of a step that does not run', [started, fail('a')]],
    ['an end of a step that another executor began', [started, begin('a'), resume, finish('a')]],
    ['a failure of a step that another executor began', [started, begin('a'), resume, fail('a')]],
    ['a skip of a step that runs', [started, begin('a'), skip('a')]],
    ['a step without its approval', [...groupDone, begin('c')]],
    ['a step that only waits for its approval', [...groupDone, ask, begin('c')]],
    ['an approval that nobody asked for', [...groupDone, agree]],
    ['a question for a step that needs no approval', [started, { ...ask, step: 'a' } as RunEvent]],
    ['a question that is answered already', [...groupDone, ask, agree, ask]],
    ['work while it is stopped', [started, stop, begin('a')]],
    ['an acceptance while it is stopped', [started, stop, accept]],
    ['a stop while it is stopped', [started, stop, stop]],
    ['an undo while it is stopped', [started, stop, undo]],
    ['an end while it is stopped', [started, stop, end('succeeded')]],
    ['an end with open steps', [...groupDone, end('succeeded')]],
    [
      'a success with a tolerated failure',
      [started, begin('a'), fail('a', 'tolerated'), skip('b'), skip('c'), end('succeeded')],
    ],
    ['a failure when all is done', [...allDone, end('failed')]],
    [
      'an undo of a step outside of undoing',
      [started, begin('a'), finish('a'), { type: 'step-undo-started', step: 'a' }],
    ],
    ['an undo of a step that never began', [started, undo, { type: 'step-undo-started', step: 'a' }]],
    [
      'an undo of what cannot be undone',
      [started, begin('b'), finish('b'), undo, { type: 'step-undo-started', step: 'b' }],
    ],
    [
      'an undo twice at once',
      [started, begin('a'), undo, { type: 'step-undo-started', step: 'a' }, { type: 'step-undo-started', step: 'a' }],
    ],
    [
      'the end of an undo that never began',
      [started, begin('a'), undo, { type: 'step-undo-finished', step: 'a', evidence: [] }],
    ],
    ['work while undoing', [started, undo, begin('a')]],
    ['an end before everything is undone', [started, begin('a'), undo, end('failed')]],
    ['another outcome than the undo is for', [started, undo, end('succeeded')]],
    ['anything after the end', [...allDone, end('succeeded'), resume]],
    ['a second end', [...allDone, end('succeeded'), end('abandoned')]],
  ])('%s', (_, events) => {
    const legal = events.slice(0, -1);
    // The last event is the illegal one: what is before it must be fine, or the test shows nothing.
    play(legal);
    expect(() => play(events)).toThrow(/cannot follow/);
  });

  it('an event of an executor that has lost the run', () => {
    const state = play([started, begin('a'), resume]);
    expect(() => apply(state, entry(begin('b'), 4, 'e1'))).toThrow('e2 has the run, not e1');
  });

  it('a resume by the executor that has it', () => {
    expect(() => apply(play([started]), entry(resume, 2, 'e1'))).toThrow('does not resume its own run');
  });
});

describe('the stored journal', () => {
  const options = (store: MemoryStore, executor: string, copies: MemoryStore[] = []) => ({
    store,
    copies,
    runId: 'r1',
    by: 'ops@host, process 1',
    executor,
    clock: new FastClock(),
    log: silentLog,
  });

  async function written(): Promise<MemoryStore> {
    const store = new MemoryStore({ name: 'west' });
    const journal = Journal.begin(options(store, 'e1'));
    for (const event of [started, begin('a'), finish('a')]) await journal.append(event);
    return store;
  }

  it('is read back with its state, and copied to the other vaults', async () => {
    const [store, copy] = [new MemoryStore({ name: 'west' }), new MemoryStore({ name: 'east' })];
    const journal = Journal.begin(options(store, 'e1', [store, copy]));
    await Promise.all([started, begin('a'), begin('b'), finish('b')].map((event) => journal.append(event)));
    await journal.settle();
    for (const place of [store, copy]) {
      const read = await readJournal(place, 'r1');
      expect(read.entries).toEqual(journal.entries);
      expect(read.state).toEqual(journal.state);
      expect(read.lastDigest).toBe(journal.lastDigest);
    }
  });

  it('lets one of two executors append, and tells the other', async () => {
    const store = await written();
    const [first, second] = [await Journal.open(options(store, 'e2')), await Journal.open(options(store, 'e3'))];
    await first.append(resume);
    const error = errorOfKind(await failureOf(second.append(resume)), 'lease-held');
    expect(error.message).toContain('r1');
    // Nothing more: its view of the run is no longer true.
    expect(await failureOf(second.append(begin('b')))).toBe(error);
    await first.append(begin('b'));
  });

  it('takes its own entry for its own when the answer to the write was lost', async () => {
    const store = new MemoryStore({ name: 'west' });
    const create = store.create.bind(store);
    let lost = false;
    store.create = async (...parameters) => {
      const result = await create(...parameters);
      if (lost) return result;
      lost = true;
      const { DrError } = await import('../../src/base/errors.ts');
      throw new DrError('unreachable', 'connection reset');
    };
    const journal = Journal.begin(options(store, 'e1'));
    await journal.append(started);
    expect((await readJournal(store, 'r1')).entries).toHaveLength(1);
  });

  it.each<[string, (store: MemoryStore) => Promise<void>, RegExp]>([
    ['a removed entry', async (store) => store.delete([layout.runEntry('r1', 2)]), /entry 2 is missing/],
    [
      'a flipped byte',
      async (store) => {
        const bytes = await store.read(layout.runEntry('r1', 2));
        bytes[40] = (bytes[40] ?? 0) ^ 1;
        await store.overwrite(layout.runEntry('r1', 2), bytes);
      },
      /damaged/,
    ],
    [
      'an entry that was rewritten with a digest that fits',
      async (store) => {
        const changed = {
          ...entry(begin('b'), 2, 'e1'),
          runId: 'r1',
          previous: (await readJournal(store, 'r1')).entries[1]?.previous,
        };
        await store.overwrite(layout.runEntry('r1', 2), encodeRecord(changed));
      },
      /does not follow the entry before it|cannot follow/,
    ],
  ])('shows %s', async (_, damage, message) => {
    const store = await written();
    await damage(store);
    expect(errorOfKind(await failureOf(readJournal(store, 'r1')), 'corrupt').message).toMatch(message);
  });

  it('refuses what a newer dr wrote', async () => {
    const store = new MemoryStore({ name: 'west' });
    await store.create(layout.runEntry('r1', 1), encodeRecord({ ...entry(started, 1, 'e1'), format: 2 }));
    errorOfKind(await failureOf(readJournal(store, 'r1')), 'refused');
  });

  it('keeps no secret that an error or a note quotes', async () => {
    registerSecret('correct-horse-battery');
    const store = await written();
    const journal = await Journal.open(options(store, 'e2'));
    await journal.append(resume);
    await journal.append(begin('b'));
    const quoting = 'login with correct-horse-battery failed';
    await journal.append({
      ...(fail('b') as EventOf<'step-failed'>),
      error: { kind: 'denied', message: quoting, where: 'postgresql://app:hunter22@db/x' },
      evidence: [quoting],
    });
    for await (const { key } of store.list('runs/')) {
      expect((await store.read(key)).toString()).not.toMatch(/correct-horse-battery|hunter22/);
    }
  });
});
