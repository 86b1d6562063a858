import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { type Access, accessesOf, isAllowed, type Policy } from './iam.ts';
import { bestPostgres, makeOperator, type Operator } from './world.ts';

const bucket = 'acme-dr';
const document = readFileSync(join(import.meta.dirname, '../../docs/security.md'), 'utf8');

/** The policies of the documentation, by the name before them. */
const policies = new Map(
  [...document.matchAll(/<!-- policy: (\S+) -->\n```json\n(.*?)\n```/gs)].map(
    ([, name = '', text = '']): [string, Policy] => [name, JSON.parse(text)],
  ),
);
const named = (...names: string[]) => names.flatMap((name) => policies.get(name) ?? []);

describe('the policies in docs/security.md', () => {
  test('are JSON, and every block of JSON is one of them', () => {
    expect([...policies.keys()]).toEqual(['writer', 'retention', 'reader', 'bucket', 'other-account', 'kms']);
    expect(document.match(/```json/g)).toHaveLength(policies.size);
    for (const { Version, Statement } of policies.values()) {
      expect(Version).toBe('2012-10-17');
      for (const { Effect } of Statement) expect(['Allow', 'Deny']).toContain(Effect);
    }
  });

  test('let a writer delete no backup and write over none; the other account lets in just the writer', () => {
    const may = (action: string, key: string, createOnly = true) =>
      isAllowed(named('writer', 'bucket'), { action, resource: `arn:aws:s3:::${bucket}/prod/${key}`, createOnly });
    for (const key of [
      'parts/a/b/000000',
      'manifests/a/b.json',
      'keys/a/000001.json',
      'wal/1/00000001/0000000100',
      'holds/a.json',
    ]) {
      expect(may('s3:DeleteObject', key), key).toBe(false);
      expect(may('s3:DeleteObjectVersion', key), key).toBe(false);
      expect(may('s3:PutObject', key), key).toBe(true);
    }
    expect(may('s3:PutObject', 'parts/a/b/000000', false)).toBe(false);
    expect(may('s3:PutObject', 'heartbeats/a.json', false)).toBe(true);
    expect(may('s3:BypassGovernanceRetention', 'parts/a/b/000000')).toBe(false);
    const plain = ({ Statement }: Policy) =>
      Statement.map(({ Effect, Action, Resource }) => ({ Effect, Action, Resource }));
    expect(named('other-account').map(plain)).toEqual(named('writer').map(plain));
  });
});

describe.each([
  ['with Object Lock', true],
  ['without', false],
])('dr under these policies, %s', (_, isLocked) => {
  const postgres = bestPostgres();
  let servers: S3Server[];
  let database: TestPostgres;
  let operator: Operator;
  let used: Access[];

  beforeAll(async () => {
    servers = [];
    for (let i = 0; i < 2; i++) {
      servers.push(await S3Server.start({ buckets: { [bucket]: isLocked ? { objectLock: true } : {} } }));
    }
    database = await startPostgres({ version: postgres.version, bin: postgres.bin });
    await database.sql('create table orders as select i from generate_series(1, 1000) i');
    const [east, west] = servers.map(({ endpoint }) => ({ url: `s3://${bucket}/prod`, endpoint }));
    if (!east || !west) throw new Error('no server');
    operator = await makeOperator({
      vaults: { east, west },
      databaseUrl: database.url,
      bin: postgres.bin,
      flushEvery: '1s',
      env: {
        AWS_ACCESS_KEY_ID: 'test-access-key',
        AWS_SECRET_ACCESS_KEY: 'test-secret-access-key',
        AWS_REGION: 'us-east-1',
      },
    });
    await writeFile(join(operator.uploads, 'photo.jpg'), 'a photo');
    await writeFile(join(operator.settings, 'orders.conf'), 'workers = 4\n');
    const text = (await readFile(operator.config, 'utf8')).replace('daemon: {', 'daemon: { applyRetention: false,');
    const locked = text.replaceAll(
      'forcePathStyle: true }',
      'forcePathStyle: true, objectLock: { mode: governance } }',
    );
    await writeFile(operator.config, isLocked ? locked : text);
  });
  afterAll(async () => {
    await database?.stop('immediate');
    await Promise.all((servers ?? []).map((server) => server.stop()));
  });
  beforeEach(() => {
    used = [];
  });

  /** From now on the stores grant what these policies say. */
  function under(...names: string[]): void {
    for (const server of servers) {
      server.refused.length = 0;
      server.authorize = (request) => {
        const accesses = accessesOf(request);
        used.push(...accesses);
        return accesses.every((access) => isAllowed(named(...names), access));
      };
    }
  }

  async function succeeds(...args: string[]): Promise<void> {
    const ended = await operator.dr(args);
    expect({ args, code: ended.code, stderr: ended.stderr, refused: refused() }).toMatchObject({
      args,
      code: 0,
      refused: [],
    });
  }

  /**
   * What dr was refused. That it may not bypass locks is what doctor and enrolment try; what a backup of unchanged content has stored stays
   * behind, as the documentation says.
   */
  const refused = () =>
    servers.flatMap((server) =>
      server.refused
        .filter(({ headers }) => headers['x-amz-bypass-governance-retention'] === undefined)
        .filter(({ deleted = [] }) => !deleted.some(({ key }) => /\/indexes\/settings\//.test(key)))
        .map(
          ({ operation, key, deleted }) => `${operation} ${key}${deleted?.map((object) => object.key).join() ?? ''}`,
        ),
    );

  /** Every action of a policy was needed by what was done. */
  function expectNothingSuperfluous(policy: string, except: readonly string[]): void {
    const allowed = new Set(
      named(policy).flatMap(({ Statement }) => Statement.flatMap(({ Action }) => [Action].flat())),
    );
    for (const { action } of used) allowed.delete(action);
    for (const action of except) allowed.delete(action);
    expect([...allowed], `superfluous in ${policy}`).toEqual([]);
  }

  /** Waits until every store was asked for it, after so many requests. */
  async function wasAsked(what: RegExp, after: readonly number[]): Promise<void> {
    const isIn = (server: S3Server, i: number) =>
      server.requests
        .slice(after[i])
        .some(({ operation, key, deleted }) => what.test(`${operation} ${key}${deleted?.[0]?.key ?? ''}`));
    while (!servers.every(isIn)) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  test('the writer: backups, and a daemon that streams WAL', async () => {
    under('writer', 'bucket');
    await succeeds('doctor').catch(() => {});
    await succeeds('backup');
    await writeFile(join(operator.uploads, 'photo.jpg'), 'another photo');
    await succeeds('backup', 'uploads');
    const before = servers.map(({ requests }) => requests.length);
    const daemon = operator.start(['daemon', '--log-level', 'info']);
    try {
      await daemon.waitFor(/WAL archive opened/);
      // A piece, then the segment that replaces it.
      await database.sql('insert into orders select 1');
      await wasAsked(/^PutObject .*\/wal\/.*\.\w{8}-\w{8}$/, before);
      await database.sql('select pg_switch_wal()');
      await wasAsked(/^PutObject .*\/wal\/\d+\/\w{8}\/\w{24}$/, before);
      await wasAsked(/^DeleteObjects .*\/wal\/.*\.\w{8}-\w{8}$/, before);
    } finally {
      expect((await daemon.stop()).code).toBe(0);
    }
    expect(refused()).toEqual([]);
    // Locks are made longer only after days, and read with HeadObject.
    const later = [
      's3:GetObjectRetention',
      ...(isLocked
        ? ['s3:DeleteObject']
        : [
            's3:DeleteObjectVersion',
            's3:PutObjectRetention',
            's3:ListBucketVersions',
            's3:GetBucketObjectLockConfiguration',
          ]),
    ];
    expectNothingSuperfluous('writer', later);
  });

  test('retention and repair', async () => {
    under('writer', 'retention', 'bucket');
    await succeeds('retention', '--apply');
    await succeeds('vault', 'check');
    await succeeds('vault', 'repair');
    await succeeds('keys', 'rotate');
  });

  test('a person who restores', async () => {
    under('reader');
    await succeeds('backups');
    await succeeds('restore', 'uploads', '--to', join(operator.root, 'restored'));
    expect(readFileSync(join(operator.root, 'restored', 'photo.jpg'), 'utf8')).toBe('another photo');
    await succeeds('keys', 'list');
    await succeeds('retention');
    await operator.dr(['status']);
    expect(refused()).toEqual([]);
    expectNothingSuperfluous('reader', []);
  });
});
