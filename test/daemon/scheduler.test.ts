import { describe, expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { HOUR, ManualClock, MINUTE, memoryLog, startScheduler, TestJob, TICK } from './support.ts';

/** 10 minutes past midnight. */
const start = Date.UTC(2026, 0, 1, 0, 10);

describe('when a job runs', () => {
  test('what was never done is done at once, then at every slot', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { scheduler } = await startScheduler(clock, [job]);
    await job.end();
    expect(scheduler.states()[0]).toMatchObject({ nextRunMs: start + 50 * MINUTE, lastSuccessMs: start, runs: 1 });
    await clock.advance(50 * MINUTE);
    await job.end();
    await clock.advance(HOUR);
    expect(job.reasons).toEqual(['first', 'scheduled', 'scheduled']);
    expect(job.started).toEqual([start, start + 50 * MINUTE, start + 110 * MINUTE]);
  });

  test('a slot that was missed while the daemon was away is made up for once; a slot that was used is not', async () => {
    const clock = new ManualClock(start);
    const missed = new TestJob(clock, 'missed');
    const done = new TestJob(clock, 'done');
    missed.last = start - 15 * HOUR;
    done.last = start - 9 * MINUTE;
    const { scheduler } = await startScheduler(clock, [missed, done]);
    await missed.end();
    await clock.advance(49 * MINUTE);
    expect(missed.reasons).toEqual(['missed']);
    expect(done.reasons).toEqual([]);
    expect(scheduler.states().map(({ lastSuccessMs }) => lastSuccessMs)).toEqual([start, start - 9 * MINUTE]);
    await clock.advance(MINUTE);
    expect([missed.reasons, done.reasons]).toEqual([['missed', 'scheduled'], ['scheduled']]);
  });

  test('while nobody can say what was missed it is asked again, and nothing runs', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    job.last = new DrError('unreachable', 'no vault answers');
    await startScheduler(clock, [job]);
    await clock.advance(10 * MINUTE);
    expect(job.started).toEqual([]);
    job.last = 'never';
    await clock.advance(30_000);
    expect(job.reasons).toEqual(['first']);
  });

  test('a clock that was ahead and goes back neither runs twice nor stops for good', async () => {
    const clock = new ManualClock(start + 5 * HOUR);
    const job = new TestJob(clock);
    job.last = 'not-due';
    const { scheduler } = await startScheduler(clock, [job]);
    clock.jump(-5 * HOUR);
    scheduler.tick();
    expect(job.started).toEqual([]);
    clock.jump(50 * MINUTE);
    scheduler.tick();
    await clock.advance(0);
    expect(job.started).toHaveLength(1);
  });

  test('asked for, it runs at once; asked for while it runs, once more afterwards', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    job.last = 'not-due';
    const { scheduler } = await startScheduler(clock, [job]);
    scheduler.runNow('job');
    await clock.advance(0);
    scheduler.runNow('job');
    scheduler.runNow('job');
    await clock.advance(5000);
    expect(job.running).toBe(1);
    await job.end();
    await clock.advance(TICK);
    await job.end();
    await clock.advance(5 * TICK);
    expect(job.reasons).toEqual(['asked', 'asked']);
    expect(() => scheduler.runNow('jop')).toThrow('no job "jop"');
  });
});

describe('a run that takes long', () => {
  test('never overlaps itself; slots that it runs into are made up for once', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { log, lines } = memoryLog();
    const { scheduler } = await startScheduler(clock, [job], { log });
    await clock.advance(3 * HOUR);
    expect(job.running).toBe(1);
    await job.end();
    await clock.advance(TICK);
    await job.end();
    await clock.advance(10 * MINUTE);
    expect(job.started).toEqual([start, start + 3 * HOUR + TICK]);
    expect(scheduler.states()[0]?.overlaps).toBe(1);
    expect(lines.some(({ level, sentence }) => level === 'warn' && sentence.includes('next slot'))).toBe(true);
  });

  test('jobs of one lane wait for each other, another lane does not', async () => {
    const clock = new ManualClock(start);
    const jobs = ['a', 'b', 'c'].map((name) => new TestJob(clock, name, 'heavy'));
    const light = new TestJob(clock, 'light');
    await startScheduler(clock, [...jobs, light], { lanes: { heavy: 2 } });
    const running = () => jobs.map((job) => job.running);
    expect(running()).toEqual([1, 1, 0]);
    expect(light.running).toBe(1);
    await jobs[0]?.end();
    expect(running()).toEqual([0, 1, 1]);
  });
});

