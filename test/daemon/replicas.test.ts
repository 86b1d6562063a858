import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { listBackups } from '../../src/backup/catalog.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { isJson } from '../../src/cluster/json.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type DaemonTestWorld, daemonWorld, haveSucceeded, jobOf, type RunningDaemon } from './world.ts';

/** The shortest Lease that the configuration takes. */
const DURATION_MS = 3000;

let postgres: TestPostgres;
let world: DaemonTestWorld;
/** Each replica reaches the same cluster by an address of its own, so that one can be cut off. */
let api: { a: KubernetesServer; b: KubernetesServer };
const daemons: RunningDaemon[] = [];

beforeAll(async () => {
  postgres = await startPostgres();
  await postgres.sql('create table orders(id bigserial primary key, note text)');
});
afterAll(async () => await postgres.stop('immediate'));

beforeEach(async () => {
  await postgres.sql('select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active');
  world = await daemonWorld(postgres);
  const a = await KubernetesServer.start();
  const b = await KubernetesServer.start({ objects: a.objects });
  api = { a, b };
  a.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  for (const [name, server] of Object.entries(api))
    writeFileSync(join(world.directory, `kube-${name}`), server.kubeconfig());
  world.configure((text) =>
    text
      .replace(
        'east: { region: r-east, vault: east }',
        'east: { region: r-east, vault: east, cluster: { kubeconfig: "${KUBE}" } }',
      )
      .replace('schedule: every 1 minute', 'schedule: every 6 hours')
      .replace('daemon: {', 'daemon: { leader: { namespace: dr, duration: 3s },'),
  );
});
afterEach(async () => {
  for (const daemon of daemons.splice(0)) {
    daemon.process.child.kill('SIGCONT');
    await daemon[Symbol.asyncDispose]();
  }
  await api.a[Symbol.asyncDispose]();
  await api.b[Symbol.asyncDispose]();
});

async function replica(name: 'a' | 'b'): Promise<RunningDaemon> {
  const daemon = await world.startBrisk('east', {
    KUBE: join(world.directory, `kube-${name}`),
    DR_POD_NAME: `dr-${name}`,
    DR_POD_NAMESPACE: 'dr',
  });
  daemons.push(daemon);
  return daemon;
}

/** A leads and has done its first work; B stands by. */
async function two(): Promise<{ a: RunningDaemon; b: RunningDaemon }> {
  const a = await replica('a');
  await a.until('a leads', ({ leader }) => leader?.role === 'leader');
  const b = await replica('b');
  await b.until('b stands by', ({ leader, role }) => leader?.role === 'standby' && role?.role === 'active');
  await a.until(
    'first backups and WAL',
    (state) => haveSucceeded(state, 'backup orders', 'backup uploads', 'backup settings') && isStreaming(state),
  );
  return { a, b };
}

const isStreaming = ({ wal }: { readonly wal?: ReadonlyArray<{ readonly status?: { readonly state: string } }> }) =>
  wal?.[0]?.status?.state === 'streaming';

async function backupsOf(resource: string): Promise<number> {
  return (await listBackups(world.vaults.east, resource)).length;
}

/** Resolves when what is committed now is in the vault. */
async function untilArchived(): Promise<void> {
  const [row] = await postgres.sql<{ lsn: string; system: string }>(
    "insert into orders(note) values ('x'); select pg_current_wal_flush_lsn()::text as lsn, (select system_identifier::text from pg_control_system()) as system",
  );
  const wanted = parseLsn(row?.lsn ?? '') ?? 0n;
  await expect
    .poll(
      async () => {
        const { timelines } = await walCoverage(world.vaults.west, row?.system ?? '');
        return timelines.flatMap(({ ranges }) => ranges).some(({ end }) => end >= wanted);
      },
      { timeout: 20_000, interval: 100 },
    )
    .toBe(true);
}

function lease(): { holder: string; generation: number } {
  const found = api.a.objects.all().find(({ kind }) => kind === 'Lease');
  const spec = isJson(found?.['spec']) ? found['spec'] : {};
  return { holder: String(spec['holderIdentity']), generation: Number(spec['leaseTransitions']) };
}

