import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TriggerConfig } from '../../src/config/types.ts';
import { type Evidence, judgeTriggers, type ProbeRound, percentile95 } from '../../src/steps/triggers.ts';

const policy: TriggerConfig = {
  errors: { above: 0.05, overMs: 300_000 },
  p95: { aboveMs: 2000, overMs: 300_000 },
  health: { failures: 3, withinMs: 120_000 },
  prometheus: undefined,
};
/** Without the trigger for failing health checks, which would hide the others. */
const tolerant: TriggerConfig = { ...policy, health: { failures: 1000, withinMs: 120_000 } };
const everyMs = 5000;
const start = Date.UTC(2026, 0, 1);

/** One round every 5 s from the start on, and the moment right after the last. */
function evidence(answers: ReadonlyArray<{ ok?: boolean; ms?: number }>, change: Partial<Evidence> = {}) {
  const rounds = answers.map(({ ok = true, ms = 50 }, i): ProbeRound => {
    return { atMs: start + i * everyMs, answers: [{ ok, ms }] };
  });
  return { sinceMs: start, everyMs, rounds, metrics: {}, ...change };
}
const times = <T>(n: number, value: T): T[] => Array.from({ length: n }, () => value);
const end = (rounds: number) => start + rounds * everyMs;

describe('errors above 5 % over 5 min', () => {
  it('fire with 4 of 60 and hold with 3 of 60', () => {
    // The first of 61 rounds is just older than the window.
    const three = evidence([{}, ...times(3, { ok: false }), ...times(57, {})]);
    expect(judgeTriggers(tolerant, three, end(60))).toMatchObject({ decision: 'hold' });
    const four = evidence([{}, ...times(4, { ok: false }), ...times(56, {})]);
    expect(judgeTriggers(tolerant, four, end(60))).toEqual({
      decision: 'fire',
      complete: true,
      reasons: ['4 of 60 HTTP checks failed within 5 min, more than 5 %'],
    });
  });

  it('fire as soon as nothing could save the window, and not before', () => {
    expect(judgeTriggers(tolerant, evidence(times(3, { ok: false })), end(3)).decision).toBe('hold');
    expect(judgeTriggers(tolerant, evidence(times(4, { ok: false })), end(4)).decision).toBe('fire');
  });

  it('forget what is older than the window', () => {
    const old = evidence([...times(10, { ok: false }), ...times(70, {})]);
    expect(judgeTriggers(tolerant, old, end(80))).toEqual({ decision: 'hold', complete: true, reasons: [] });
  });
});

describe('a p95 above 2000 ms over 5 min', () => {
  it('fires with 4 slow of 60 and holds with 3', () => {
    const slow = (n: number) => evidence([{}, ...times(n, { ms: 2001 }), ...times(60 - n, { ms: 2000 })]);
    expect(judgeTriggers(tolerant, slow(3), end(60)).decision).toBe('hold');
    expect(judgeTriggers(tolerant, slow(4), end(60)).reasons).toEqual([
      'the p95 of the HTTP checks is 2001 ms within 5 min, more than 2000 ms (4 of 60 were slower)',
    ]);
  });
});

describe('3 failed health checks in 2 min', () => {
  it('fire, whatever lies between them', () => {
    const failed = evidence([{ ok: false }, ...times(10, {}), { ok: false }, ...times(10, {}), { ok: false }]);
    expect(judgeTriggers(policy, failed, end(23)).reasons).toEqual(['3 health checks failed within 2 min']);
  });

  it('hold when the first of them is longer ago', () => {
    const failed = evidence([{ ok: false }, ...times(11, {}), { ok: false }, ...times(11, {}), { ok: false }]);
    expect(judgeTriggers(policy, failed, end(24)).decision).toBe('hold');
  });

  it('count a round once, however many of its checks fail', () => {
    const rounds = times(2, { atMs: start + 1, answers: times(5, { ok: false, ms: 1 }) });
    expect(judgeTriggers(policy, { ...evidence([]), rounds }, start + 2).reasons.join()).not.toContain('health checks');
  });
});