describe('a run that fails', () => {
  test('is tried again with growing pauses, a bounded number of times, then waits for its slot', async () => {
    const clock = new ManualClock(Date.UTC(2026, 0, 1));
    const job = new TestJob(clock);
    const { log, lines } = memoryLog();
    const { scheduler } = await startScheduler(clock, [job], { log });
    const failure = new DrError('unreachable', 'the server does not answer');
    for (let tries = 1; tries <= 6; tries++) {
      await job.end(failure);
      if (tries < 6) await clock.advance(15 * MINUTE + TICK - (clock.now() % TICK));
      if (clock.now() >= Date.UTC(2026, 0, 1, 1)) break;
    }
    const pauses = job.started.slice(1).map((ms, i) => ms - (job.started[i] ?? 0));
    expect(pauses[0]).toBeGreaterThanOrEqual(15_000);
    expect(pauses[0]).toBeLessThanOrEqual(30_000 + TICK);
    expect(pauses[1]).toBeGreaterThanOrEqual(30_000);
    expect(scheduler.states()[0]).toMatchObject({ lastError: failure });
    expect(lines.filter(({ level }) => level === 'error').length).toBe(scheduler.states()[0]?.failures);
  });

  test('after the last try nothing happens until the slot; a success forgets the failures', async () => {
    const clock = new ManualClock(start);
    const job = Object.assign(new TestJob(clock), { retries: 1 });
    const { scheduler } = await startScheduler(clock, [job]);
    await job.end(new Error('one'));
    await clock.advance(MINUTE);
    await job.end(new Error('two'));
    await clock.advance(48 * MINUTE);
    expect(job.reasons).toEqual(['first', 'retry']);
    expect(scheduler.states()[0]).toMatchObject({ failures: 2, failuresInARow: 2 });
    await clock.advance(2 * MINUTE);
    await job.end();
    expect(job.reasons).toEqual(['first', 'retry', 'scheduled']);
    expect(scheduler.states()[0]).toMatchObject({ failures: 2, failuresInARow: 0, lastError: undefined });
  });

  test('because another dr does it already is no failure; it is looked again whether that one did it', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { scheduler } = await startScheduler(clock, [job]);
    job.last = start + 1;
    await job.end(new DrError('lease-held', 'ann@backup-2 holds the lease'));
    await clock.advance(MINUTE);
    expect(job.reasons).toEqual(['first']);
    expect(scheduler.states()[0]).toMatchObject({ failures: 0, lastSuccessMs: start + 1 });
    job.last = 'never';
    await clock.advance(HOUR);
    expect(job.reasons).toEqual(['first', 'scheduled']);
    await job.end(new DrError('lease-held', 'ann@backup-2 holds the lease'));
    await clock.advance(MINUTE);
    expect(job.reasons).toEqual(['first', 'scheduled', 'first']);
  });
});

describe('the end', () => {
  test('of the role: what runs is aborted at once, and everything is asked anew when it comes back', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { scheduler } = await startScheduler(clock, [job]);
    job.active = false;
    scheduler.tick();
    expect(job.signals[0]?.aborted).toBe(true);
    await clock.advance(3 * HOUR);
    expect(job.started).toHaveLength(1);
    expect(scheduler.states()[0]).toMatchObject({ enabled: false, nextRunMs: undefined, failures: 0 });
    job.active = true;
    await clock.advance(TICK);
    expect(job.reasons).toEqual(['first', 'first']);
  });

  test('of the daemon: a run that ends in time is waited for, one that waits for its lane does not begin', async () => {
    const clock = new ManualClock(start);
    const [one, two] = [new TestJob(clock, 'one', 'lane'), new TestJob(clock, 'two', 'lane')];
    const { scheduler, running } = await startScheduler(clock, [one, two]);
    const stopped = scheduler.stop(10_000);
    await clock.advance(9000);
    expect(one.signals[0]?.aborted).toBe(false);
    await one.end();
    await Promise.all([stopped, running]);
    expect(two.started).toEqual([]);
    expect(scheduler.states()[0]?.lastSuccessMs).toBe(start + 9000);
  });

  test('a run that takes longer than the grace time is aborted and waited for', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { scheduler, running } = await startScheduler(clock, [job]);
    const stopped = scheduler.stop(10_000);
    await clock.advance(10_000);
    await Promise.all([stopped, running]);
    expect(job.signals[0]?.aborted).toBe(true);
    expect(scheduler.states()[0]).toMatchObject({ failures: 0, runningSinceMs: undefined });
    await clock.advance(2 * HOUR);
    expect(job.started).toHaveLength(1);
  });

  test('a second stop with less grace shortens the first', async () => {
    const clock = new ManualClock(start);
    const job = new TestJob(clock);
    const { scheduler } = await startScheduler(clock, [job]);
    const patient = scheduler.stop(24 * HOUR);
    await clock.advance(1000);
    await scheduler.stop(0);
    await patient;
    expect(job.signals[0]?.aborted).toBe(true);
  });
});
