import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type BackupFacts, decideRetention, type RetentionPolicy } from '../../../src/backup/retention/retention.ts';
import { timedId, timeOfId } from '../../../src/vault/layout.ts';

const day = 86_400_000;
const now = Date.UTC(2026, 10, 23);

const policy = (facts: Partial<RetentionPolicy> = {}): RetentionPolicy => ({
  kind: 'database',
  retentionMs: 30 * day,
  keepAtLeast: 2,
  ...facts,
});

const backup = (ageDays: number, facts: Partial<BackupFacts> = {}): BackupFacts => ({
  id: timedId(now - ageDays * day, 'abcdef'),
  readable: true,
  recoveryPointMs: now - ageDays * day,
  finishedAtMs: now - ageDays * day,
  ...facts,
});

/** By age in days at `now`. */
const rules = (p: RetentionPolicy, backups: readonly BackupFacts[], nowMs = now, held = false) =>
  Object.fromEntries(
    decideRetention(p, backups, nowMs, held).map(({ id, rule }) => {
      const days = (now - (timeOfId(id) ?? Number.NaN)) / day;
      return [`age-${String(days).padStart(4, '0')}`, rule];
    }),
  );

describe('retention of the seed policy', () => {
  test('a database keeps its window, the base before it, and nothing older', () => {
    const backups = [1, 10, 29, 31, 32, 40].map((age) => backup(age));
    expect(rules(policy(), backups)).toEqual({
      'age-0001': 'young',
      'age-0010': 'young',
      'age-0029': 'young',
      'age-0031': 'window',
      'age-0032': 'expired',
      'age-0040': 'expired',
    });
  });

  test('data needs no base before its window; a configuration keeps what was in force when the window began', () => {
    const backups = [1, 2, 91, 92].map((age) => backup(age));
    expect(rules(policy({ kind: 'data', retentionMs: 90 * day }), backups)['age-0091']).toBe('expired');
    expect(rules(policy({ kind: 'configuration', retentionMs: 90 * day }), backups)['age-0091']).toBe('window');
  });

  test('the last good ones stay however old; one whose verification failed is not good', () => {
    const backups = [100, 200, 300, 400].map((age) => backup(age, { failedVerification: age === 100 }));
    expect(rules(policy({ kind: 'data' }), backups)).toEqual({
      'age-0100': 'newest',
      'age-0200': 'last-good',
      'age-0300': 'last-good',
      'age-0400': 'expired',
    });
    expect(rules(policy({ kind: 'data', keepAtLeast: 0 }), backups)['age-0200']).toBe('last-good');
  });

  test('the newest verified one stays; a verification that failed later takes that away', () => {
    const backups = [100, 200, 300, 400].map((age) => backup(age, age >= 300 ? { verifiedAtMs: now } : {}));
    expect(rules(policy({ kind: 'data' }), backups)['age-0300']).toBe('newest-verified');
    expect(rules(policy({ kind: 'data' }), backups)['age-0400']).toBe('expired');
  });

  test('what cannot be read stays and does not count as good', () => {
    const backups = [100, 200, 300].map((age) => backup(age, { readable: age !== 100 }));
    expect(rules(policy({ kind: 'data', keepAtLeast: 1 }), backups)).toEqual({
      'age-0100': 'unreadable',
      'age-0200': 'newest',
      'age-0300': 'expired',
    });
  });

  test('the newest one stays although it is old and its verification failed: the next backup builds on it', () => {
    const backups = [100, 110, 120].map((age) => backup(age, { failedVerification: age === 100 }));
    expect(rules(policy({ kind: 'data', keepAtLeast: 1 }), backups)).toEqual({
      'age-0100': 'newest',
      'age-0110': 'last-good',
      'age-0120': 'expired',
    });
  });

  test('what was the newest within the last 48 hours stays: a backup that runs may have begun on it', () => {
    const p = policy({ kind: 'data', keepAtLeast: 1 });
    const bad = { failedVerification: true };
    const newer = (hours: number) => [backup(100, bad), backup(110, bad), backup(hours / 24)];
    expect(rules(p, newer(47))['age-0100']).toBe('newest');
    expect(rules(p, newer(47))['age-0110']).toBe('expired');
    expect(rules(p, newer(49))['age-0100']).toBe('expired');
  });

  test('under hold nothing goes', () => {
    const backups = [1, 1000, 2000, 3000].map((age) => backup(age));
    expect(decideRetention(policy(), backups, now, true).every(({ keep, rule }) => keep && rule === 'held')).toBe(true);
  });
});

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

const facts = fc
  .tuple(
    anyBackups,
    fc.constantFrom<RetentionPolicy['kind']>('database', 'data', 'configuration'),
    fc.integer({ min: 0, max: 90 * day }),
    fc.integer({ min: 0, max: 5 }),
  )
  .map(([found, kind, retentionMs, keepAtLeast]) => ({
    policy: { kind, retentionMs, keepAtLeast },
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

  test('the order in which a vault lists does not matter, and under hold nothing goes', () => {
    fc.assert(
      fc.property(facts, ({ policy: p, backups }) => {
        expect(keptIds(p, [...backups].reverse(), now)).toEqual(keptIds(p, backups, now));
        expect(keptIds(p, backups, now, true).size).toBe(backups.length);
      }),
    );
  });
});