describe('Prometheus', () => {
  const metrics = (errors: number, p95: number) =>
    evidence([], { metrics: { errors: { value: errors }, p95: { value: p95 } } });

  it('fires above the same limits', () => {
    expect(judgeTriggers(policy, metrics(0.05, 2), end(60))).toEqual({ decision: 'hold', complete: true, reasons: [] });
    expect(judgeTriggers(policy, metrics(0.0512, 2), end(1)).reasons).toEqual([
      '5.1 % of all requests fail by Prometheus, more than 5 %',
    ]);
    expect(judgeTriggers(policy, metrics(0, 2.5), end(1)).reasons).toEqual([
      'the p95 of all requests is 2500 ms by Prometheus, more than 2000 ms',
    ]);
  });

  it('without a number is no reason to fire and none to go on', () => {
    const silent = evidence(times(60, {}), { metrics: { errors: { problem: 'it is away' } } });
    expect(judgeTriggers(policy, silent, end(60))).toEqual({
      decision: 'hold',
      complete: false,
      reasons: ['the query for errors has no number: it is away'],
    });
  });
});

describe('a hold is complete only', () => {
  it('when the longest window has been watched to its end', () => {
    expect(judgeTriggers(policy, evidence(times(59, {})), end(59))).toEqual({
      decision: 'hold',
      complete: false,
      reasons: ['watched for 4 min 55 s of 5 min'],
    });
    expect(judgeTriggers(policy, evidence(times(60, {})), end(60)).complete).toBe(true);
  });

  it('when somebody looked all the time', () => {
    const whole = evidence(times(60, {}));
    const rounds = whole.rounds.filter((_, i) => i < 20 || i > 23);
    expect(judgeTriggers(policy, { ...whole, rounds }, end(60)).reasons).toEqual(['nobody looked for 25 s']);
  });

  it('when there is something to see', () => {
    expect(judgeTriggers(policy, evidence([]), end(60))).toMatchObject({ decision: 'hold', complete: false });
  });
});

const answer = fc.record({ ok: fc.boolean(), ms: fc.integer({ min: 0, max: 5000 }) });
const anyEvidence = fc.array(answer, { minLength: 1, maxLength: 80 }).map((answers) => evidence(answers));

describe('for all evidence', () => {
  it('more bad answers never turn fire into hold', () => {
    fc.assert(
      fc.property(anyEvidence, fc.nat(), (seen, pick) => {
        const now = end(seen.rounds.length);
        if (judgeTriggers(policy, seen, now).decision === 'hold') return;
        const worse = seen.rounds.map((round, i) =>
          i === pick % seen.rounds.length ? { ...round, answers: [{ ok: false, ms: 5000 }] } : round,
        );
        expect(judgeTriggers(policy, { ...seen, rounds: worse }, now).decision).toBe('fire');
      }),
    );
  });

  it('what fires early over a window fires at its end too, even when everything after it is good', () => {
    fc.assert(
      fc.property(fc.array(answer, { minLength: 1, maxLength: 59 }), (answers) => {
        if (judgeTriggers(tolerant, evidence(answers), end(answers.length)).decision === 'hold') return;
        const full = evidence([...answers, ...times(60 - answers.length, {})]);
        expect(judgeTriggers(tolerant, full, end(60) - 1).decision).toBe('fire');
      }),
    );
  });

  it('of a full window the decision is the definition: share of errors and p95 by nearest rank', () => {
    fc.assert(
      fc.property(
        fc.array(answer, { minLength: 60, maxLength: 60 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (answers, above) => {
          const custom = { ...tolerant, errors: { above, overMs: 300_000 } };
          const errors = answers.filter(({ ok }) => !ok).length / answers.length;
          const expected = errors > above || percentile95(answers.map(({ ms }) => ms)) > 2000;
          // At the limit itself, quotient and product may round apart.
          fc.pre(Math.abs(errors - above) > 1e-9);
          expect(judgeTriggers(custom, evidence(answers), end(60) - 1).decision).toBe(expected ? 'fire' : 'hold');
        },
      ),
    );
  });

  it('all good answers hold, and complete after the window', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), (rounds) => {
        const decision = judgeTriggers(policy, evidence(times(rounds, {})), end(rounds));
        expect(decision).toMatchObject({ decision: 'hold', complete: rounds >= 60 });
      }),
    );
  });

  it('only the distance in time matters, not the hour', () => {
    fc.assert(
      fc.property(anyEvidence, fc.integer({ min: -1e12, max: 1e12 }), (seen, by) => {
        const moved = {
          ...seen,
          sinceMs: seen.sinceMs + by,
          rounds: seen.rounds.map((round) => ({ ...round, atMs: round.atMs + by })),
        };
        const now = end(seen.rounds.length);
        expect(judgeTriggers(policy, moved, now + by)).toEqual(judgeTriggers(policy, seen, now));
      }),
    );
  });
});
