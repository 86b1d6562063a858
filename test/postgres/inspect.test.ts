import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { doctorDatabase } from '../../src/postgres/doctor.ts';
import { inspectServer, type ServerFacts } from '../../src/postgres/inspect.ts';
import { queryRows } from '../../src/postgres/query.ts';
import { own, postgresMajors, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { connect, standbyOf, until } from './receive.ts';

const inspect = (url: string, slot?: string) => inspectServer(url, { log: silentLog, slot });
const bad = (facts: ServerFacts, slot = 'dr') =>
  doctorDatabase(facts, slot, { walEnabled: true, applicationName: 'dr' }).filter(({ ok }) => !ok);

describe.each(postgresMajors)('inspectServer on PostgreSQL %i', (version) => {
  it('tells what the server is, to a superuser and to a role that may only replicate', async () => {
    await using server = await startPostgres({ version, initdb: ['--wal-segsize=4'] });
    const space = await tempDir('space');
    own(space);
    await server.sql(`create tablespace fast location '${space}'`);
    await server.sql("select pg_create_physical_replication_slot('dr', true)");
    const connection = await connect(server);
    const identity = await connection.identify();
    await connection.close();
    const full = await inspect(server.url, 'dr');
    expect(full).toMatchObject({
      where: `postgresql://127.0.0.1:${server.port}/postgres`,
      systemId: identity.systemId,
      timeline: 1,
      inRecovery: false,
      walSegmentBytes: 4 * 1024 * 1024,
      blockBytes: 8192,
      dataChecksums: true,
      dataDirectory: server.dataDirectory,
      outsideFiles: [],
      tablespaces: [{ name: 'fast', location: space }],
      role: { name: 'postgres', replication: true, superuser: true },
      hbaReplication: 'present',
      slot: { name: 'dr', exists: true, type: 'physical', active: false, walStatus: 'reserved' },
    });
    expect(Math.floor(full.versionNumber / 10_000)).toBe(version);
    expect(full.lsn).toBeGreaterThanOrEqual(identity.lsn);
    expect(Math.abs(full.clockMs - Date.now())).toBeLessThan(60_000);
    expect(full.totalBytes).toBeGreaterThan(15_000_000);
    expect(full.settings).toMatchObject({ wal_level: 'replica', max_connections: '100', shared_preload_libraries: '' });

    const little = await inspect(server.replicationUrl, 'none');
    expect(little).toMatchObject({
      systemId: identity.systemId,
      dataDirectory: undefined,
      hbaReplication: 'unknown',
      role: { name: 'replicator', replication: true, superuser: false },
      slot: { name: 'none', exists: false, walStatus: undefined },
    });
    expect(little.settings.wal_level).toBe('replica');
  });
});

describe('doctorDatabase', () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres({ version: 17, settings: { max_slot_wal_keep_size: '1GB' } });
    await server.sql('create role plain login');
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  it('finds what is wrong, each with a way to mend it', async () => {
    const before = bad(await inspect(server.url, 'dr'));
    // The harness runs without fsync; the slot is not there yet: nothing else.
    expect(before.map(({ what }) => what)).toEqual([
      expect.stringContaining('fsync is off'),
      expect.stringContaining('does not exist yet'),
    ]);
    const plain = await inspect(server.url.replace('postgres@', 'plain@'), 'dr');
    expect(bad(plain).map(({ next }) => next)).toContain('ALTER ROLE "plain" REPLICATION;');

    const facts = await inspect(server.url, 'dr');
    const changed: ServerFacts = {
      ...facts,
      versionNumber: 140_009,
      inRecovery: true,
      dataChecksums: false,
      hbaReplication: 'absent',
      walSenders: 9,
      outsideFiles: ['/etc/postgresql/17/main/postgresql.conf'],
      settings: {
        ...facts.settings,
        wal_level: 'minimal',
        full_page_writes: 'off',
        max_slot_wal_keep_size: '-1',
        idle_replication_slot_timeout: '60',
        synchronous_standby_names: 'FIRST 1 (dr)',
        synchronous_commit: 'remote_apply',
      },
      slot: {
        name: 'dr',
        exists: true,
        type: 'physical',
        active: false,
        walStatus: 'lost',
        restartLsn: undefined,
        safeWalSize: undefined,
        retainedBytes: undefined,
      },
    };
    const findings = bad(changed);
    for (const word of [
      'too old',
      'standby',
      'no line for replication',
      'minimal',
      'WAL senders',
      'torn pages',
      'checksums are off',
      '/etc/postgresql',
      'is lost',
      'no limit',
      'idle_replication',
      'remote_apply',
    ]) {
      expect(
        findings.filter(({ what }) => what.includes(word)),
        word,
      ).toHaveLength(1);
    }
    expect(findings.every(({ next }) => next !== undefined)).toBe(true);
    expect(doctorDatabase(changed, 'dr', { walEnabled: false }).some(({ what }) => what.includes('slot'))).toBe(false);
  });

  it('says how a server of 17 could send only what changed, which is no fault', async () => {
    const facts = await inspect(server.url, 'dr');
    const summaries = (changed: Partial<ServerFacts>) =>
      doctorDatabase({ ...facts, ...changed }, 'dr').filter(({ what }) => what.includes('summarize_wal'));
    const hint = { ok: true, what: 'summarize_wal is off: backups read everything, and store what changed' };
    expect(summaries({})).toEqual([expect.objectContaining({ ...hint, next: expect.stringContaining('= on') })]);
    expect(summaries({ settings: { ...facts.settings, summarize_wal: 'on' } })).toEqual([
      expect.objectContaining({ ok: true, next: undefined }),
    ]);
    expect(summaries({ versionNumber: 160_009 })).toEqual([]);
  });

  it('sees a slot in use, and reports a standby with its own timeline', async () => {
    const data = join(await tempDir('standby'), 'data');
    await standbyOf(server, data);
    await using standby = await startPostgres({ version: 17, dataDirectory: data });
    await server.sql("select pg_create_physical_replication_slot('dr', true)");
    await standby.sql("alter system set primary_slot_name = 'dr'");
    await standby.sql('select pg_reload_conf()');
    const facts = await until(async () => {
      const now = await inspect(server.url, 'dr');
      return now.slot?.active ? now : undefined;
    });
    expect(facts.walSenders).toBe(1);
    expect(bad(facts).map(({ what }) => what)).toEqual([expect.stringContaining('fsync is off')]);
    const behind = await inspect(standby.url);
    expect(behind).toMatchObject({ inRecovery: true, timeline: 1, systemId: facts.systemId, slot: undefined });
    await standby.promote();
    expect(await inspect(standby.url)).toMatchObject({ inRecovery: false, timeline: 2 });
  });

  it('sees configuration files outside the data directory', async () => {
    await using other = await startPostgres({ version: 15 });
    const outside = await tempDir('etc');
    own(outside);
    await other.sql(`alter system set hba_file = '${outside}/pg_hba.conf'`);
    await other.stop();
    renameSync(join(other.dataDirectory, 'pg_hba.conf'), join(outside, 'pg_hba.conf'));
    await other.start();
    const facts = await inspect(other.url);
    expect(facts.outsideFiles).toEqual([join(outside, 'pg_hba.conf')]);
    expect(bad(facts).some(({ what }) => what.includes(join(outside, 'pg_hba.conf')))).toBe(true);
  });
});

