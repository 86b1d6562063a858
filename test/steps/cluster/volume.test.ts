import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseLsn } from '../../../src/postgres/lsn.ts';
import { queryRows } from '../../../src/postgres/query.ts';
import type { ResourcePoint } from '../../../src/steps/ports.ts';
import { VolumeWorld } from './volume-world.ts';

let world: VolumeWorld;
let point: ResourcePoint;
// What does not come to its end is told where it stands.
const signal = AbortSignal.timeout(200_000);
const latest = { kind: 'latest' } as const;
const nothing = () => {};

beforeAll(async () => {
  world = await VolumeWorld.create();
  point = await world.recovery().assess({ name: 'orders', kind: 'database' }, latest, signal);
}, 60_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

beforeEach(async ({ onTestFailed }) => {
  onTestFailed(() => void process.stderr.write(world.serverLog().slice(-6000)));
  for (const kind of ['StatefulSet', 'Job', 'PersistentVolumeClaim']) {
    for (const { apiVersion, metadata } of world.objects.all().filter((each) => each.kind === kind)) {
      if (world.objects.all().some(({ metadata: { uid } }) => uid === metadata.uid))
        world.objects.delete(world.objects.typeOf({ apiVersion, kind }), metadata.namespace, metadata.name);
    }
  }
  await world.controllers.settled();
  while (existsSync(join(world.dataDirectory, 'postmaster.pid')))
    await new Promise((resolve) => setTimeout(resolve, 20));
  await rm(world.dataDirectory, { recursive: true, force: true });
  world.kubelet.runs.length = 0;
  world.setEnvironment({});
});

const rows = async () => (await queryRows(world.recovery() && url(), 'select count(*)::int from orders'))[0]?.[0];
const url = () => world.config.databases['orders']?.recover['west']?.url ?? '';

describe('a database in the volume of a StatefulSet', () => {
  it('is restored by a Job, recovered by the stock server with cp alone, checked by SQL, and promoted', async () => {
    world.createStatefulSet();
    const recovery = world.recovery();
    const place = world.place();
    expect(await recovery.databaseState(place, signal)).toEqual({ state: 'empty' });
    expect((await recovery.preflight(place, point, signal)).filter(({ ok }) => !ok)).toEqual([]);
    const recovered = await recovery.restoreDatabase(place, point, latest, nothing, signal);
    expect(recovered).toMatchObject({ timeline: 1, where: expect.stringContaining('127.0.0.1') });
    expect(await recovery.databaseState(place, signal)).toMatchObject({ state: 'recovered', runId: 'run-1' });
    expect(await rows()).toBe(6000);
    await expect(queryRows(url(), 'create table nope ()')).rejects.toThrow(/read-only|recovery/);
    const checks = await recovery.checkDatabase(place, ['select count(*) = 6000 from orders'], signal);
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);

    const job = world.object('Job');
    expect(world.kubelet.runs.map(({ args }) => args)).toEqual([
      expect.arrayContaining(['restore', 'orders', '--wal-to', join(world.dataDirectory, 'dr_archive')]),
    ]);
    expect(job).toMatchObject({
      spec: {
        template: {
          spec: {
            securityContext: {
              runAsNonRoot: true,
              runAsUser: 999,
              fsGroup: 999,
              seccompProfile: { type: 'RuntimeDefault' },
            },
            containers: [
              { image: 'dr:test', securityContext: { readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } } },
            ],
            volumes: expect.arrayContaining([
              { name: 'data', persistentVolumeClaim: { claimName: 'data-orders-db-0' } },
            ]),
          },
        },
      },
    });
    expect(world.object('PersistentVolumeClaim')).toMatchObject({
      metadata: { name: 'data-orders-db-0', labels: { app: 'orders-db' } },
      spec: { resources: { requests: { storage: '10Gi' } } },
    });

    expect(await recovery.promoteDatabase(place, signal)).toEqual({ timeline: 2 });
    expect(await recovery.promoteDatabase(place, signal)).toEqual({ timeline: 2 });
    await queryRows(url(), 'insert into orders values (6001)');
    expect(existsSync(join(world.dataDirectory, 'dr_archive'))).toBe(false);
    expect(await queryRows(url(), 'select current_setting($$restore_command$$)')).toEqual(
      [['']].map(() => [expect.any(String)]),
    );
    const [left] = await queryRows(
      url(),
      `select count(*)::int from pg_file_settings where name like 'recovery%' or name = 'restore_command'`,
    );
    expect(left).toEqual([0]);
    expect(await recovery.openDatabase(place, signal)).toEqual([]);
    expect(await recovery.reserveWal(place, 'dr_orders', signal)).toMatchObject({ created: true });
    expect(await recovery.databaseState(place, signal)).toMatchObject({ state: 'promoted', timeline: 2 });
    await expect(recovery.catchUp(place, nothing, signal)).rejects.toMatchObject({ kind: 'refused' });
  });

  it('goes on after a kill at any point: no second Job, no second restore', async () => {
    world.createStatefulSet();
    const place = world.place('run-2');
    const release = world.holdJobs();
    // Killed while the Job waits, and again while the server replays.
    for (const moment of [/^fill the volume/, /^replay/]) {
      const stop = new AbortController();
      const progress = ({ task }: { task: string }) => {
        if (moment.test(task)) stop.abort(new Error('killed'));
      };
      const work = world.recovery().restoreDatabase(place, point, latest, progress, stop.signal);
      await expect(work, String(moment)).rejects.toThrow();
      release();
    }
    await world.recovery().restoreDatabase(place, point, latest, nothing, signal);
    expect(world.kubelet.runs).toHaveLength(1);
    expect(await rows()).toBe(6000);
  });

  it('goes on in another pod when the first is evicted in the middle', async () => {
    world.createStatefulSet();
    // As soon as something lies in the volume.
    const watch = setInterval(() => {
      const [pod] = world.kubelet.runningPods();
      if (pod === undefined || !existsSync(world.dataDirectory)) return;
      clearInterval(watch);
      world.kubelet.evict(pod);
    }, 1);
    await world.recovery().restoreDatabase(world.place('run-8'), point, latest, nothing, signal);
    clearInterval(watch);
    expect(await rows()).toBe(6000);
    expect(world.kubelet.runs).toHaveLength(2);
  });

  it('says what keeps the Job from beginning', async () => {
    world.createStatefulSet();
    world.kubelet.missingImages.add('dr:test');
    const stop = new AbortController();
    let seen = '';
    const progress = ({ detail = '' }: { detail?: string | undefined }) => {
      if (!detail.includes('ImagePullBackOff')) return;
      seen = detail;
      stop.abort(new Error('time is up'));
    };
    await expect(
      world.recovery().restoreDatabase(world.place('run-9'), point, latest, progress, stop.signal),
    ).rejects.toThrow();
    world.kubelet.missingImages.clear();
    expect(seen).toContain('Back-off pulling image "dr:test"');
  });

  it('says why the Job failed, and makes it anew when it is asked again', async () => {
    world.createStatefulSet();
    const place = world.place('run-3');
    world.setEnvironment({ DR_TEST_IDENTITY: 'none.txt' });
    await expect(world.recovery().restoreDatabase(place, point, latest, nothing, signal)).rejects.toMatchObject({
      kind: 'local',
      where: expect.stringContaining('none.txt'),
      retryable: true,
    });
    world.setEnvironment({});
    await world.recovery().restoreDatabase(place, point, latest, nothing, signal);
    expect(world.kubelet.runs).toHaveLength(2);
  });

  it('is reached at a moment after its last commit, which only the archive can prove', async () => {
    world.createStatefulSet();
    const place = world.place('run-4');
    const at = { kind: 'time', atMs: point.recoveryPointMs - 1 } as const;
    const recovered = await world.recovery().restoreDatabase(place, point, at, nothing, signal);
    expect(recovered.recoveredToMs).toBe(at.atMs);
    expect(await rows()).toBe(6000);
    expect(await world.recovery().promoteDatabase(place, signal)).toEqual({ timeline: 2 });
  });

  it('is reached as it was asked for, however the archive grows while the Job waits', async () => {
    world.createStatefulSet();
    const place = world.place('run-10');
    const release = world.holdJobs();
    const at = { kind: 'time', atMs: point.recoveryPointMs - 1 } as const;
    let grown: Promise<void> | undefined;
    const grow = async () => {
      await world.write(6001, 6100);
      release();
    };
    const progress = ({ task }: { task: string }) => {
      if (/^fill/.test(task)) grown ??= grow();
    };
    const recovered = await world.recovery().restoreDatabase(place, point, at, progress, signal);
    await grown;
    expect(recovered.recoveredToMs).toBe(at.atMs);
    expect(await rows()).toBe(6000);
    expect(await world.recovery().promoteDatabase(place, signal)).toEqual({ timeline: 2 });
    await world.unwrite(6001);
  });

  it('goes on although the archive has grown since its Job', async () => {
    world.createStatefulSet();
    const place = world.place('run-11');
    const stop = new AbortController();
    const progress = ({ task }: { task: string }) => {
      if (/^replay/.test(task)) stop.abort(new Error('killed'));
    };
    await expect(world.recovery().restoreDatabase(place, point, latest, progress, stop.signal)).rejects.toThrow();
    const killedAtMs = Date.now();
    await world.write(6001, 6100);
    const recovered = await world.recovery().restoreDatabase(place, point, latest, nothing, signal);
    expect(await rows()).toBe(6000);
    expect(recovered.recoveredToMs).toBeLessThanOrEqual(killedAtMs);
    await world.unwrite(6001);
  });

  it('is never written over while its server runs', async () => {
    world.createStatefulSet({ replicas: 1 });
    await world.controllers.settled();
    await expect(
      world.recovery().restoreDatabase(world.place('run-5'), point, latest, nothing, signal),
    ).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('nothing is restored into a volume that a server uses'),
    });
    expect(await world.recovery().databaseState(world.place('run-5'), signal)).toMatchObject({ state: 'foreign' });
    expect(world.kubelet.runs).toEqual([]);
  });

  it('is examined before: version, size, mount', async () => {
    world.createStatefulSet({
      volumeClaimTemplates: [{ metadata: { name: 'data' }, spec: { resources: { requests: { storage: '1Mi' } } } }],
    });
    const findings = await world.recovery().preflight(world.place(), point, signal);
    expect(findings.map(({ ok }) => ok)).toEqual([true, false]);
    expect(findings[1]?.what).toContain('has 1Mi');
  });

  it('is caught up with what was archived since, as often as it takes, also after a kill', async () => {
    world.createStatefulSet();
    const place = world.place('run-6');
    const before = await world.recovery().restoreDatabase(place, point, latest, nothing, signal);
    await world.write(6001, 6500);
    const stop = new AbortController();
    const killed = world
      .recovery()
      .catchUp(place, ({ task }) => void (/^fill/.test(task) && stop.abort(new Error('killed'))), stop.signal);
    await expect(killed).rejects.toThrow();
    const caughtUp = await world.recovery().catchUp(place, nothing, signal);
    expect(await rows()).toBe(6500);
    expect(parseLsn(caughtUp.replayedTo)).toBeGreaterThan(parseLsn(before.replayedTo) ?? 0n);
    await world.write(6501, 6600);
    await world.recovery().catchUp(place, nothing, signal);
    expect(await rows()).toBe(6600);
    // One Job to restore, one for each time.
    expect(world.kubelet.runs).toHaveLength(3);
    expect(await world.recovery().promoteDatabase(place, signal)).toEqual({ timeline: 2 });
    expect(await rows()).toBe(6600);
  });

  it('is not caught up where nothing says who its server is', async () => {
    world.createStatefulSet({ template: rootTemplate() });
    const place = world.place('run-7');
    await world.recovery().restoreDatabase(place, point, latest, nothing, signal);
    await expect(world.recovery().catchUp(place, nothing, signal)).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('Set securityContext.runAsUser'),
    });
  });
});

/** Pods of an image that begins as root and gives its files away by itself. */
function rootTemplate(): object {
  const volumeMounts = [{ name: 'data', mountPath: join(world.root, 'pv') }];
  return {
    metadata: { labels: { app: 'orders-db' } },
    spec: { containers: [{ name: 'postgres', image: 'postgres:17', volumeMounts }] },
  };
}