test('of two replicas one leads, the other is ready and serves metrics; the leader killed with -9, the other takes over within the lease, and nothing is done twice', async () => {
  const { a, b } = await two();
  expect(lease()).toMatchObject({ holder: expect.stringMatching(/^dr-a_/), generation: 1 });
  const ready = await b.get('/ready');
  expect(ready.status, ready.text).toBe(200);
  expect(ready.text).toContain('stands by; dr-a_');
  expect((await b.get('/metrics')).text).toMatch(/^dr_leader 0$/m);
  expect((await a.get('/metrics')).text).toMatch(/^dr_leader 1$/m);
  await untilArchived();

  const killedMs = performance.now();
  await a.process.kill9();
  await b.until('b leads', ({ leader }) => leader?.role === 'leader');
  // The lease, one pause between two questions, and what this machine needs.
  expect(performance.now() - killedMs).toBeLessThan(DURATION_MS + 5000);
  const state = await b.until('b archives', isStreaming);
  expect(state.leader).toMatchObject({ generation: 2 });
  await untilArchived();

  // What the first leader has done is not done again.
  await b.until('b has looked at what was missed', (now) => haveSucceeded(now, 'backup orders', 'backup uploads'));
  expect(jobOf(await b.until('its jobs', () => true), 'backup orders')?.runs).toBe(0);
  expect([await backupsOf('orders'), await backupsOf('uploads'), await backupsOf('settings')]).toEqual([1, 1, 1]);
  // A change is seen by the one that leads now.
  writeFileSync(join(world.settings, 'app.conf'), 'colour = green\n');
  await expect.poll(async () => await backupsOf('settings'), { timeout: 20_000 }).toBe(2);
});

test('a leader that is told to stop gives the Lease back when its WAL is stored: the other one takes over at once', async () => {
  const { a, b } = await two();
  const { code, stderr } = await a.process.stop('SIGTERM');
  const stoppedMs = performance.now();
  expect(code, stderr).toBe(0);
  await b.until('b leads', ({ leader }) => leader?.role === 'leader');
  expect(performance.now() - stoppedMs).toBeLessThan(1500);
  await b.until('b archives', isStreaming);
  await untilArchived();
});

test('a leader that stands still (SIGSTOP) and wakes up later stands by and does nothing any more', async () => {
  const { a, b } = await two();
  a.process.child.kill('SIGSTOP');
  // The server keeps the connection of the one that stands still: it is ended as a dead node's is.
  await postgres.sql('select pg_terminate_backend(active_pid) from pg_replication_slots where active');
  await b.until('b leads and archives', (state) => state.leader?.role === 'leader' && isStreaming(state));
  // A change that only the sleeper was to see, had it gone on.
  writeFileSync(join(world.settings, 'app.conf'), 'colour = green\n');
  await expect.poll(async () => await backupsOf('settings'), { timeout: 20_000 }).toBe(2);

  a.process.child.kill('SIGCONT');
  await a.until('a stands by', ({ leader, wal }) => leader?.role === 'standby' && wal?.length === 0);
  expect(lease()).toMatchObject({ holder: expect.stringMatching(/^dr-b_/), generation: 2 });
  writeFileSync(join(world.settings, 'app.conf'), 'colour = red\n');
  await expect.poll(async () => await backupsOf('settings'), { timeout: 20_000 }).toBe(3);
  await untilArchived();
  const now = await a.until('its state', () => true);
  expect(now.jobs?.filter(({ working }) => working)).toEqual([]);
  expect([await backupsOf('orders'), await backupsOf('uploads')]).toEqual([1, 1]);
  expect((await b.until('its state', () => true)).leader?.role).toBe('leader');
});

test('the API server is down: WAL goes on without a break, jobs after a while, and the same replica leads when it is back', async () => {
  const { a, b } = await two();
  await api.a.stop();
  await api.b.stop();
  await a.until('the Lease is not confirmed', ({ leader }) => leader?.role === 'lapsed');
  expect((await a.get('/ready')).status).toBe(200);
  expect((await a.get('/metrics')).text).toMatch(/^dr_leader_lapsed 1$/m);
  await untilArchived();
  // Nobody else has told the vaults that it leads.
  writeFileSync(join(world.settings, 'app.conf'), 'colour = green\n');
  await expect.poll(async () => await backupsOf('settings'), { timeout: 20_000 }).toBe(2);
  expect((await b.until('its state', () => true)).leader?.role).toBe('standby');

  await api.a.listen();
  await api.b.listen();
  await a.until('a leads again', ({ leader }) => leader?.role === 'leader');
  expect(lease()).toMatchObject({ holder: expect.stringMatching(/^dr-a_/), generation: 1 });
  await untilArchived();
});

test('a leader that is cut off from the API server learns from the vaults that another one has taken over', async () => {
  const { a, b } = await two();
  await api.a.stop();
  await b.until('b leads', ({ leader }) => leader?.role === 'leader');
  await a.until('a has left', ({ leader, wal }) => leader?.role === 'standby' && wal?.length === 0);
  await b.until('b archives', isStreaming);
  await untilArchived();
});
