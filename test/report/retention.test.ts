import { expect, test } from 'vitest';
import type { RetainedBackup, RetentionReport } from '../../src/backup/retention/collect.ts';
import { renderRetention } from '../../src/report/retention.ts';

const backup = (id: string, rules: RetainedBackup['rules']): RetainedBackup => ({
  resource: 'orders',
  id,
  keep: rules[0] !== 'expired',
  rules,
  recoveryPointMs: 0,
  storedBytes: 1000,
});

const report: RetentionReport = {
  applied: false,
  held: undefined,
  vaults: [
    {
      vault: 'east',
      backups: [
        backup('old', ['expired']),
        backup('march', ['monthly', 'yearly']),
        backup('base', ['window', 'weekly']),
        backup('today', ['young', 'newest', 'last-good', 'daily', 'weekly', 'monthly']),
      ],
      removals: [
        { what: 'manifest', subject: 'orders old', why: 'it is beyond retention', objects: 1, bytes: 0 },
        { what: 'content', subject: 'orders old', why: 'its backup is beyond retention', objects: 3, bytes: 5_242_880 },
        { what: 'wal', subject: 'system 7301', why: 'nothing needs it', objects: 9, bytes: 2_097_152 },
      ],
      freedBytes: 7_340_032,
      notes: ['a note'],
    },
  ],
};

test('what goes, why, what it frees, and which rules keep what lies beyond the window', () => {
  const lines = renderRetention(report).split('\n');
  expect(lines[0]).toBe('Vault east: 13 objects would go, 7.0 MiB.');
  const text = lines.join('\n');
  expect(text).toMatch(/backup +orders old +1 +- +it is beyond retention/);
  expect(text).toMatch(/content +orders old +3 +5\.0 MiB +its backup is beyond retention/);
  expect(text).toContain(
    'Kept: one backup the newest of a month; one backup needed for the beginning of the window; one backup within',
  );
  expect(text).toMatch(/orders base +window, weekly\n +orders march +monthly, yearly$/m);
  // What is young is no news.
  expect(text).not.toMatch(/orders today/);
  expect(text).toContain('Nothing was changed: "dr retention --apply" deletes it.');
});

test('a hold is said once, doubt in one vault where it is', () => {
  const [vault] = report.vaults;
  if (!vault) throw new Error('no vault');
  const held = renderRetention({
    ...report,
    held: 'hold x by alice: fire',
    vaults: [{ ...vault, removals: [], blocked: 'hold x by alice: fire' }],
  });
  expect(held.match(/fire/g)).toHaveLength(1);
  const doubt = renderRetention({
    ...report,
    applied: true,
    vaults: [{ ...vault, blocked: 'a manifest cannot be read' }],
  });
  expect(doubt).toContain('STOPPED: a manifest cannot be read');
  expect(doubt).toMatch(/^Vault east: 13 objects deleted/);
});
