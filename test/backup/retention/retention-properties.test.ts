import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { periodOf, periods } from '../../../src/backup/retention/periods.ts';
import { type BackupFacts, decideRetention, type RetentionPolicy } from '../../../src/backup/retention/retention.ts';

const day = 86_400_000;
const now = Date.UTC(2026, 10, 23);

const anyBackups = fc.uniqueArray(
  fc.record({
    ageMs: fc.integer({ min: -2 * day, max: 100 * day }),
    tookMs: fc.integer({ min: 0, max: day }),
    readable: fc.boolean(),
    verified: fc.option(fc.boolean(), { nil: undefined }),
    serial: fc.integer({ min: 0, max: 1_000_000 }),
  }),
  { maxLength: 30, selector: ({ serial }) => serial },
);

const anyPeriods = fc.option(
  fc.record(
    {
      daily: fc.integer({ min: 0, max: 10 }),
      weekly: fc.integer({ min: 0, max: 6 }),
      monthly: fc.integer({ min: 0, max: 4 }),
      yearly: fc.integer({ min: 0, max: 2 }),
      timeZone: fc.constantFrom('UTC', 'Europe/Berlin', 'Pacific/Kiritimati'),
    },
    { requiredKeys: ['timeZone'] },
  ),
  { nil: undefined },
);

const facts = fc
  .tuple(
    anyBackups,
    fc.constantFrom<RetentionPolicy['kind']>('database', 'data', 'configuration'),
    fc.integer({ min: 0, max: 90 * day }),
    fc.integer({ min: 0, max: 5 }),
    anyPeriods,
  )
  .map(([found, kind, retentionMs, keepAtLeast, periods]) => ({
    policy: { kind, retentionMs, keepAtLeast, periods },
    backups: found.map(
      ({ ageMs, tookMs, readable, verified, serial }): BackupFacts => ({
        id: `b${String(serial).padStart(7, '0')}`,
        readable,
        recoveryPointMs: now - ageMs,
        finishedAtMs: now - ageMs + tookMs,
        verifiedAtMs: verified === true ? now : undefined,
        failedVerification: verified === false,
      }),
    ),
  }));

const keptIds = (p: RetentionPolicy, backups: readonly BackupFacts[], nowMs: number, held = false) =>
  new Set(decideRetention(p, backups, nowMs, held).flatMap(({ id, keep }) => (keep ? [id] : [])));

