import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { ManifestFiles, manifestPieces } from '../../src/postgres/backup-manifest.ts';
import type { BaseBackupResult } from '../../src/postgres/base-backup.ts';
import type { ReplicationConnection } from '../../src/postgres/connection.ts';
import { incrementalRefusal, uploadManifest } from '../../src/postgres/incremental-backup.ts';
import type { PreviousBackup } from '../../src/postgres/incremental-manifest.ts';
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts';
import { Session } from '../../src/postgres/session.ts';
import { openServer } from '../../src/postgres/socket.ts';
import { encodeCopyData, encodedCopyDone, encodeQuery } from '../../src/postgres/wire.ts';
import { own, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { filesBelow, layOver } from './lay-over.ts';
import { backupOptions, connect, discard, writeTo } from './receive.ts';
import { listen, message, ready } from './scripted-server.ts';

const settings = { summarize_wal: 'on', autovacuum: 'off' };

/** The statements that change relations in every way that a backup could miss, by round. */
const rounds: ReadonlyArray<ReadonlyArray<string>> = [
  [
    // Some blocks, some of them twice; the visibility map loses bits.
    'update wide set x = upper(x) where i between 100 and 130 or i = 7000',
    'delete from wide where i between 500 and 600',
    // Cut at its end, then extended by blocks that no record of WAL names.
    'delete from cut where i > 10000',
    'vacuum (truncate) cut',
    "copy cut from program 'yes 7:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz | head -3000' with (delimiter ':')",
    // Gone, new, and new under old names.
    'drop table gone',
    'create table gone as select generate_series(1, 700) i',
    'create table fresh (i int primary key)',
    'insert into fresh select generate_series(1, 5000)',
    'truncate emptied',
    'insert into far select generate_series(5001, 9000)',
    "select nextval('counter') from generate_series(1, 40)",
    'insert into unlogged select generate_series(5001, 6000)',
    'create database copied strategy file_copy',
    'create database logged strategy wal_log',
  ],
  [
    'vacuum full wide',
    'vacuum wide, cut',
    'alter table cut set tablespace elsewhere',
    'drop database copied',
    'create database copied template logged strategy file_copy',
    'alter table far set tablespace pg_default',
    'alter table unlogged set logged',
    'reindex table fresh',
  ],
  ['update wide set i = -i where i % 97 = 0', 'delete from fresh where i > 10', 'vacuum (truncate, freeze) fresh'],
];

describe.each([17, 18] as const)('incremental base backup of PostgreSQL %i', (version) => {
  it('laid over the previous one, again and again, gives the files of a full backup', async () => {
    await using server = await startPostgres({ version, settings });
    const space = await tempDir('space');
    own(space);
    await server.sql(`create tablespace elsewhere location '${space}'`);
    await prepare(server);
    const base = await tempDir('backups');
    const connection = await connect(server);
    const { systemId } = await connection.identify();
    let previous = join(base, 'full');
    let last = await connection.baseBackup(backupOptions, writeTo(previous).consumer);
    for (const [round, statements] of rounds.entries()) {
      for (const statement of statements) await server.sql(statement);
      const directory = join(base, `increment-${round}`);
      const laid = layOver(previous, directory);
      const incremental = { systemId, ...last, files: filesBelow(previous) };
      last = await connection.baseBackup({ ...backupOptions, manifest: false, incremental }, laid.consumer);
      expect(laid.changed.length).toBeGreaterThan(300);
      // Of the large table only some blocks came, before it was written anew.
      const [wide] = await server.sql<{ path: string }>("select pg_relation_filepath('wide') as path");
      const blocks = laid.changed.find(({ path }) => path === wide?.path)?.changes?.blocks.length;
      if (round === 0) expect(blocks).toBeLessThan(60);
      if (round === 0) expect(await zeroTail(server, 'cut')).toBe(true);
      const whole = join(base, `whole-${round}`);
      await connection.baseBackup({ ...backupOptions, manifest: false }, writeTo(whole).consumer);
      expect(differences(directory, whole)).toEqual([]);
      expect(readFileSync(join(directory, 'backup_label'), 'utf8')).not.toContain('INCREMENTAL');
      previous = directory;
    }
    await connection.close();
  });
});

it('follows the previous backup to where positions in the WAL have a digit more', async () => {
  // As text 0/F000028 comes after 0/10000028: in a server as old as that, summaries sorted by it seem to have gaps.
  await using server = await startPostgres({ version: 17, settings });
  const connection = await connect(server);
  const { systemId } = await connection.identify();
  const full = await connection.baseBackup(backupOptions, discard);
  expect(formatLsn(full.startLsn)).toHaveLength('0/F000028'.length);
  let now = full.startLsn;
  while (formatLsn(now).length <= '0/F000028'.length) {
    await server.sql("select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()");
    await server.sql('checkpoint');
    const [at] = await server.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    now = parseLsn(at?.lsn ?? '') ?? 0n;
  }
  const incremental = { systemId, ...full, files: ['base/5/1259'] };
  const next = await connection.baseBackup({ ...backupOptions, manifest: false, incremental }, discard);
  expect(formatLsn(next.startLsn).length).toBeGreaterThan('0/F000028'.length);
  await connection.close();
});

async function prepare(server: TestPostgres): Promise<void> {
  await server.sql(`
    create table wide as select i, repeat('x', 500) as x from generate_series(1, 8000) i;
    create index on wide (i);
    create table cut as select i, repeat('y', 500) as x from generate_series(1, 12000) i;
    create table gone as select generate_series(1, 5000) i;
    create table emptied as select generate_series(1, 5000) i;
    create table far tablespace elsewhere as select generate_series(1, 5000) i;
    create sequence counter;
    create unlogged table unlogged (i int primary key);
    insert into unlogged select generate_series(1, 5000)`);
  await server.sql('alter table cut alter x drop not null');
  await server.sql('vacuum freeze');
}

/** Whether a table ends with a block of zeros, which no record of WAL names. */
async function zeroTail(server: TestPostgres, table: string): Promise<boolean> {
  const [row] = await server.sql<{ path: string }>(`select pg_relation_filepath('${table}') as path`);
  const bytes = readFileSync(join(server.dataDirectory, row?.path ?? ''));
  return bytes.length > 8192 && bytes.subarray(-8192).every((byte) => byte === 0);
}

/** What is not the same in two base backups of a quiet server; what differs from one to the next by its nature left out. */
function differences(one: string, other: string): string[] {
  const skipped = /^(?:backup_label|global\/pg_control|pg_wal\/.*)$/;
  const paths = new Set([...filesBelow(one), ...filesBelow(other)].filter((path) => !skipped.test(path)));
  return [...paths].filter((path) => {
    const [a, b] = [join(one, path), join(other, path)];
    return !existsSync(a) || !existsSync(b) || !readFileSync(a).equals(readFileSync(b));
  });
}

describe('a server that cannot send only what changed', () => {
  let server: TestPostgres;
  let connection: ReplicationConnection;
  let systemId: string;
  let full: BaseBackupResult;
  beforeAll(async () => {
    server = await startPostgres({ version: 17, settings });
    connection = await connect(server);
    ({ systemId } = await connection.identify());
    full = await connection.baseBackup(backupOptions, discard);
  });
  afterAll(async () => {
    await connection.close();
    await server[Symbol.asyncDispose]();
  });

  const previous = (change: Partial<PreviousBackup> = {}): PreviousBackup => ({
    systemId,
    ...full,
    files: ['base/5/1259'],
    ...change,
  });
  /** Why it was refused; after that, the same connection takes a full backup. */
  const refusal = async (incremental: PreviousBackup, on: ReplicationConnection = connection): Promise<string> => {
    let begun = false;
    const consumer = {
      ...discard,
      begin: () => {
        begun = true;
      },
    };
    const error: unknown = await on.baseBackup({ ...backupOptions, incremental }, consumer).then(
      () => new Error('it was taken'),
      (reason: unknown) => reason,
    );
    const why = incrementalRefusal(error);
    if (why === undefined) throw error;
    expect(begun).toBe(false);
    await on.baseBackup(backupOptions, discard);
    return why;
  };

  it('is told from any other failure, and takes a full backup on the same connection', async () => {
    expect(await refusal(previous({ systemId: '123' }))).toContain('system identifier in backup manifest is 123');
    expect(await refusal(previous({ timeline: 2 }))).toBe('it is on timeline 1, the previous backup on 2');
    expect(await refusal(previous({ endLsn: full.endLsn + 0x1000_0000n }))).toContain('but this backup starts at');
    const before = await server.sql<{ n: number }>('select count(*)::int n from pg_available_wal_summaries()');
    expect(before[0]?.n).toBeGreaterThan(0);
    expect(await refusal(previous({ startLsn: 0x28n }))).toContain('its WAL summaries begin only at');
  });

  it('may have lost a summary in between', async () => {
    const first = await connection.baseBackup(backupOptions, discard);
    for (const i of [1, 2, 3]) {
      await server.sql(`create table lost${i} as select generate_series(1, 100) i`);
      await connection.baseBackup(backupOptions, discard);
    }
    const directory = join(server.dataDirectory, 'pg_wal/summaries');
    const names = readdirSync(directory).sort();
    rmSync(join(directory, names.at(-2) ?? ''));
    expect(await refusal(previous(first))).toContain('its WAL summaries have a gap at');
  });

  it('may have been told not to summarize, or run without the WAL that it takes', async () => {
    const before = await connection.baseBackup(backupOptions, discard);
    await server.sql('alter system set summarize_wal = off');
    await server.sql('select pg_reload_conf()');
    expect(await refusal(previous(before))).toBe('summarize_wal is off');
    await connection.close();
    for (const extra of [
      "wal_level = 'minimal'\nmax_wal_senders = 0\nsummarize_wal = off",
      "wal_level = 'replica'\nmax_wal_senders = 10\nsummarize_wal = on",
    ]) {
      writeFileSync(join(server.dataDirectory, 'postgresql.auto.conf'), `${extra}\n`);
      await server.restart();
      await server.sql('create table if not exists unseen as select generate_series(1, 1000) i');
    }
    connection = await connect(server);
    expect(await refusal(previous(before))).toMatch(
      /summaries (?:are required|begin only|have a gap)|WAL summarization/,
    );
  });

  it('is not asked where the role may not read the summaries', async () => {
    await server.sql('revoke execute on function pg_wal_summary_contents from public');
    expect(await refusal(previous())).toContain('the role may not execute');
    await server.sql('grant execute on function pg_wal_summary_contents to public');
  });

  it('is every one before 17', async () => {
    await using old = await startPostgres({ version: 16 });
    const oldConnection = await connect(old);
    expect(await refusal(previous(), oldConnection)).toContain('before PostgreSQL 17');
    await oldConnection.close();
  });

  it('is not one that is out of connections, stops, or breaks off: those failures stay what they are', async () => {
    const own = await connect(server);
    const before = await own.baseBackup(backupOptions, discard);
    const files = (async function* () {
      yield 'base/5/1259';
      await server.sql('select pg_terminate_backend(pid, 5000) from pg_stat_replication');
      for (let i = 1; i < 200_000; i++) yield `base/5/${i}`;
    })();
    const error: unknown = await own
      .baseBackup({ ...backupOptions, incremental: previous({ ...before, files }) }, discard)
      .catch((reason) => reason);
    expect(error).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(incrementalRefusal(error)).toBeUndefined();
    await own.close();
  });
});

describe('a manifest of our own', () => {
  it('is one that the server reads, whatever the names of the files', async () => {
    await using server = await startPostgres({ version: 17, settings });
    const files = new ManifestFiles();
    const odd = Buffer.concat([Buffer.from('base/5/'), Buffer.from([0xff, 0x22])]);
    for (let i = 0; i < 5000; i++)
      files.add({ path: Buffer.from(`base/5/${i}`), size: 8192 * i, mtimeMs: 1_795_000_000_000 + i });
    files.add({ path: odd, size: 1, mtimeMs: 0 });
    files.add({ path: Buffer.from('base/5/"quoted\\ name"'), size: 1 });
    const connection = await connect(server);
    const { systemId } = await connection.identify();
    await connection.close();
    const read = async (system: string) => {
      const own = await session(server.replicationUrl);
      try {
        await own.exclusive('upload', undefined, async () => {
          own.socket.write(encodeQuery('UPLOAD_MANIFEST'));
          await own.results();
          const facts = { systemId: system, timeline: 1, startLsn: 1n, endLsn: 2n };
          for await (const piece of manifestPieces(facts, files)) own.socket.write(encodeCopyData(piece));
          own.socket.write(encodedCopyDone);
          await own.results();
        });
      } finally {
        await own.close();
      }
    };
    await read(systemId);
    await expect(read('5')).rejects.toThrow('system identifier in backup manifest is 5');
    expect([...files].find(({ path }) => path.equals(odd))).toEqual({ path: odd, size: 1, mtimeMs: 0 });
    expect([...files]).toHaveLength(5002);
  });
});

const session = async (url: string) =>
  new Session(await openServer({ url, applicationName: 'test', connectTimeoutMs: 5000 }), silentLog);

describe('the manifest of the previous backup', () => {
  /** A server that takes the manifest's begin and then what `onCopy` does with the socket. */
  const copying = (onCopy: (socket: Socket) => void) =>
    listen((socket) => {
      socket.once('data', () => {
        socket.write(Buffer.concat([message('R', Buffer.alloc(4)), message('S', 'server_version\x0017.4\x00'), ready]));
        socket.once('data', () => {
          socket.write(message('G', Buffer.from([0, 0, 0])));
          onCopy(socket);
        });
      });
    });
  /** Names without end; says how many were taken and whether somebody ended it. */
  const endless = () => {
    const state = { taken: 0, ended: false };
    const files = (function* () {
      try {
        for (;;) yield `base/5/${++state.taken}`;
      } finally {
        state.ended = true;
      }
    })();
    return { state, files };
  };
  const place = { systemId: '1', timeline: 1, startLsn: 1n, endLsn: 2n };

  it('goes to the server only as fast as it takes it, and an interruption ends the wait', async () => {
    await using server = await copying((socket) => socket.pause());
    const { state, files } = endless();
    const own = await session(server.url);
    const running = uploadManifest(own, { ...place, files });
    const failed = expect(running).rejects.toMatchObject({ kind: 'interrupted' });
    for (let still = 0, before = -1; still < 300; before = state.taken) {
      await new Promise((resolve) => setImmediate(resolve));
      still = state.taken > 0 && state.taken === before ? still + 1 : 0;
    }
    // What the kernel and the stream hold: some MiB of 30 bytes each.
    expect(state.taken).toBeLessThan(1_000_000);
    own.socket.destroy(new DrError('interrupted', 'stopped'));
    await failed;
    expect(state.ended).toBe(true);
  });

  it('ends with the word of a server that refuses it in the middle', async () => {
    await using server = await copying((socket) => {
      socket.once('data', () => {
        const fields = ['SERROR', 'VERROR', 'CXX000', 'Mmanifest cannot be read', 'Rmanifest_report_error'];
        socket.write(Buffer.concat([message('E', `${fields.join('\x00')}\x00\x00`), ready]));
        socket.resume();
      });
    });
    const own = await session(server.url);
    const files = Array.from({ length: 50_000 }, (_, i) => `base/5/${i}`);
    await expect(uploadManifest(own, { ...place, files })).rejects.toThrow('manifest cannot be read');
    await own.close();
  });

  it('fails when the server goes away while it is sent', async () => {
    await using server = await copying((socket) => socket.once('data', () => socket.destroy()));
    const { files } = endless();
    await expect(uploadManifest(await session(server.url), { ...place, files })).rejects.toMatchObject({
      kind: 'unreachable',
    });
  });

  it('ends with the failure of whoever names the files', async () => {
    await using server = await copying((socket) => socket.resume());
    const own = await session(server.url);
    const files = (function* () {
      yield 'base/5/1';
      throw new Error('the cache cannot be read');
    })();
    await expect(uploadManifest(own, { ...place, files })).rejects.toThrow('the cache cannot be read');
    expect(own.socket.closed).toBe(true);
  });
});
