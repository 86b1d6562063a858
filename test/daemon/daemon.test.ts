import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readActiveSite, recordActiveSite } from '../../src/backup/active-site.ts';
import { listBackupIds, newestBackup } from '../../src/backup/catalog.ts';
import { readOwnConfiguration } from '../../src/backup/own-configuration.ts';
import { newestVerifications } from '../../src/backup/verified.ts';
import { silentLog } from '../../src/base/log.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { copyToWest, type DaemonTestWorld, daemonWorld, haveSucceeded, jobOf } from './world.ts';

const all = ['backup orders', 'backup uploads', 'backup settings'];

let server: TestPostgres;
let west: TestPostgres;
beforeAll(async () => {
  [server, west] = await Promise.all([startPostgres(), startPostgres()]);
  await server.sql('create table orders(id bigserial primary key, note text)');
});
afterAll(async () => {
  await Promise.all([server.stop('immediate'), west.stop('immediate')]);
});

const ids = async (world: DaemonTestWorld, resource: string) => ({
  east: await listBackupIds(world.vaults.east, resource),
  west: await listBackupIds(world.vaults.west, resource),
});

test('a first start: enrols, records the active site, backs up everything into both vaults, and is ready; SIGTERM ends it with 0', async () => {
  const world = await daemonWorld(server);
  await using daemon = await world.start();
  await daemon.until('all backups taken', (state) => haveSucceeded(state, ...all, 'retention', 'own configuration'));
  const kept = await readOwnConfiguration(world.vaults.west, new KeyRing([world.identity]));
  expect(kept).toMatchObject({ site: 'east', source: world.config, text: readFileSync(world.config, 'utf8') });
  expect(kept.runbooks.map(({ name }) => name)).toContain('failover.yaml');
  for (const resource of ['orders', 'uploads', 'settings']) {
    const { east, west } = await ids(world, resource);
    expect(east).toHaveLength(1);
    expect(west).toEqual(east);
  }
  expect((await readActiveSite([world.vaults.west])).active).toMatchObject({ site: 'east', generation: 1 });
  for (const path of ['/health', '/startup', '/ready']) expect((await daemon.get(path)).status, path).toBe(200);

  await server.sql("insert into orders(note) values ('the last one')");
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  const metrics = async () => (await daemon.get('/metrics')).text;
  const value = async (name: string) =>
    Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(await metrics())?.[1]);
  await expect.poll(() => value('dr_recovery_point_age_seconds'), { timeout: 20_000 }).toBeLessThan(10);
  expect(await metrics()).toMatch(/^dr_role\{role="active"\} 1$/m);
  expect(await metrics()).toMatch(/^dr_wal_slot_status\{resource="orders",slot="dr_orders",status="reserved"\} 1$/m);
  expect(await metrics()).toMatch(/^dr_vault_up\{vault="west"\} 1$/m);
  expect(await metrics()).toMatch(/^dr_cross_region\{resource="orders"\} 1$/m);
  expect(await value('dr_retention_last_success_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000 - 60);

  const ended = await daemon.process.stop('SIGTERM');
  expect(ended.code).toBe(0);
  // What was received is acknowledged before the end.
  const [slot] = await server.sql<{ done: boolean }>(
    `select restart_lsn >= '${row?.lsn}' as done from pg_replication_slots where slot_name = 'dr_orders'`,
  );
  expect(slot?.done).toBe(true);
  expect(ended.stderr).not.toContain('"level":50,"time":"","error"');
  expect(ended.stderr).not.toContain(world.identity);
});

test('a changed configuration directory is backed up once it rests; the same content again is not; SIGHUP keeps to a valid file', async () => {
  const world = await daemonWorld(server);
  await using daemon = await world.start();
  await daemon.until('all backups taken', (state) => haveSucceeded(state, ...all));
  const before = await daemon.until('settings rest', (state) => jobOf(state, 'backup settings')?.working === false);
  writeFileSync(join(world.settings, 'app.conf'), 'colour = green\n');
  await expect.poll(async () => (await ids(world, 'settings')).west.length, { timeout: 20_000 }).toBe(2);
  const runs = jobOf(before, 'backup settings')?.runs ?? 0;
  await daemon.until('the change was taken', (state) => (jobOf(state, 'backup settings')?.runs ?? 0) > runs);

  world.configure((text) => text.replace('retention: 30 days', 'retension: 30 days'));
  daemon.process.child.kill('SIGHUP');
  await daemon.process.waitFor(/"msg":"the new configuration cannot be used[^"]*"/);
  expect((await daemon.get('/ready')).status).toBe(200);

  world.configure((text) => text.replace('verification: { schedule: never }', 'verification: { schedule: daily }'));
  daemon.process.child.kill('SIGHUP');
  await daemon.process.waitFor(/"msg":"this site cannot verify backups[^"]*"/);
  await daemon.until('settings are looked at again', (state) => haveSucceeded(state, 'backup settings'));
  // The new start looks at the directory and finds what the newest backup has.
  expect((await ids(world, 'settings')).west).toHaveLength(2);
  expect((await daemon.process.stop('SIGINT')).code).toBe(0);
});

test('a failover recorded while both daemons run: the old site stops at once and touches nothing, the new one protects its own system', async () => {
  const world = await daemonWorld(server, west);
  await west.sql('create table if not exists orders(id bigserial primary key, note text)');
  await using east = await world.startBrisk('east');
  await east.until('all backups taken', (state) => haveSucceeded(state, ...all));
  await using standby = await world.startBrisk('west');
  const waiting = await standby.until('the west stands by', (state) => state.role?.role === 'standby');
  expect(waiting.wal).toEqual([]);
  expect((await standby.get('/ready')).status).toBe(200);

  for (const name of ['uploads', 'settings'] as const) copyToWest(world, name);
  const stores = [world.vaults.east, world.vaults.west];
  await recordActiveSite(
    stores,
    { site: 'west', since: new Date().toISOString(), by: 'a test', runId: 'r1' },
    silentLog,
  );
  const demoted = await east.until(
    'the east stands by',
    ({ role, wal }) => role?.role === 'standby' && wal?.length === 0,
  );
  expect(demoted.services?.map(({ name }) => name)).toEqual(['vaults', 'role', 'scheduler', 'status']);
  await standby.until('the west is backed up', (state) => haveSucceeded(state, ...all));
  const newest = await newestBackup(world.vaults.east, 'orders');
  const [system] = await west.sql<{ id: string }>('select system_identifier::text as id from pg_control_system()');
  expect(newest).toMatchObject({ site: 'west', database: { systemId: system?.id } });
  expect((await newestBackup(world.vaults.west, 'uploads'))?.source).toBe(join(world.directory, 'west/uploads'));

  // The old site comes back after the failover: it knows at once.
  await east.process.stop('SIGTERM');
  const taken = await ids(world, 'uploads');
  await using returning = await world.startBrisk('east');
  const back = await returning.until(
    'the east knows',
    (state) => state.role !== undefined && state.role.role !== 'unknown',
  );
  expect(back).toMatchObject({ role: { role: 'standby', active: { site: 'west', generation: 2 } }, wal: [] });
  expect(back.jobs?.filter(({ name }) => name.startsWith('backup')).every(({ runs }) => runs === 0)).toBe(true);
  expect(await ids(world, 'uploads')).toEqual(taken);
});

test('the site that stands by restores, starts and checks the newest recovery points, and keeps the proof in the vaults', async () => {
  const world = await daemonWorld(server);
  const file = join(world.directory, 'identity');
  writeFileSync(file, `${world.identity}\n`, { mode: 0o600 });
  world.configure((text) =>
    text.replace(
      'verification: { schedule: never }',
      `verification: { schedule: daily, checks: { orders: ["select count(*) >= 0 from orders"] } }
postgresql: { binaries: ["${server.bin}"] }`,
    ),
  );
  await using east = await world.start('east');
  await east.until('all backups taken', (state) => haveSucceeded(state, ...all));
  await using west = await world.start('west', { DR_IDENTITY_FILE: file });
  await west.until('everything is verified', (state) =>
    haveSucceeded(state, 'verify orders', 'verify uploads', 'verify settings'),
  );
  const { verifications } = await newestVerifications([world.vaults.east], 'orders', 1);
  expect(verifications[0]).toMatchObject({ ok: true, vault: 'west', site: 'west' });
  const metrics = async () => (await west.get('/metrics')).text;
  await expect.poll(metrics, { timeout: 20_000 }).toMatch(/^dr_verification_ok\{resource="orders"\} 1$/m);
  expect(await metrics()).toMatch(/^dr_restore_seconds\{resource="orders"\} [\d.]+$/m);
});

test('a vault that was away is given what it missed; one that meets no vault lives, is not ready, and can be stopped', async () => {
  const world = await daemonWorld(server);
  const path = (name: string) => join(world.directory, name);
  {
    await using daemon = await world.startBrisk();
    await daemon.until('all backups taken', (state) => haveSucceeded(state, ...all));
    renameSync(path('vault-west'), path('gone'));
    writeFileSync(join(world.settings, 'app.conf'), 'colour = red\n');
    await expect
      .poll(async () => (await listBackupIds(world.vaults.east, 'settings')).length, { timeout: 20_000 })
      .toBe(2);
    expect((await daemon.get('/ready')).status).toBe(200);
    renameSync(path('gone'), path('vault-west'));
    await daemon.until('the vault is repaired', (state) => haveSucceeded(state, 'repair west'));
    const { east, west } = await ids(world, 'settings');
    expect(west).toEqual(east);
    await daemon.process.stop('SIGTERM');
  }
  world.configure((text) =>
    text.replaceAll(
      /url: "file:[^"]*vault-(\w+)"/g,
      'url: "s3://$1", endpoint: "http://127.0.0.1:1", forcePathStyle: true, credentials: { accessKeyId: a, secretAccessKey: b }',
    ),
  );
  await using daemon = await world.startBrisk();
  const ready = await daemon.get('/ready');
  expect([ready.status, JSON.parse(ready.text)]).toMatchObject([503, { ready: false, role: 'unknown' }]);
  expect((await daemon.get('/health')).status).toBe(200);
  expect((await daemon.process.stop('SIGTERM')).code).toBe(0);
});