describe('properties of retention', () => {
  test('every moment of the window that could be recovered before still can be', () => {
    fc.assert(
      fc.property(facts, fc.double({ min: 0, max: 1, noNaN: true }), ({ policy: p, backups }, share) => {
        if (p.kind === 'data') return;
        const moment = now - p.retentionMs * share;
        const base = (of: readonly BackupFacts[]) =>
          of.filter((b) => b.readable && b.recoveryPointMs <= moment).map((b) => b.recoveryPointMs);
        const kept = keptIds(p, backups, now);
        const before = base(backups);
        const after = base(backups.filter(({ id }) => kept.has(id)));
        expect(after.length === 0 ? undefined : Math.max(...after)).toBe(
          before.length === 0 ? undefined : Math.max(...before),
        );
      }),
      { numRuns: 2000 },
    );
  });

  test('the newest one, the newest good ones, the newest verified one, the young and the unreadable stay', () => {
    fc.assert(
      fc.property(facts, ({ policy: p, backups }) => {
        const kept = keptIds(p, backups, now);
        const readable = backups.filter((b) => b.readable);
        const good = readable.filter((b) => !b.failedVerification);
        const newest = (of: readonly BackupFacts[], n: number) =>
          [...of].sort((a, b) => b.recoveryPointMs - a.recoveryPointMs || (a.id < b.id ? 1 : -1)).slice(0, n);
        for (const { id } of newest(good, Math.max(1, p.keepAtLeast))) expect(kept).toContain(id);
        for (const { id } of newest(
          good.filter((b) => b.verifiedAtMs !== undefined),
          1,
        ))
          expect(kept).toContain(id);
        const [byId] = [...readable].sort((a, b) => (a.id < b.id ? 1 : -1));
        if (byId) expect(kept).toContain(byId.id);
        for (const b of backups) {
          if (!b.readable || b.recoveryPointMs > now - p.retentionMs) expect(kept).toContain(b.id);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('as time passes only more goes; a clock that goes back deletes nothing extra', () => {
    fc.assert(
      fc.property(facts, fc.integer({ min: 0, max: 200 * day }), ({ policy: p, backups }, laterMs) => {
        const later = keptIds(p, backups, now + laterMs);
        const earlier = keptIds(p, backups, now);
        for (const id of later) expect(earlier).toContain(id);
      }),
      { numRuns: 2000 },
    );
  });

  test('deleting in many small steps leaves what deleting once would leave', () => {
    fc.assert(
      fc.property(
        facts,
        fc.array(fc.integer({ min: 0, max: 20 * day }), { maxLength: 5 }),
        ({ policy: p, backups }, steps) => {
          let nowMs = now;
          let left: readonly BackupFacts[] = backups;
          for (const step of steps) {
            nowMs += step;
            const kept = keptIds(p, left, nowMs);
            left = left.filter(({ id }) => kept.has(id));
          }
          const atOnce = keptIds(p, backups, nowMs);
          expect(new Set(left.map(({ id }) => id))).toEqual(
            steps.length === 0 ? new Set(backups.map((b) => b.id)) : atOnce,
          );
        },
      ),
      { numRuns: 1000 },
    );
  });

  test('another rule, or more of one, never lets go what was kept', () => {
    const more = (p: RetentionPolicy, by: readonly number[]): RetentionPolicy => {
      const [age = 0, last = 0, daily = 0, weekly = 0, monthly = 0, yearly = 0] = by;
      const { daily: d = 0, weekly: w = 0, monthly: m = 0, yearly: y = 0, timeZone = 'UTC' } = p.periods ?? {};
      return {
        kind: p.kind,
        retentionMs: p.retentionMs + age * day,
        keepAtLeast: p.keepAtLeast + last,
        periods: { daily: d + daily, weekly: w + weekly, monthly: m + monthly, yearly: y + yearly, timeZone },
      };
    };
    const amounts = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(facts, amounts, ({ policy: p, backups }, by) => {
        const kept = keptIds(more(p, by), backups, now);
        for (const id of keptIds(p, backups, now)) expect(kept).toContain(id);
      }),
      { numRuns: 2000 },
    );
  });

  test('every day, week, month and year that is asked for keeps its newest good backup, as many as there are', () => {
    fc.assert(
      fc.property(facts, ({ policy: p, backups }) => {
        const kept = keptIds(p, backups, now);
        const good = backups.filter((b) => b.readable && !b.failedVerification);
        for (const period of periods) {
          const { [period]: limit = 0, timeZone = 'UTC' } = p.periods ?? {};
          const name = (b: BackupFacts) => periodOf(period, b.recoveryPointMs, timeZone);
          const groups = [...Map.groupBy(good, name).values()].map((group) =>
            group.reduce((a, b) =>
              a.recoveryPointMs > b.recoveryPointMs || (a.recoveryPointMs === b.recoveryPointMs && a.id > b.id) ? a : b,
            ),
          );
          const newest = groups.sort((a, b) => b.recoveryPointMs - a.recoveryPointMs).slice(0, limit);
          for (const { id } of newest) expect(kept).toContain(id);
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('all base backups from which a moment of the window is recovered keep the WAL behind them', () => {
    fc.assert(
      fc.property(facts, fc.double({ min: 0, max: 1, noNaN: true }), ({ policy: p, backups }, share) => {
        if (p.kind === 'data') return;
        const moment = now - p.retentionMs * share;
        const decisions = new Map(decideRetention(p, backups, now, false).map((d) => [d.id, d]));
        const before = backups
          .filter((b) => b.readable && b.recoveryPointMs <= moment)
          .sort((a, b) => b.recoveryPointMs - a.recoveryPointMs || (a.id < b.id ? 1 : -1));
        for (const base of [before[0], before.find((b) => !b.failedVerification)]) {
          if (base) expect(decisions.get(base.id)).toMatchObject({ keep: true, alone: false });
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('the order in which a vault lists does not matter, and under hold nothing goes', () => {
    fc.assert(
      fc.property(facts, ({ policy: p, backups }) => {
        expect(keptIds(p, [...backups].reverse(), now)).toEqual(keptIds(p, backups, now));
        expect(keptIds(p, backups, now, true).size).toBe(backups.length);
      }),
    );
  });
});