describe('queryRows', () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  it('gives rows as arrays, of the last statement', async () => {
    expect(await queryRows(server.url, 'select 1, true, null')).toEqual([[1, true, null]]);
    expect(await queryRows(server.url, 'select 1; select i from generate_series(1, 3) i')).toEqual([[1], [2], [3]]);
    expect(await queryRows(server.url, 'create table q (i int)')).toEqual([]);
  });

  it('says what is wrong with a statement, and lets the caller choose the kind', async () => {
    await expect(queryRows(server.url, 'select count(*) from orders')).rejects.toMatchObject({
      kind: 'check-failed',
      message: expect.stringContaining('orders'),
    });
    await expect(queryRows(server.url, 'selec', { statementErrorKind: 'config' })).rejects.toMatchObject({
      kind: 'config',
    });
  });

  it('ends a statement that takes too long, on the server too, or when told to', async () => {
    const running = () =>
      server.sql("select from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'");
    await expect(queryRows(server.url, 'select pg_sleep(600)', { timeoutMs: 200 })).rejects.toMatchObject({
      kind: 'unreachable',
      message: expect.stringContaining('200 ms'),
    });
    expect(await running()).toEqual([]);
    const controller = new AbortController();
    const cut = queryRows(server.url, 'select pg_sleep(600)', { signal: controller.signal, timeoutMs: 2000 });
    cut.catch(() => {});
    await until(async () => (await running()).length === 1);
    controller.abort();
    await expect(cut).rejects.toMatchObject({ kind: 'interrupted' });
    await expect(queryRows(server.url, 'select 1', { signal: controller.signal })).rejects.toMatchObject({
      kind: 'interrupted',
    });
  });

  it('survives the end of the server in the middle of a statement', async () => {
    const cut = queryRows(server.url, 'select pg_sleep(600)');
    cut.catch(() => {});
    await until(
      async () =>
        (
          await server.sql(
            "select from pg_stat_activity where query like 'select pg_sleep(600)%' and state = 'active' and application_name = 'dr'",
          )
        ).length > 0,
    );
    await server.kill9();
    await expect(cut).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    await expect(queryRows(server.url, 'select 1')).rejects.toMatchObject({
      kind: 'unreachable',
      next: expect.stringContaining('Start the server'),
    });
  });
});
