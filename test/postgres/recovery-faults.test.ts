import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { formatLsn, segmentName } from '../../src/postgres/lsn.ts';
import { recover } from '../../src/postgres/recovery.ts';
import {
  orderIds,
  type RecoverySource,
  recoverInChild,
  recoverySource,
  restoredBackup,
  sourceSegmentBytes,
  upTo,
} from '../harness/recovery-source.ts';

let source: RecoverySource;
let names: string[];
beforeAll(async () => {
  source = await recoverySource(17);
  const first = segmentName(1, source.backup.endLsn, sourceSegmentBytes);
  names = [...source.wal.files.keys()].filter((name) => name > first).sort();
  expect(names.length).toBeGreaterThan(5);
});
afterAll(async () => {
  await source.server.stop('immediate');
});

async function failure(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

test('an LSN after the end of the archive is not found, and the reachable end is named', async () => {
  const options = await restoredBackup(source, { target: { kind: 'lsn', lsn: source.wal.endLsn + 0x100000n } });
  const error = await failure(recover(options));
  expect(error).toMatchObject({
    kind: 'not-found',
    message: expect.stringContaining(`up to ${formatLsn(source.wal.endLsn)}`),
  });
  expect(existsSync(join(options.dataDirectory, 'postmaster.pid'))).toBe(false);
});

test('a time after the last commit is not found, and the last commit is named', async () => {
  const error = await failure(
    recover(await restoredBackup(source, { target: { kind: 'time', atMs: Date.now() + 3_600_000 } })),
  );
  expect(error).toMatchObject({ kind: 'not-found', message: expect.stringMatching(/last commit is of 20\d\d-/) });
});

test('the LSN at which the archive ends is reached, and can be promoted', async () => {
  const cluster = await recover(await restoredBackup(source, { target: { kind: 'lsn', lsn: source.wal.endLsn } }));
  expect(cluster.reached?.replayedTo).toBe(source.wal.endLsn);
  await cluster.promote();
  expect(await orderIds(cluster)).toEqual(upTo(13));
  await cluster.stop();
});

test('a target inside of the base backup needs an older backup', async () => {
  const options = await restoredBackup(source, { target: { kind: 'lsn', lsn: source.backup.startLsn } });
  expect(await failure(recover(options))).toMatchObject({
    kind: 'not-found',
    next: expect.stringContaining('older backup'),
  });
});

test('a missing segment in the middle is an error that names it, not the end of the WAL', async () => {
  const hole = names[3] ?? '';
  const fetchWal = async (name: string) => (name === hole ? undefined : await source.wal.fetch(name));
  const error = await failure(recover(await restoredBackup(source, { fetchWal })));
  expect(error).toMatchObject({
    kind: 'not-found',
    where: hole,
    message: expect.stringContaining('missing in the middle'),
  });
});

test('an unreadable record in the middle is an error that names the position', async () => {
  const bad = names[2] ?? '';
  const fetchWal = async (name: string) => {
    const content = await source.wal.fetch(name);
    if (name !== bad || content === undefined) return content;
    const copy = Buffer.from(content);
    copy.fill(0xee, 300_000, 300_100);
    return copy;
  };
  const error = await failure(recover(await restoredBackup(source, { fetchWal })));
  expect(error).toMatchObject({ kind: 'corrupt', where: bad, message: expect.stringContaining('cannot read the WAL') });
});

test('an archive that ends in the middle of a record is complete up to the record before', async () => {
  const cut = source.wal.endLsn - 20n;
  const fetchWal = async (name: string) => {
    const content = await source.wal.fetch(name);
    return name === names.at(-1) ? content?.subarray(0, content.length - 20) : content;
  };
  const cluster = await recover(await restoredBackup(source, { fetchWal, target: { kind: 'latest', endLsn: cut } }));
  expect(await orderIds(cluster)).toEqual(upTo(12));
  expect(cluster.reached?.replayedTo).toBeLessThan(cut);
  await cluster.stop();
});

test('WAL that ends before the backup is consistent is an error', async () => {
  const first = segmentName(1, source.backup.startLsn, sourceSegmentBytes);
  const fetchWal = async (name: string) => (name === first ? await source.wal.fetch(name) : undefined);
  const error = await failure(recover(await restoredBackup(source, { fetchWal })));
  expect(error).toMatchObject({
    kind: 'not-found',
    message: expect.stringMatching(/before the base backup is consistent/),
  });
});

test('a failing fetch is what the caller gets, and the same directory recovers once it works', async () => {
  const broken = names[4] ?? '';
  const outage = new DrError('unreachable', 'the vault does not answer', { where: `west/${broken}` });
  let works = false;
  const fetchWal = async (name: string) => {
    if (name === broken && !works) throw outage;
    return await source.wal.fetch(name);
  };
  const options = await restoredBackup(source, { fetchWal });
  expect(await failure(recover(options))).toBe(outage);
  expect(existsSync(join(options.dataDirectory, 'postmaster.pid'))).toBe(false);
  expect(existsSync(join(options.dataDirectory, 'dr_wal'))).toBe(false);
  works = true;
  const cluster = await recover(options);
  expect(await orderIds(cluster)).toEqual(upTo(13));
  await cluster.stop();
});

test('a slow fetch is waited for', async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  let ticks = 0;
  const fetchWal = async (name: string) => {
    if (name === names[5]) await gate;
    return await source.wal.fetch(name);
  };
  // The server has stood still before the missing file for many looks of the watcher when it comes at last.
  const onProgress = ({ detail }: { detail?: string }) => {
    if (detail !== undefined && ++ticks === 15) release();
  };
  const cluster = await recover(await restoredBackup(source, { fetchWal, onProgress }));
  expect(await orderIds(cluster)).toEqual(upTo(13));
  await cluster.stop();
});

