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
    decideRetention(p, backups, nowMs, held).map(({ id, rules: [rule] }) => {
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
    // Old as it is, the newer one was copied to this vault an hour ago: until then another one was the newest here.
    const copied = [backup(100, bad), backup(110, bad), backup(90, { arrivedMs: now - day / 24 })];
    expect(rules(p, copied)['age-0100']).toBe('newest');
  });

  test('under hold nothing goes', () => {
    const backups = [1, 1000, 2000, 3000].map((age) => backup(age));
    expect(
      decideRetention(policy(), backups, now, true).every(({ keep, rules: [rule] }) => keep && rule === 'held'),
    ).toBe(true);
  });
});

describe('rules of the calendar', () => {
  const data = (facts: Partial<RetentionPolicy>) =>
    policy({ kind: 'data', retentionMs: day, keepAtLeast: 1, ...facts });
  const keptBy = (p: RetentionPolicy, backups: readonly BackupFacts[], rule: string) =>
    decideRetention(p, backups, now, false).flatMap(({ id, rules }) =>
      rules.some((each) => each === rule) ? [Math.round((now - (timeOfId(id) ?? 0)) / day)] : [],
    );
  /** Every day at noon for three years. */
  const daily = Array.from({ length: 1100 }, (_, i) => backup(i + 0.5));
  const periods = { daily: 7, weekly: 5, monthly: 12, yearly: 3, timeZone: 'UTC' };

  test('the newest of each of the last days, weeks, months and years stays; whatever any rule keeps, stays', () => {
    // `now` is Monday, 23 November 2026, 00:00 UTC: the newest backup is of Sunday.
    const p = data({ periods });
    expect(keptBy(p, daily, 'daily')).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(keptBy(p, daily, 'weekly')).toEqual([1, 8, 15, 22, 29]);
    expect(keptBy(p, daily, 'monthly')).toEqual([1, 23, 54, 84, 115, 146, 176, 207, 237, 268, 296, 327]);
    expect(keptBy(p, daily, 'yearly')).toEqual([1, 327, 692]);
    const kept = decideRetention(p, daily, now, false).filter(({ keep }) => keep);
    expect(kept).toHaveLength(7 + 4 + 11 + 1);
    expect(kept[0]?.rules).toEqual(['young', 'newest', 'last-good', 'daily', 'weekly', 'monthly', 'yearly']);
  });

  test('days without backup do not count, so a pause costs nothing', () => {
    const p = data({ periods: { daily: 3, timeZone: 'UTC' } });
    expect(
      keptBy(
        p,
        [2.5, 50.5, 50.2, 400.5, 401.5].map((age) => backup(age)),
        'daily',
      ),
    ).toEqual([3, 50, 401]);
  });

  test('one whose verification failed stands for no day: the good one before it does', () => {
    const p = data({ periods: { daily: 2, timeZone: 'UTC' } });
    const backups = [10.1, 10.5, 11.5, 12.5].map((age) => backup(age, { failedVerification: age === 10.1 }));
    expect(keptBy(p, backups, 'daily')).toEqual([11, 12]);
  });

  test('a base backup that only a rule of the calendar keeps needs no more WAL than its own', () => {
    const p = policy({ periods: { monthly: 4, timeZone: 'UTC' } });
    const backups = [1, 29, 31, 32, 60, 90].map((age) => backup(age));
    const found = decideRetention(p, backups, now, false).map(({ rules: [rule], alone }) => [rule, alone]);
    expect(found).toEqual([
      ['young', false],
      ['young', false],
      ['window', false],
      ['expired', false],
      ['monthly', true],
      ['monthly', true],
    ]);
  });

  test('when the base of the window failed its verification, the good one before it stays with all its WAL', () => {
    const backups = [1, 31, 32, 33].map((age) => backup(age, { failedVerification: age === 31 }));
    const found = decideRetention(policy({ keepAtLeast: 1 }), backups, now, false);
    expect(found.map(({ rules: [rule], alone }) => [rule, alone])).toEqual([
      ['young', false],
      ['window', false],
      ['window', false],
      ['expired', false],
    ]);
  });
});
