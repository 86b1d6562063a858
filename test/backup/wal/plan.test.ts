import { describe, expect, test } from 'vitest';
import type { CoveredTimeline, WalCoverage } from '../../../src/backup/wal/coverage.ts';
import { planRecovery, type WantedTarget } from '../../../src/backup/wal/plan.ts';
import { databaseManifest } from './manifest.ts';

const S = 0x1000000n;
const hour = 3_600_000;
const t0 = Date.parse('2026-01-01T00:00:00Z');
const manifest = databaseManifest({ systemId: '1', startLsn: 2n * S + 40n, endLsn: 2n * S + 900n });

function range(start: bigint, end: bigint, coveredUntilMs = t0 + 2 * hour, newestMs = t0 + hour) {
  return { start, end, coveredUntilMs, newestMs };
}

function coverage(timelines: readonly CoveredTimeline[], coveredUntilMs?: number): WalCoverage {
  const newest = timilinesEnd(timelines);
  return {
    systemId: '1',
    location: 'memory://west/wal/1/',
    segmentBytes: Number(S),
    timelines,
    end: newest && { timeline: newest.timeline, lsn: newest.lsn },
    coveredUntilMs: coveredUntilMs ?? newest?.coveredUntilMs ?? 0,
    heartbeat: undefined,
  };
}

function timilinesEnd(timelines: readonly CoveredTimeline[]) {
  const last = timelines.at(-1);
  const end = last?.ranges.at(-1);
  return last && end && { timeline: last.timeline, lsn: end.end, coveredUntilMs: end.coveredUntilMs };
}

const one = (...ranges: ReturnType<typeof range>[]): CoveredTimeline => ({ timeline: 1, ranges, ancestors: undefined });
const plan = (covered: WalCoverage, target: WantedTarget) => planRecovery({ manifest, coverage: covered, target });

describe('one timeline', () => {
  const whole = coverage([one(range(S, 9n * S + 5n))], t0 + 3 * hour);

  test('latest, LSN and time inside the archive', () => {
    expect(plan(whole, { kind: 'latest' })).toMatchObject({
      target: { kind: 'latest', endLsn: 9n * S + 5n },
      timeline: 1,
      coveredUntilMs: t0 + 3 * hour,
      walBytes: Number(7n * S + 5n - 40n),
    });
    expect(plan(whole, { kind: 'lsn', lsn: 4n * S }).target).toMatchObject({ kind: 'lsn', lsn: 4n * S });
    expect(plan(whole, { kind: 'time', atMs: t0 + 1000 }).target).toMatchObject({
      kind: 'time',
      atMs: t0 + 1000,
      covered: true,
    });
  });

  test('a time after everything written, but covered by keepalives, is latest', () => {
    expect(plan(whole, { kind: 'time', atMs: t0 + 2.5 * hour }).target).toEqual({
      kind: 'latest',
      endLsn: 9n * S + 5n,
    });
  });

  test.each([
    ['an LSN before the backup is consistent', { kind: 'lsn', lsn: 2n * S + 899n }, /before this backup is consistent/],
    ['a time before the backup', { kind: 'time', atMs: t0 - 1 }, /before this backup is consistent/],
    ['an LSN beyond', { kind: 'lsn', lsn: 9n * S + 6n }, /beyond the archive/],
    ['a time beyond what is covered', { kind: 'time', atMs: t0 + 3 * hour + 1 }, /beyond the archive/],
  ] as const)('%s is refused with what can be reached', (_, target, message) => {
    expect(() => plan(whole, target)).toThrow(message);
    expect(() => plan(whole, target)).toThrow(/0\/2000384 \(2026-01-01T00:00:00.000Z\) to 0\/9000005 on timeline 1/);
  });

  test('a hole ends what can be reached, by LSN and by time', () => {
    const holed = coverage([one(range(S, 4n * S, t0 + hour / 2, t0 + hour / 2), range(5n * S, 9n * S))], t0 + 9 * hour);
    expect(plan(holed, { kind: 'latest' })).toMatchObject({ endLsn: 4n * S, coveredUntilMs: t0 + hour / 2 });
    expect(() => plan(holed, { kind: 'lsn', lsn: 6n * S })).toThrow(/beyond/);
    expect(() => plan(holed, { kind: 'time', atMs: t0 + hour })).toThrow(/beyond/);
  });

  test.each([
    ['no WAL at all', coverage([])],
    ['WAL that begins after the backup', coverage([one(range(3n * S, 9n * S))])],
    ['WAL that ends inside the backup', coverage([one(range(S, 2n * S + 899n))])],
    ['only another timeline', coverage([{ timeline: 7, ranges: [range(S, 9n * S)], ancestors: undefined }])],
  ])('a backup that cannot become consistent is refused: %s', (_, covered) => {
    expect(() => plan(covered, { kind: 'latest' })).toThrow(/cannot be made consistent: it needs WAL from 0\/2000028/);
  });
});

describe('several timelines', () => {
  const fork = 5n * S + 100n;
  const second = (...ranges: ReturnType<typeof range>[]): CoveredTimeline => ({
    timeline: 2,
    ranges,
    ancestors: [{ timeline: 1, end: fork }],
  });

  test('the newest line that descends from the backup is followed over the fork', () => {
    // Timeline 1 has more than the fork: lost in the failover, and not followed.
    const covered = coverage([one(range(S, 7n * S)), second(range(5n * S, 8n * S))]);
    expect(plan(covered, { kind: 'latest' })).toMatchObject({ timeline: 2, endLsn: 8n * S });
    expect(plan(covered, { kind: 'lsn', lsn: 7n * S + 1n }).timeline).toBe(2);
  });

  test('the segment of the fork may be there on the new timeline only', () => {
    const covered = coverage([one(range(S, 5n * S)), second(range(5n * S, 8n * S))]);
    expect(plan(covered, { kind: 'latest' })).toMatchObject({ timeline: 2, endLsn: 8n * S });
  });

  test('a hole before the fork ends on the old timeline, nothing after the fork ends at the fork', () => {
    const holed = coverage([one(range(S, 4n * S)), second(range(5n * S, 8n * S))]);
    expect(plan(holed, { kind: 'latest' })).toMatchObject({ timeline: 1, endLsn: 4n * S });
    const late = coverage([one(range(S, 7n * S)), second(range(6n * S, 8n * S))]);
    expect(plan(late, { kind: 'latest' })).toMatchObject({ timeline: 1, endLsn: fork });
  });

  test('a line that left before the backup was consistent is another one', () => {
    const early = { timeline: 2, ranges: [range(2n * S, 8n * S)], ancestors: [{ timeline: 1, end: 2n * S + 500n }] };
    expect(plan(coverage([one(range(S, 7n * S)), early]), { kind: 'latest' })).toMatchObject({
      timeline: 1,
      endLsn: 7n * S,
    });
  });

  test('of two lines the newest counts, over all timelines between', () => {
    const third = {
      timeline: 3,
      ranges: [range(6n * S, 9n * S)],
      ancestors: [
        { timeline: 1, end: fork },
        { timeline: 2, end: 6n * S + 7n },
      ],
    };
    const covered = coverage([one(range(S, fork)), second(range(5n * S, 6n * S + 7n)), third]);
    expect(plan(covered, { kind: 'latest' })).toMatchObject({ timeline: 3, endLsn: 9n * S });
  });
});
