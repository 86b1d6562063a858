import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serverUser } from '../harness/npm-postgres.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { startProcess, type TestProcess } from '../harness/process.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { bestPostgres, makeOperator, type Operator, passable, resultOf } from './world.ts';

const run = promisify(execFile);
const FLUSH_MS = 1000;
/** What the issue allows between a commit and its durability in every vault. */
const LOSS_LIMIT_MS = FLUSH_MS + 2000;
const password = 'pgbench-never-tells-1729';

/** Two independent S3 services, one for each region. */
interface Regions {
  readonly endpoints: { readonly east: string; readonly west: string };
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  stop(): Promise<void>;
}

/** Commits orders one after the other, and remembers when the server confirmed each. */
interface Writer {
  readonly confirmed: ReadonlyArray<{ readonly id: number; readonly atMs: number }>;
  /** Resolves once one is confirmed at this moment or later; rejects when the server refuses one before. */
  until(atMs: number): Promise<void>;
  /** From now on a lost connection is what the test wants. */
  expectEnd(): void;
  /** Resolves when the server is gone as expected. */
  readonly ended: Promise<void>;
}

function wholeRecovery(title: string, openRegions: () => Promise<Regions>, scale: number, skip: boolean): void {
  describe.skipIf(skip)(title, () => {
    const postgres = bestPostgres();
    const bucket = `dr-${randomBytes(6).toString('hex')}`;
    let regions: Regions;
    let source: TestPostgres;
    let operator: Operator;
    let daemon: TestProcess;
    let bench: TestProcess | undefined;
    let confirmed: Writer['confirmed'];
    let killedAtMs = 0;

    beforeAll(async () => {
      regions = await openRegions();
      const { endpoints, credentials } = regions;
      for (const endpoint of Object.values(endpoints)) await makeBucket(endpoint, bucket, credentials);
      source = await startPostgres({ version: postgres.version, bin: postgres.bin, password });
      await source.sql('create table orders (id int primary key, note text not null)');
      await source.sql('insert into orders select -i, repeat(md5(i::text), 8) from generate_series(1, 20000) i');
      if (postgres.has('pgbench')) await pgbench(['-i', '-q', '-s', String(scale)]);
      operator = await makeOperator({
        vaults: {
          east: { url: `s3://${bucket}/orders`, endpoint: endpoints.east },
          west: { url: `s3://${bucket}/orders`, endpoint: endpoints.west },
        },
        databaseUrl: source.url,
        bin: postgres.bin,
        flushEvery: '1s',
        env: {
          AWS_ACCESS_KEY_ID: credentials.accessKeyId,
          AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
          AWS_REGION: 'us-east-1',
        },
      });
      await writeFile(join(operator.uploads, 'photo.jpg'), randomBytes(3_000_000));
      await writeFile(join(operator.settings, 'orders.conf'), 'workers = 4\n');
    });
    afterAll(async () => {
      await bench?.kill9();
      await daemon?.kill9();
      await source?.stop('immediate');
      await regions?.stop();
    });

    async function pgbench(args: readonly string[]): Promise<void> {
      await run(join(postgres.bin, 'pgbench'), [...connection(), ...args, 'postgres'], { env: libpqEnv() });
    }
    const connection = () => ['-h', '127.0.0.1', '-p', String(source.port), '-U', 'postgres'];
    const libpqEnv = () => ({ PATH: process.env['PATH'], PGPASSWORD: password });

    test('the daemon takes the backups while the database is written to; then the region dies', async () => {
      daemon = operator.start(['daemon', '--log-level', 'info']);
      if (postgres.has('pgbench')) {
        const args = ['-c', '2', '-R', '50', '-T', '600', '-n'];
        bench = startProcess(join(postgres.bin, 'pgbench'), [...connection(), ...args, 'postgres'], {
          env: libpqEnv(),
        });
      }
      const writer = writeOrders(source.url);
      await untilBackedUp(operator, ['orders', 'uploads', 'settings']);
      // What is committed from here on exists in WAL alone.
      const atBackup = writer.confirmed.length;
      await writer.until(Date.now() + 2 * LOSS_LIMIT_MS);
      writer.expectEnd();
      killedAtMs = Date.now();
      await Promise.all([source.kill9(), daemon.kill9()]);
      await writer.ended;
      confirmed = writer.confirmed;
      expect(confirmed.length).toBeGreaterThan(atBackup + 20);
    });

    test.each(['east', 'west'] as const)('vault %s alone brings everything back', async (vault) => {
      const other = vault === 'east' ? 'west' : 'east';
      const env = {
        DR_CONFIG: await operator.variant((text) => text.replace(regions.endpoints[other], 'http://127.0.0.1:9')),
      };
      const target = join(await passable(join(operator.root, vault)), 'orders');
      const restored = resultOf<{ vault: string; checks: { ok: boolean }[] }>(
        await operator.dr(['restore', 'orders', '--to', target, '--start', '--vault', vault, '--json'], env),
      );
      expect(restored.vault).toBe(vault);
      expect(restored.checks.every(({ ok }) => ok)).toBe(true);
      for (const [name, from] of [
        ['uploads', operator.uploads],
        ['settings', operator.settings],
      ] as const) {
        const to = join(operator.root, `${vault}-${name}`);
        resultOf(await operator.dr(['restore', name, '--to', to, '--vault', vault, '--json'], env));
        await run('diff', ['-r', from, to]);
      }
      await run(join(postgres.bin, 'pg_checksums'), ['--check', '-D', target], { ...serverUser, cwd: '/' });
      await using back = await startPostgres({
        version: postgres.version,
        bin: postgres.bin,
        password,
        dataDirectory: target,
      });
      await checkOrders(back);
      await checkPgbench(back);
      if (postgres.has('pg_amcheck')) {
        const args = ['-h', '127.0.0.1', '-p', String(back.port), '-U', 'postgres'];
        await run(join(postgres.bin, 'pg_amcheck'), [...args, '--install-missing', '--heapallindexed', 'postgres'], {
          env: libpqEnv(),
        });
      }
    });

    /** Nothing that was confirmed is missing, but for the last moments; nothing is there twice or unasked for. */
    async function checkOrders(back: TestPostgres): Promise<void> {
      const rows = await back.sql<{ id: number }>('select id from orders where id > 0 order by id');
      const there = new Set(rows.map(({ id }) => id));
      expect((await back.sql('select count(*)::int as n from orders where id < 0'))[0]).toEqual({ n: 20000 });
      const lost = confirmed.filter(({ id }) => !there.has(id));
      const oldestMs = Math.max(0, ...lost.map(({ atMs }) => killedAtMs - atMs));
      expect(oldestMs, `${lost.length} of ${confirmed.length} confirmed orders are lost`).toBeLessThan(LOSS_LIMIT_MS);
      // Without a gap: what came back is a prefix of what was written, in the order of the commits.
      expect(rows.map(({ id }) => id)).toEqual(rows.map((_, place) => place + 1));
    }

    /** Every transaction of pgbench changes four tables by the same amount: halves of one would show. */
    async function checkPgbench(back: TestPostgres): Promise<void> {
      if (!postgres.has('pgbench')) return;
      const [sums] = await back.sql<Record<string, string>>(
        `select (select sum(abalance) from pgbench_accounts)::text a, (select sum(tbalance) from pgbench_tellers)::text t,
                (select sum(bbalance) from pgbench_branches)::text b, (select coalesce(sum(delta), 0) from pgbench_history)::text h,
                (select count(*) from pgbench_history)::text n`,
      );
      expect(sums).toMatchObject({ t: sums?.['a'], b: sums?.['a'], h: sums?.['a'] });
      expect(Number(sums?.['n'])).toBeGreaterThan(0);
    }

    test('the base backup is what the server said it is (pg_verifybackup)', async ({ skip }) => {
      skip(!postgres.has('pg_verifybackup'), 'needs pg_verifybackup of PostgreSQL 15');
      const target = join(await passable(join(operator.root, 'base')), 'orders');
      resultOf(await operator.dr(['restore', 'orders', '--to', target, '--vault', 'west', '--json']));
      expect(existsSync(join(target, 'backup_manifest'))).toBe(true);
      const { stdout } = await run(join(postgres.bin, 'pg_verifybackup'), [target]);
      expect(stdout).toContain('backup successfully verified');
    });

    test('no secret was said', async () => {
      const said = operator.said();
      expect(said).toContain('"msg"');
      expect(said).not.toContain(password);
      expect(said).not.toContain(operator.identity);
      expect(said).not.toContain(regions.credentials.secretAccessKey);
    });
  });
}

