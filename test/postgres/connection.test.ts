import { once } from 'node:events';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DrError, type ErrorKind } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { connectReplication, parseVersion } from '../../src/postgres/connection.ts';
import { sqlstateOf } from '../../src/postgres/server-errors.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { connect, discard } from './receive.ts';
import { type Listener, listen, ready, scriptedServer } from './scripted-server.ts';

const password = 'p@ss/word:100%';

/** The failure of connecting to a URL. */
async function failure(
  url: string,
  options: { signal?: AbortSignal; connectTimeoutMs?: number } = {},
): Promise<DrError> {
  const error: unknown = await connectReplication({ url, applicationName: 'dr-test', log: silentLog, ...options }).then(
    () => new Error('connected'),
    (reason: unknown) => reason,
  );
  if (!(error instanceof DrError)) throw error;
  return error;
}

describe('connectReplication', () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres({
      version: 17,
      password,
      tls: true,
      settings: { max_wal_senders: 2 },
      hba: [
        'local all all trust',
        'local replication all trust',
        'host all all 127.0.0.1/32 scram-sha-256',
        'host replication replicator 127.0.0.1/32 scram-sha-256',
        'host replication plain 127.0.0.1/32 scram-sha-256',
      ],
    });
    await server.sql(`create role plain login password '${password}'`);
    await server.sql(`create role stranger login replication password '${password}'`);
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  const urlOf = (user: string, word = password) =>
    `postgresql://${user}:${encodeURIComponent(word)}@127.0.0.1:${server.port}/postgres`;

  it('connects over TCP, TLS and a socket, and says where without the password', async () => {
    const socketUrl = `postgresql://replicator@/postgres?host=${encodeURIComponent(server.socketDirectory)}&port=${server.port}`;
    const short = `postgresql:///postgres?host=${server.socketDirectory}&port=${server.port}&user=replicator`;
    const ca = join(import.meta.dirname, '../harness/tls/server.crt');
    for (const url of [
      server.replicationUrl,
      `${server.replicationUrl}?sslmode=no-verify`,
      `${server.replicationUrl}?sslmode=verify-full&sslrootcert=${ca}`,
      socketUrl,
      short,
    ]) {
      const connection = await connect(server, { url });
      expect(connection.versionNumber).toBeGreaterThanOrEqual(170_000);
      expect(connection.where).not.toContain(encodeURIComponent(password));
      expect(await connection.show('max_wal_senders')).toBe('2');
      const [encrypted] = await server.sql<{ ssl: boolean }>(
        'select ssl from pg_stat_ssl join pg_stat_replication using (pid)',
      );
      expect(encrypted?.ssl).toBe(url.includes('sslmode'));
      await connection.close();
    }
  });

  it('identifies the server and refuses another system', async () => {
    const connection = await connect(server);
    const identity = await connection.identify();
    const [row] = await server.sql<{ id: string }>('select system_identifier::text as id from pg_control_system()');
    expect(identity).toMatchObject({ systemId: row?.id, timeline: 1 });
    await connection.identify(identity.systemId);
    await expect(connection.identify('7000000000000000001')).rejects.toMatchObject({
      kind: 'refused',
      retryable: false,
      message: expect.stringContaining('7000000000000000001'),
      next: expect.stringContaining('new base backup'),
    });
    await connection.close();
  });

  it('goes on after a refused command', async () => {
    const connection = await connect(server);
    await expect(connection.show('no_such_setting')).rejects.toMatchObject({ name: 'DrError' });
    await expect(connection.show('x; drop')).rejects.toMatchObject({ kind: 'internal' });
    await expect(connection.createPhysicalSlot('Wrong Name')).rejects.toMatchObject({ kind: 'config' });
    await expect(connection.timelineHistory(1)).rejects.toMatchObject({ name: 'DrError' });
    expect((await connection.identify()).timeline).toBe(1);
    await connection.close();
  });

  it('does not take a logical slot for its own, and says when no slot is free', async () => {
    const connection = await connect(server);
    await server.sql('alter system set wal_level = logical');
    await connection.close();
    await server.restart();
    await server.sql("select pg_create_logical_replication_slot('taken', 'pgoutput')");
    const again = await connect(server);
    await expect(again.createPhysicalSlot('taken')).rejects.toMatchObject({
      kind: 'config',
      next: expect.stringContaining('logical'),
    });
    await server.sql("select pg_create_physical_replication_slot('s' || i) from generate_series(1, 9) i");
    await expect(again.createPhysicalSlot('one_more')).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('max_replication_slots'),
    });
    await server.sql('select pg_drop_replication_slot(slot_name) from pg_replication_slots');
    await again.close();
  });

  type Refusal = readonly [
    name: string,
    url: () => string,
    kind: ErrorKind,
    sqlstate: string | undefined,
    next: string,
  ];
  const refusals: readonly Refusal[] = [
    ['a wrong password', () => urlOf('replicator', 'wrong'), 'denied', '28P01', 'ALTER ROLE replicator PASSWORD'],
    ['no password', () => server.replicationUrl.replace(/:[^:@]*@/, '@'), 'denied', undefined, 'PGPASSWORD'],
    ['an unknown role', () => urlOf('nobody'), 'denied', '28000', 'pg_hba.conf'],
    ['a role without REPLICATION', () => urlOf('plain'), 'denied', '42501', 'ALTER ROLE plain REPLICATION'],
    ['no line in pg_hba.conf', () => urlOf('stranger'), 'denied', '28000', 'host replication stranger'],
    [
      'an untrusted certificate',
      () => `${server.replicationUrl}?sslmode=verify-full`,
      'denied',
      undefined,
      'sslrootcert',
    ],
    [
      'no directory of sockets',
      () => 'postgresql:///x?host=/nowhere/at-all',
      'unreachable',
      undefined,
      'unix_socket_directories',
    ],
    ['an unknown host', () => 'postgresql://u:p@no-such-host.invalid/x', 'unreachable', undefined, 'host name'],
    ['a password that is not encoded', () => `postgresql://u:${password}@h/x`, 'config', undefined, 'percent-encoded'],
    [
      'a password with a question mark',
      () => 'postgresql://u:12?p@ss/word:100%@h/x',
      'config',
      undefined,
      'percent-encoded',
    ],
    [
      'an impossible port',
      () => `postgresql://u:${encodeURIComponent(password)}@h:99999999/x`,
      'config',
      undefined,
      'percent-encoded',
    ],
  ];
  it.each(refusals)('says what to do about %s', async (_name, url, kind, sqlstate, next) => {
    const error = await failure(url());
    expect(error).toMatchObject({ kind, next: expect.stringContaining(next) });
    expect(sqlstateOf(error)).toBe(sqlstate);
    for (const text of [error.message, error.where, error.next, String(error.cause)]) {
      expect(text ?? '').not.toContain(password);
      expect(text ?? '').not.toContain(encodeURIComponent(password));
    }
  });

  it('says what to do when all WAL senders are in use, and that it may pass', async () => {
    const held = [await connect(server), await connect(server)];
    const error = await failure(server.replicationUrl);
    expect(error).toMatchObject({
      kind: 'unreachable',
      retryable: true,
      next: expect.stringContaining('Raise max_wal_senders'),
    });
    for (const connection of held) await connection.close();
  });

  it('says what to do when replication is switched off, TLS is missing or the server still starts', async () => {
    await using minimal: TestPostgres = await startPostgres({
      version: 16,
      settings: { wal_level: 'minimal', max_wal_senders: 0 },
    });
    expect(await failure(minimal.replicationUrl)).toMatchObject({
      kind: 'config',
      retryable: false,
      next: expect.stringContaining('wal_level'),
    });
    expect(await failure(`${minimal.replicationUrl}?sslmode=verify-full`)).toMatchObject({
      kind: 'config',
      next: expect.stringContaining('ssl = on'),
    });
    await minimal.stop();
    expect(await failure(minimal.replicationUrl)).toMatchObject({
      kind: 'unreachable',
      retryable: true,
      next: expect.stringContaining('Start the server'),
    });
  });

  it('gives up a server that does not answer, and stops when told to', async () => {
    await using silent: Listener = await listen(() => {});
    expect(await failure(silent.url, { connectTimeoutMs: 200 })).toMatchObject({
      kind: 'unreachable',
      next: expect.stringContaining('firewall'),
    });
    const controller = new AbortController();
    const pending = failure(silent.url, { signal: controller.signal });
    await once(silent.server, 'connection');
    controller.abort();
    expect(await pending).toMatchObject({ kind: 'interrupted' });
    expect(await failure(silent.url, { signal: AbortSignal.abort() })).toMatchObject({ kind: 'interrupted' });
  });

  it.each([
    ['closes at once', (socket: Socket) => socket.destroy()],
    ['talks HTTP', (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ])('does not hang on something that %s', async (_name, onSocket) => {
    await using other: Listener = await listen(onSocket);
    const error = await failure(other.url, { connectTimeoutMs: 1000 });
    expect(error.kind).toMatch(/unreachable|corrupt|internal/);
    expect(error.message).not.toContain('secret-word');
  });

  it('refuses servers older than 15', async () => {
    await using old: Listener = await scriptedServer('14.9', ready);
    expect(await failure(old.url)).toMatchObject({ kind: 'config', message: expect.stringContaining('14.9') });
  });

  it('notices a server that was killed while nothing was under way, and can always be closed', async () => {
    const connection = await connect(server);
    await server.kill9();
    await expect(connection.identify()).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    await expect(
      connection.baseBackup({ label: 'x', fastCheckpoint: true, manifest: true }, discard),
    ).rejects.toMatchObject({ kind: 'unreachable' });
    await connection.close();
    await connection.close();
    await server.start();
  });
});

describe('parseVersion', () => {
  it('reads releases, betas and packaged versions', () => {
    expect(['17.4', '15.18 (Debian 15.18-0+deb12u1)', '18beta2', '19devel', ''].map(parseVersion)).toEqual([
      170_004, 150_018, 180_000, 190_000, 0,
    ]);
  });
});