test('an abort stops the server', async () => {
  const abort = new AbortController();
  const fetchWal = async (name: string) => {
    if (name === names[2]) abort.abort(new DrError('interrupted', 'Ctrl-C'));
    return await source.wal.fetch(name);
  };
  const options = await restoredBackup(source, { fetchWal, signal: abort.signal });
  expect(await failure(recover(options))).toMatchObject({ message: expect.stringMatching(/Ctrl-C|aborted/) });
  expect(existsSync(join(options.dataDirectory, 'postmaster.pid'))).toBe(false);
});

test('another system, or another major version, is refused', async () => {
  expect(await failure(recover(await restoredBackup(source, { systemId: '42' })))).toMatchObject({ kind: 'refused' });
  const options = await restoredBackup(source);
  const binaries = { ...options.binaries, major: 16, version: '16.1' };
  expect(await failure(recover({ ...options, binaries }))).toMatchObject({
    kind: 'refused',
    message: 'this cluster is of PostgreSQL 17, the server is 16.1',
  });
});

test('kill -9 of the feeding process stops the recovery, and the same call goes on with it', async () => {
  const options = await restoredBackup(source);
  const feeder = await recoverInChild(options, source, names[5]);
  await feeder.waitFor(/stuck/);
  const pid = Number.parseInt(readFileSync(join(options.dataDirectory, 'postmaster.pid'), 'utf8'), 10);
  await feeder.kill9();
  await expect
    .poll(() => existsSync(`/proc/${pid}`) && existsSync(join(options.dataDirectory, 'postmaster.pid')), {
      timeout: 30_000,
    })
    .toBe(false);
  const log = readFileSync(join(options.dataDirectory, 'log', 'dr-recovery.log'), 'utf8');
  expect(log).toMatch(/process \d+, which feeds this recovery, has ended; run the dr command again/);
  expect(log).toMatch(/FATAL: {2}could not restore file/);
  const cluster = await recover(options);
  expect(await orderIds(cluster)).toEqual(upTo(13));
  await cluster.stop();
});