function writeOrders(url: string): Writer {
  const confirmed: Array<{ id: number; atMs: number }> = [];
  const waiting: Array<{ atMs: number; resolve: () => void }> = [];
  let expected = false;
  const ended = (async () => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    for (let id = 1; ; id++) {
      try {
        await client.query('insert into orders values ($1::int, repeat(md5($1::int::text), 20))', [id]);
      } catch (error) {
        if (expected) return;
        throw error;
      }
      confirmed.push({ id, atMs: Date.now() });
      for (const { atMs, resolve } of waiting) if (Date.now() >= atMs) resolve();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  ended.catch(() => {});
  return {
    confirmed,
    expectEnd: () => {
      expected = true;
    },
    ended,
    until: async (atMs) => {
      await Promise.race([new Promise<void>((resolve) => waiting.push({ atMs, resolve })), ended]);
    },
  };
}

async function untilBackedUp(operator: Operator, resources: readonly string[]): Promise<void> {
  for (;;) {
    const ended = await operator.dr(['backups', '--json']);
    const { backups } = resultOf<{ backups: { resource: string; vaults: string[] }[] }>(ended);
    const whole = new Set(backups.filter(({ vaults }) => vaults.length === 2).map(({ resource }) => resource));
    if (resources.every((resource) => whole.has(resource))) return;
  }
}

async function makeBucket(endpoint: string, Bucket: string, credentials: Regions['credentials']): Promise<void> {
  const client = new S3Client({ region: 'us-east-1', endpoint, forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket }));
  client.destroy();
}

wholeRecovery(
  'a region is lost, with two S3 servers of ours',
  async () => {
    const [east, west] = [await S3Server.start({ buckets: [] }), await S3Server.start({ buckets: [] })];
    return {
      endpoints: { east: east.endpoint, west: west.endpoint },
      credentials: { accessKeyId: east.accessKeyId, secretAccessKey: east.secretAccessKey },
      stop: async () => {
        await Promise.all([east.stop(), west.stop()]);
      },
    };
  },
  1,
  false,
);

const real = { east: process.env['DR_TEST_S3_ENDPOINT'], west: process.env['DR_TEST_S3_ENDPOINT_WEST'] };
wholeRecovery(
  'a region is lost, with real S3 services: needs real S3 (DR_TEST_S3_ENDPOINT and DR_TEST_S3_ENDPOINT_WEST, AWS_* credentials)',
  async () => ({
    endpoints: { east: real.east ?? '', west: real.west ?? '' },
    credentials: {
      accessKeyId: process.env['AWS_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: process.env['AWS_SECRET_ACCESS_KEY'] ?? '',
    },
    stop: async () => {},
  }),
  10,
  real.east === undefined || real.west === undefined,
);
