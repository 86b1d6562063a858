import { closeSync, existsSync, openSync, readFileSync, writeSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Log, silentLog } from '../../src/base/log.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { liveBufferBytes } from '../harness/memory.ts';
import { own, postgresMajors, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { backupOptions, connect, crc32c, discard, until, writeTo } from './receive.ts';

interface Manifest {
  readonly Files: ReadonlyArray<{
    Path?: string;
    'Encoded-Path'?: string;
    Size: number;
    Checksum: string;
    'Checksum-Algorithm': string;
  }>;
  readonly 'WAL-Ranges': ReadonlyArray<{ Timeline: number; 'Start-LSN': string; 'End-LSN': string }>;
}

describe.each(postgresMajors)('base backup of PostgreSQL %i', (version) => {
  it('brings every file as the manifest of the server describes it, tablespaces included', async () => {
    await using server = await startPostgres({ version });
    const space = await tempDir('space');
    own(space);
    await server.sql(`create tablespace fast location '${space}'`);
    await server.sql(`create table t tablespace fast as select i, md5(i::text) as x from generate_series(1, 20000) i`);
    const directory = join(await tempDir('backup'), 'data');
    const received = writeTo(directory);
    const connection = await connect(server);
    const before = await connection.identify();
    const result = await connection.baseBackup({ ...backupOptions, label: "it's mine" }, received.consumer);
    // The connection can go on after a backup.
    const after = await connection.identify();
    await connection.close();

    const manifest: Manifest = JSON.parse(received.manifestText());
    expect(manifest.Files.length).toBeGreaterThan(900);
    for (const file of manifest.Files) {
      const path = file.Path ?? Buffer.from(file['Encoded-Path'] ?? '', 'hex').toString();
      const bytes = readFileSync(join(directory, path));
      expect(bytes.length, path).toBe(file.Size);
      expect(file['Checksum-Algorithm']).toBe('CRC32C');
      expect(crc32c(bytes), path).toBe(file.Checksum);
    }
    const [range] = manifest['WAL-Ranges'];
    expect(result).toEqual({
      startLsn: parseLsn(range?.['Start-LSN'] ?? ''),
      endLsn: parseLsn(range?.['End-LSN'] ?? ''),
      timeline: 1,
    });
    expect(result.startLsn).toBeGreaterThanOrEqual(before.lsn);
    expect(result.endLsn).toBeLessThanOrEqual(after.lsn);

    const start = received.start();
    expect(start).toMatchObject({ startLsn: result.startLsn, timeline: 1, tablespaces: [{ location: space }] });
    const sum = received.entries.reduce((total, entry) => total + entry.size, 0);
    expect(Math.abs(start.totalBytes - sum) / sum).toBeLessThan(0.05);
    const oid = start.tablespaces[0]?.oid;
    expect(
      received.entries.some(
        ({ path, tablespaceOid }) => tablespaceOid === oid && path.startsWith(`pg_tblspc/${oid}/PG_${version}_`),
      ),
    ).toBe(true);
    // The links themselves are only in tablespace_map.
    expect(received.entries.some(({ path }) => path === `pg_tblspc/${oid}`)).toBe(false);
    expect(received.entries.at(-1)?.path).toBe('global/pg_control');
    expect(
      received.entries.some(({ path }) => path.startsWith('/') || path.startsWith('./') || path.endsWith('/')),
    ).toBe(false);
    expect(readFileSync(join(directory, 'backup_label'), 'utf8')).toContain("LABEL: it's mine");
    expect(readFileSync(join(directory, 'tablespace_map'), 'utf8')).toContain(space);
    expect(existsSync(join(directory, 'pg_wal/archive_status'))).toBe(true);
  });
});

describe('base backup', () => {
  let server: TestPostgres;
  beforeAll(async () => {
    server = await startPostgres({ version: 17, tls: true, password: 'only for tests' });
    await server.sql('create table big as select i, repeat(md5(i::text), 30) as x from generate_series(1, 150000) i');
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  const senderWaits = () =>
    server.sql<{ pid: number; wait_event: string }>(
      "select pid, wait_event from pg_stat_activity where backend_type = 'walsender'",
    );

  it.each(['disable', 'no-verify'])(
    'stops the server while the consumer is busy, in constant memory (sslmode=%s)',
    async (sslmode) => {
      const connection = await connect(server, { url: `${server.replicationUrl}?sslmode=${sslmode}` });
      const before = liveBufferBytes();
      let bytes = 0;
      let release = () => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const running = connection.baseBackup(backupOptions, {
        ...discard,
        data: (chunk) => {
          bytes += chunk.length;
          return bytes > 1_000_000 ? held : undefined;
        },
      });
      // The server waits for the network: nobody takes more from it.
      await until(
        async () =>
          (await senderWaits())[0]?.wait_event === 'WalSenderWriteData' ||
          (await senderWaits())[0]?.wait_event === 'ClientWrite',
      );
      const atStop = bytes;
      await expect.poll(() => liveBufferBytes() - before).toBeLessThan(8 * 1024 * 1024);
      const memory = process.memoryUsage();
      await until(async () => (await senderWaits()).length === 1);
      expect(bytes).toBe(atStop);
      expect(bytes).toBeLessThan(1_300_000);
      release();
      await running;
      expect(bytes).toBeGreaterThan(150_000_000);
      expect(process.memoryUsage().rss - memory.rss).toBeLessThan(100 * 1024 * 1024);
      await connection.close();
    },
  );

  it('gives views that stay as they are until the promise of the consumer resolves', async () => {
    const connection = await connect(server);
    let open = '';
    let content = Buffer.alloc(0);
    let control: Buffer | undefined;
    await connection.baseBackup(backupOptions, {
      ...discard,
      entry: (entry) => {
        open = entry.path;
        content = Buffer.alloc(0);
      },
      data: async (chunk) => {
        const before = Buffer.from(chunk);
        await new Promise((resolve) => setImmediate(resolve));
        expect(before.equals(chunk)).toBe(true);
        if (open === 'global/pg_control') content = Buffer.concat([content, chunk]);
      },
      endEntry: () => {
        if (open === 'global/pg_control') control = content;
      },
    });
    await connection.close();
    expect(control?.length).toBe(8192);
  });

  it('keeps to the rate limit that the server is given', async () => {
    const connection = await connect(server);
    let bytes = 0;
    const started = performance.now();
    const running = connection.baseBackup(
      { ...backupOptions, maxRateKiBs: 20_000 },
      {
        ...discard,
        data: (chunk) => {
          bytes += chunk.length;
          if (bytes > 12_000_000) throw new Error('enough');
        },
      },
    );
    await expect(running).rejects.toThrow('enough');
    expect(bytes / (performance.now() - started)).toBeLessThan(25_000);
    await connection.close();
  });

  it('ends with the failure of the consumer, and the server stops the backup', async () => {
    const connection = await connect(server);
    const failure = new Error('no space left on device');
    await expect(
      connection.baseBackup(backupOptions, { ...discard, entry: () => Promise.reject(failure) }),
    ).rejects.toBe(failure);
    await expect(connection.identify()).rejects.toMatchObject({ name: 'DrError' });
    await connection.close();
    await until(async () => (await senderWaits()).length === 0);
  });

  it('stops when the signal is given, even while nothing is received', async () => {
    const controller = new AbortController();
    const connection = await connect(server, { signal: controller.signal });
    const running = connection.baseBackup(backupOptions, { ...discard, begin: () => controller.abort() });
    await expect(running).rejects.toMatchObject({ kind: 'interrupted' });
    await connection.close();
  });

  it('says what happened when its session is terminated, and a retry can help', async () => {
    const connection = await connect(server);
    const running = connection.baseBackup(backupOptions, {
      ...discard,
      begin: async () => {
        await server.sql(
          "select pg_terminate_backend(pid, 5000) from pg_stat_activity where backend_type = 'walsender'",
        );
      },
    });
    await expect(running).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    await connection.close();
  });

  it('does not succeed when the server is killed', async () => {
    const connection = await connect(server);
    let seen = 0;
    const running = connection.baseBackup(backupOptions, {
      ...discard,
      entry: async () => {
        if (++seen === 5) await server.kill9();
      },
    });
    await expect(running).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    await connection.close();
    await server.start();
  });

  it('reports damaged pages, which the server names only after it has sent everything', async () => {
    const [table] = await server.sql<{ path: string }>(
      "create table broken as select generate_series(1, 5000) i; checkpoint; select pg_relation_filepath('broken') as path",
    );
    await server.stop();
    const file = openSync(join(server.dataDirectory, table?.path ?? ''), 'r+');
    writeSync(file, Buffer.from('damage'), 0, 6, 8192 + 4000);
    closeSync(file);
    await server.start();
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (_facts, sentence) => void warnings.push(sentence) };
    const connection = await connect(server, { log });
    let manifestSeen = false;
    const running = connection.baseBackup(backupOptions, {
      ...discard,
      manifest: () => {
        manifestSeen = true;
      },
    });
    await expect(running).rejects.toMatchObject({
      kind: 'corrupt',
      retryable: false,
      message: expect.stringContaining(table?.path ?? ''),
    });
    expect(manifestSeen).toBe(true);
    expect(warnings.join()).toContain(table?.path);
    // An error of the server, not of the conversation: the same connection goes on.
    await connection.identify();
    await connection.close();
    await server.sql('drop table broken');
  });

  it('takes no second command at the same time', async () => {
    const connection = await connect(server);
    const first = connection.identify();
    await expect(connection.show('port')).rejects.toMatchObject({ kind: 'internal' });
    await first;
    expect(await connection.show('port')).toBe(String(server.port));
    await connection.close();
  });

  it('refuses files that no tar header can name, with the words of the server', async () => {
    const path = join(server.dataDirectory, 'x'.repeat(120));
    await mkdir(path);
    own(path);
    const connection = await connect(server);
    await expect(connection.baseBackup(backupOptions, discard)).rejects.toMatchObject({
      name: 'DrError',
      message: expect.stringContaining('tar format'),
    });
    await connection.close();
  });
});
