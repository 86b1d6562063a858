import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { classifyDamage, type Observations, scopes } from '../../src/steps/damage.ts';

const well: Observations = {
  databases: [{ name: 'orders', answers: true, writes: true }],
  endpoints: [{ what: 'https://orders.example.com', alive: true }],
  archives: [{ database: 'orders', moves: true }],
  vaults: [
    { name: 'east', ofOldSite: true, usable: true, answers: true },
    { name: 'west', ofOldSite: false, usable: true, answers: true },
  ],
  failedChecks: [],
  names: [{ name: 'orders', pointsToOldSite: true }],
};
const gone: Partial<Observations> = {
  databases: [{ name: 'orders', answers: false, writes: false }],
  endpoints: [{ what: 'https://orders.example.com', alive: false }],
};
const scopeOf = (change: Partial<Observations>) => classifyDamage({ ...well, ...change }).scope;

describe('what has happened', () => {
  it('is told apart by what independent witnesses say', () => {
    expect(scopeOf({})).toBe('nothing-wrong');
    expect(scopeOf({ ...gone, archives: [{ database: 'orders', moves: false }] })).toBe('site-lost');
    expect(scopeOf(gone)).toBe('partition');
    expect(scopeOf({ ...gone, archives: [] })).toBe('unknown');
    expect(scopeOf({ failedChecks: ['orders: select count(*) > 0 from orders'] })).toBe('corruption');
    expect(scopeOf({ endpoints: [{ what: 'https://orders.example.com', alive: false }] })).toBe('degraded');
    expect(scopeOf({ databases: [{ name: 'orders', answers: true, writes: false }] })).toBe('degraded');
    expect(scopeOf({ vaults: [{ name: 'west', ofOldSite: false, usable: false, answers: false }] })).toBe('vault-lost');
  });

  it('takes a vault that answers and cannot be used for no proof that the site is gone', () => {
    const vault = { name: 'east', ofOldSite: true, usable: false };
    const empty = classifyDamage({ ...well, ...gone, archives: [], vaults: [{ ...vault, answers: true }] });
    expect(empty.scope).toBe('unknown');
    expect(empty.reasons).toContain('vault east answers, but cannot be used');
    const silent = classifyDamage({ ...well, ...gone, archives: [], vaults: [{ ...vault, answers: false }] });
    expect(silent).toMatchObject({
      scope: 'site-lost',
      meaning: 'nothing of the old site answers from here, and its vault does not answer',
    });
  });

  it('never proposes a failover while anything of the old site may live, nor one that would keep damaged data', () => {
    const observations = fc.record({
      databases: fc.array(fc.record({ name: fc.constant('d'), answers: fc.boolean(), writes: fc.boolean() }), {
        maxLength: 3,
      }),
      endpoints: fc.array(fc.record({ what: fc.constant('e'), alive: fc.boolean() }), { maxLength: 3 }),
      archives: fc.array(fc.record({ database: fc.constant('d'), moves: fc.boolean() }), { maxLength: 3 }),
      vaults: fc.array(
        fc.record({ name: fc.constant('v'), ofOldSite: fc.boolean(), usable: fc.boolean(), answers: fc.boolean() }),
        {
          maxLength: 3,
        },
      ),
      failedChecks: fc.array(fc.constant('c'), { maxLength: 2 }),
      names: fc.array(fc.record({ name: fc.constant('n'), pointsToOldSite: fc.constantFrom(true, false, undefined) }), {
        maxLength: 2,
      }),
    });
    fc.assert(
      fc.property(observations, (seen) => {
        const { scope, proposal, meaning } = classifyDamage(seen);
        expect(scopes).toContain(scope);
        expect(meaning).not.toBe('');
        const lives =
          seen.databases.some(({ answers }) => answers) ||
          seen.endpoints.some(({ alive }) => alive) ||
          seen.archives.some(({ moves }) => moves);
        if (scope === 'site-lost') expect(lives).toBe(false);
        if (seen.failedChecks.length > 0) expect(proposal).toContain('--runbook corruption --at');
        if (lives) expect(proposal).not.toBe('"dr failover"');
      }),
    );
  });
});
