import { describe, expect, test } from 'vitest';
import type { ResourceStatus, Status } from '../../src/backup/status/model.ts';
import { renderStatus } from '../../src/report/status.ts';

const at = Date.UTC(2026, 10, 23, 5);
const orders: ResourceStatus = {
  name: 'orders',
  kind: 'database',
  schedule: 'every 6 hours',
  ok: true,
  recoveryPointMs: at - 3200,
  rpoNowMs: 3200,
  objectiveMs: 900_000,
  newest: { id: 'x', finishedAtMs: at - 7_200_000, logicalBytes: 5 * 1024 ** 3, storedBytes: 1024 ** 3, losses: [] },
  crossRegion: true,
  verified: {
    format: 1,
    id: 'v',
    resource: 'orders',
    kind: 'database',
    backupId: 'x',
    vault: 'west',
    site: 'west',
    startedAt: '2026-11-23T02:00:00.000Z',
    finishedAt: '2026-11-23T02:05:00.000Z',
    recoveredTo: '2026-11-23T01:59:58.000Z',
    ok: true,
    checks: [],
    bytes: 1,
    restoreMs: 250_000,
  },
  maxAgeMs: undefined,
  nextRunMs: at + 3_600_000,
  vaults: [],
};
const status = (facts: Partial<Status>): Status => ({
  ok: true,
  at,
  active: { site: 'east', region: 'eu-west-1', recorded: true, since: '2026-11-01', by: 'alice' },
  vaults: [],
  resources: [orders],
  retention: { doneMs: undefined, overdue: false, blocked: undefined },
  holds: [],
  alerts: [],
  ...facts,
});

describe('the status for people', () => {
  test('begins with the answer', () => {
    const text = renderStatus(status({}));
    expect(text.split('\n')[0]).toBe(
      'Safe: if eu-west-1 died now, 3.2 s of orders would be lost. The slowest restore took 4 min 10 s, as proven 2 h 55 min ago (orders).',
    );
    expect(text).toMatch(/orders +ok +3\.2 s +15 min +2 h ago +5\.0 GiB +yes +2 h 55 min ago +in 1 h$/m);
    expect(text).toContain('Active site: east in eu-west-1 since 2026-11-01 (alice)');
  });

  test('says what would be lost whole, and lists what is broken before what is to mend', () => {
    const settings: ResourceStatus = { ...orders, name: 'settings', kind: 'configuration', objectiveMs: undefined };
    const uploads: ResourceStatus = { ...orders, name: 'uploads', ok: false, rpoNowMs: undefined, newest: undefined };
    const text = renderStatus(
      status({
        ok: false,
        resources: [orders, { ...settings, rpoNowMs: 864_000_000 }, { ...uploads, verified: undefined }],
        alerts: [
          { level: 'warning', message: 'vault west lacks one backup' },
          { level: 'broken', resource: 'uploads', message: 'uploads cannot be recovered', next: 'Take a backup.' },
        ],
      }),
    );
    expect(text).toMatch(
      /^NOT SAFE: if eu-west-1 died now, 3\.2 s of orders and everything of uploads would be lost\./,
    );
    expect(text).toMatch(/\nBROKEN:\n {2}uploads cannot be recovered\n {4}Take a backup\.\n\nTo mend:\n {2}vault west/);
    expect(text).toMatch(/uploads +BROKEN +everything .* never /);
  });

  test('when nothing is protected or nothing could be recovered it says so', () => {
    expect(renderStatus(status({ resources: [] }))).toMatch(
      /^There is nothing to lose yet\.[\s\S]*Nothing is protected yet/,
    );
    const none = { ...orders, rpoNowMs: undefined };
    expect(renderStatus(status({ ok: false, resources: [none] }))).toMatch(/^NOT SAFE: nothing could be recovered\./);
  });
});
