import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Progress } from '../../src/base/progress.ts';
import { recover } from '../../src/postgres/recovery.ts';
import { queryOnce } from '../../src/postgres/server-process-sql.ts';
import { postgresMajors } from '../harness/postgres.ts';
import { orderIds, type RecoverySource, recoverySource, restoredBackup, upTo } from '../harness/recovery-source.ts';

describe.each(postgresMajors)('PostgreSQL %s', (version) => {
  let source: RecoverySource;
  beforeAll(async () => {
    source = await recoverySource(version);
  });
  afterAll(async () => {
    await source.server.stop('immediate');
  });

  test('latest: every commit of the archive comes back, promotion leaves nothing behind', async () => {
    const seen: Progress[] = [];
    const options = await restoredBackup(source, { onProgress: (progress) => seen.push(progress) });
    const cluster = await recover(options);
    try {
      expect(await orderIds(cluster)).toEqual(upTo(13));
      expect(cluster.reached?.replayedTo).toBe(source.wal.endLsn);
      expect(cluster.reached?.lastCommitAtMs).toBeLessThanOrEqual(source.orders.at(-1)?.afterMs ?? 0);
      expect(seen.at(-1)).toMatchObject({ unit: 'bytes', done: seen.at(-1)?.total });
      await expect(queryOnce(cluster.url, 'create table x()')).rejects.toThrow(/read-only/);
      expect((await cluster.promote()).timeline).toBe(2);
      await queryOnce(cluster.url, 'insert into orders values (100)');
      for (const name of ['dr_wal', 'standby.signal', 'promote', 'backup_label']) {
        expect(existsSync(join(options.dataDirectory, name)), name).toBe(false);
      }
    } finally {
      await cluster.stop();
    }
    // Started again by anybody, with nothing but the directory, it is a plain primary.
    const again = await recover(options);
    expect(again.reached).toBeUndefined();
    expect((await again.promote()).timeline).toBe(2);
    expect(await orderIds(again)).toEqual([...upTo(13), 100]);
    await again.stop();
  });

  test('an LSN brings back the commits before it, and no later one', async () => {
    const lsn = source.orders[6]?.lsn ?? 0n;
    const cluster = await recover(await restoredBackup(source, { target: { kind: 'lsn', lsn } }));
    try {
      expect(await orderIds(cluster)).toEqual(upTo(7));
      expect(cluster.reached?.replayedTo).toBeGreaterThanOrEqual(lsn);
      await cluster.promote();
      expect(await orderIds(cluster)).toEqual(upTo(7));
    } finally {
      await cluster.stop();
    }
  });

  test('a time brings back the commits up to it', async () => {
    const atMs = source.orders[8]?.afterMs ?? 0;
    const cluster = await recover(await restoredBackup(source, { target: { kind: 'time', atMs } }));
    try {
      expect(await orderIds(cluster)).toEqual(upTo(9));
      await cluster.promote();
      expect(await orderIds(cluster)).toEqual(upTo(9));
    } finally {
      await cluster.stop();
    }
  });
});
