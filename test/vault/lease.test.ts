import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { layout } from '../../src/vault/layout.ts';
import { acquireLease, type Lease, type LeaseOptions } from '../../src/vault/lease.ts';
import { currentHolder, isHolderDead, type LeaseHolder } from '../../src/vault/lease-holder.ts';
import { generations, readLease } from '../../src/vault/lease-record.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import type { Body, CreateOptions, ObjectStore } from '../../src/vault/store.ts';
import { ManualClock } from '../harness/manual-clock.ts';
import { startNode } from '../harness/process.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

const elsewhere = (name: string): LeaseHolder => ({
  host: name,
  user: 'ops',
  pid: 7,
  bootId: `boot-${name}`,
  started: '1',
});
const memory = () => new MemoryStore({ name: 'west' });

/** Acquires as a process on another host would; given back when the test ends. */
async function acquire(store: ObjectStore, host: string, options: Partial<LeaseOptions> = {}): Promise<Lease> {
  const lease = await acquireLease(store, 'runs', {
    purpose: `work of ${host}`,
    holder: elsewhere(host),
    ttlMs: 30_000,
    ...options,
  });
  onTestFinished(() => lease.release());
  return lease;
}

const reasonOf = (lease: Lease): DrError => {
  if (!(lease.signal.reason instanceof DrError)) throw new Error('the signal has not aborted with a DrError');
  return lease.signal.reason;
};

for (const kind of ['memory', 'directory', 'S3'] as const) {
  it(`lets one of twenty concurrent acquirers win and tells the others who did: ${kind}`, async () => {
    const store = await open(kind);
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => acquire(store, `host-${i}`)));
    const won = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    expect(won).toHaveLength(1);
    const winner = outcomes.findIndex((outcome) => outcome.status === 'fulfilled');
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') continue;
      expect(outcome.reason).toMatchObject({ kind: 'lease-held' });
      expect(outcome.reason.message).toContain(
        `ops@host-${winner}, process 7 holds the lease "runs" (work of host-${winner})`,
      );
    }
  });
}

async function open(kind: 'memory' | 'directory' | 'S3', attempts = 5): Promise<ObjectStore & { server?: S3Server }> {
  if (kind === 'memory') return memory();
  if (kind === 'directory') {
    const store = new FileStore({ name: 'west', region: 'r', root: join(await tempDir(), 'vault') });
    await store.prepare();
    return store;
  }
  const server = await S3Server.start();
  const { accessKeyId, secretAccessKey, endpoint } = server;
  const store = new S3Store({
    name: 'west',
    region: 'r',
    bucket: 'vault',
    prefix: '',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    limits: { attempts, retryBaseMs: 1 },
  });
  onTestFinished(async () => {
    await store.close();
    await server.stop();
  });
  return Object.assign(store, { server });
}

it('says who, what for, since when and until when', async () => {
  const [store, clock] = [memory(), new ManualClock(Date.UTC(2026, 10, 23, 5))];
  await acquire(store, 'db-1', { clock, ttlMs: 60_000, purpose: 'failover to west' });
  const error = await acquire(store, 'db-2', { clock }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({
    kind: 'lease-held',
    message:
      'ops@db-1, process 7 holds the lease "runs" (failover to west) since 2026-11-23T05:00:00.000Z, until 2026-11-23T05:01:00.000Z unless renewed',
    where: 'memory://west/leases/runs/0000000001.json',
    next: expect.stringContaining('1 min'),
  });
});

it('renews every third of its lifetime, with a growing generation, and keeps only the last two', async () => {
  const [store, clock] = [memory(), new ManualClock()];
  const lease = await acquire(store, 'a', { clock });
  expect(lease.generation).toBe(1);
  await clock.advance(300_000);
  expect(lease.signal.aborted).toBe(false);
  expect(lease.generation).toBe(31);
  await lease.stillHeld();
  expect(await generations(store, 'runs')).toEqual([30, 31]);
  await expect(acquire(store, 'b', { clock })).rejects.toMatchObject({ kind: 'lease-held' });
});

it('is free at once when released, and numbering goes on', async () => {
  const store = memory();
  const first = await acquire(store, 'a');
  await first.release();
  await first.release();
  await expect(first.stillHeld()).rejects.toThrow('given back');
  const second = await acquire(store, 'b');
  expect(second.generation).toBeGreaterThan(first.generation);
  expect(first.signal.aborted).toBe(false);
});

it('is taken from a holder elsewhere only after its time and the margin for clocks', async () => {
  const store = memory();
  const dead = new ManualClock();
  await acquire(store, 'a', { clock: dead, ttlMs: 30_000 }); // Its clock stands still: it never renews.
  const clock = new ManualClock();
  clock.jump(39_999);
  await expect(acquire(store, 'b', { clock, skewMs: 10_000 })).rejects.toMatchObject({ kind: 'lease-held' });
  clock.jump(2);
  expect((await acquire(store, 'b', { clock, skewMs: 10_000 })).generation).toBe(2);
});

it('is lost by a paused holder as soon as it wakes, whether or not somebody took it', async () => {
  const store = memory();
  const paused = new ManualClock();
  const lease = await acquire(store, 'a', { clock: paused });
  const clock = new ManualClock();
  clock.jump(50_000);
  const other = await acquire(store, 'b', { clock });
  // Its clock is behind, so it believes itself in time: the store says otherwise.
  await expect(lease.stillHeld()).rejects.toMatchObject({
    kind: 'lease-held',
    message: expect.stringContaining('ops@b'),
  });
  expect(reasonOf(lease).kind).toBe('lease-held');
  await other.stillHeld();

  const lonely = new ManualClock();
  const second = await acquireLease(store, 'else', { purpose: 'x', ttlMs: 30_000, clock: lonely });
  lonely.jump(30_001);
  await expect(second.stillHeld()).rejects.toMatchObject({
    kind: 'unreachable',
    message: expect.stringContaining('not renewed in time'),
  });
  expect(reasonOf(second).message).toContain('not renewed');
  await second.release();
});

it('notices at its next renewal that somebody else has it', async () => {
  const [store, slow] = [memory(), new ManualClock()];
  const lease = await acquire(store, 'a', { clock: slow });
  const fast = new ManualClock();
  fast.jump(50_000);
  const other = await acquire(store, 'b', { clock: fast });
  await slow.advance(10_001);
  expect(reasonOf(lease)).toMatchObject({ kind: 'lease-held', message: expect.stringContaining('ops@b') });
  await lease.release();
  await other.stillHeld(); // The loser's release has not touched it.
});

it('does not fall for a generation that was used and cleared away while it was paused before creating it', async () => {
  /** Runs something just before the first create of a key that ends so. */
  class Pausing extends MemoryStore {
    pause: { readonly before: string; readonly meanwhile: () => Promise<void> } | undefined;
    override async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
      const pause = this.pause;
      if (pause && key.endsWith(pause.before)) {
        this.pause = undefined;
        await pause.meanwhile();
      }
      return super.create(key, body, options);
    }
  }
  const store = new Pausing({ name: 'west' });
  const clock = new ManualClock();
  const lease = await acquire(store, 'a', { clock });
  const later = new ManualClock();
  later.jump(50_000);
  let other: Lease | undefined;
  const meanwhile = async () => {
    other = await acquire(store, 'b', { clock: later });
    await later.advance(100_000);
    expect((await generations(store, 'runs'))[0]).toBeGreaterThan(3);
  };
  store.pause = { before: '0000000002.json', meanwhile };
  const lost = new Promise((resolve) => lease.signal.addEventListener('abort', resolve));
  await clock.advance(10_001);
  await lost;
  expect(reasonOf(lease)).toMatchObject({ kind: 'lease-held', message: expect.stringContaining('ops@b') });
  await other?.stillHeld();

  // The same for one that is only about to acquire.
  await other?.release();
  const generation = ((await readLease(store, 'runs'))?.generation ?? 0) + 1;
  let quick: Lease | undefined;
  store.pause = {
    before: `${generation}.json`,
    meanwhile: async () => {
      quick = await acquire(store, 'c', { clock: later });
      await later.advance(100_000);
    },
  };
  await expect(acquire(store, 'd', { clock: later })).rejects.toMatchObject({
    message: expect.stringContaining('ops@c'),
  });
  await quick?.stillHeld();
});

it('survives failed renewals while there is time, and is lost when there is none left', async () => {
  const store = await open('S3', 1);
  const server = store.server;
  if (!server) throw new Error('no server');
  const clock = new ManualClock();
  const lease = await acquire(store, 'a', { clock });
  server.unavailable = true;
  await advanceWithNetwork(clock, 20_000);
  expect(lease.signal.aborted).toBe(false);
  server.unavailable = false;
  await advanceWithNetwork(clock, 4_000);
  await lease.stillHeld();
  expect(lease.generation).toBeGreaterThan(1);
  server.unavailable = true;
  await advanceWithNetwork(clock, 30_000);
  expect(reasonOf(lease)).toMatchObject({ kind: 'unreachable', retryable: false });
});

/** Moves time in small steps with real pauses for real requests: until no connection has anything under way. */
async function advanceWithNetwork(clock: ManualClock, ms: number): Promise<void> {
  for (let done = 0; done < ms; done += 500) {
    await clock.advance(500);
    // Renewal sleeps again when its requests are over; expiry sleeps always.
    for (let turn = 0; turn < 2000 && clock.sleeping < 2 && clock.sleeping > 0; turn++) await new Promise(setImmediate);
  }
}

it('adopts its own generation whose answer was lost, instead of taking it for a stranger', async () => {
  const store = await open('S3', 1); // One attempt: the driver itself cannot find out.
  const server = store.server;
  if (!server) throw new Error('no server');
  const clock = new ManualClock();
  const lease = await acquire(store, 'a', { clock });
  server.faults.add({ kind: 'lose-answer' }, { matches: ({ operation }) => operation === 'PutObject' });
  await advanceWithNetwork(clock, 15_000);
  expect(server.faults.pending).toBe(0);
  expect(lease.signal.aborted).toBe(false);
  await lease.stillHeld();
  expect(lease.generation).toBeGreaterThanOrEqual(3);
});

it('aborts in time even when the store hangs', async () => {
  const [clock, hang] = [new ManualClock(), new Promise<never>(() => {})];
  class Hanging extends MemoryStore {
    hangs = false;
    override async *list(prefix: string) {
      if (this.hangs) await hang;
      yield* super.list(prefix);
    }
  }
  const store = new Hanging({ name: 'west' });
  const lease = await acquireLease(store, 'runs', { purpose: 'x', ttlMs: 30_000, clock });
  store.hangs = true;
  await clock.advance(29_999);
  expect(lease.signal.aborted).toBe(false);
  await clock.advance(1);
  expect(reasonOf(lease).message).toContain('not renewed in time');
});

it('is taken at once from a process of this host that was killed -9, long before its time', async () => {
  const store = await open('directory');
  const child = startNode(join(import.meta.dirname, 'hold-lease.ts'), [new URL(store.location).pathname, '3600000']);
  await child.waitFor(/held 1/);
  const attempt = () => acquireLease(store, 'runs', { purpose: 'takeover' });
  await expect(attempt()).rejects.toMatchObject({
    kind: 'lease-held',
    message: expect.stringContaining(`process ${child.pid}`),
  });
  await child.kill9();
  const lease = await attempt();
  expect(lease.generation).toBe(2);
  await lease.release();
});

it('is lost by a process that was stopped and continued after somebody took it', async () => {
  const store = await open('directory');
  const child = startNode(join(import.meta.dirname, 'hold-lease.ts'), [new URL(store.location).pathname, '600']);
  await child.waitFor(/held 1/);
  process.kill(child.pid, 'SIGSTOP');
  let lease: Lease | undefined;
  while (lease === undefined) {
    lease = await acquireLease(store, 'runs', { purpose: 'takeover', skewMs: 0 }).catch((error: DrError) => {
      expect(error.kind).toBe('lease-held');
      return undefined;
    });
  }
  process.kill(child.pid, 'SIGCONT');
  await child.waitFor(/lost: the lease "runs" ended|lost: .* holds the lease/);
  expect((await child.ended).code).toBe(0);
  await lease.stillHeld();
  await lease.release();
});

it('does not keep a process alive by itself', async () => {
  const store = await open('directory');
  const source = `
    const { FileStore } = await import('./src/vault/file-store.ts');
    const { acquireLease } = await import('./src/vault/lease.ts');
    const store = new FileStore({ name: 'x', region: 'r', root: ${JSON.stringify(new URL(store.location).pathname)} });
    await acquireLease(store, 'runs', { purpose: 'x', ttlMs: 3600000 });`;
  const child = startNode('--input-type=module', ['-e', source]);
  expect(await child.ended).toMatchObject({ code: 0, stderr: '' });
});

it('takes no living or foreign process for dead', async () => {
  const self = await currentHolder();
  expect(await isHolderDead(self, self)).toBe(false);
  expect(await isHolderDead({ ...self, pid: 1 }, { ...self })).toBe(self.started !== '');
  expect(await isHolderDead({ ...self, pid: 2 ** 22 + 1 }, self)).toBe(self.bootId !== '');
  expect(await isHolderDead({ ...self, pid: 2 ** 22 + 1, host: 'other' }, self)).toBe(false);
  expect(await isHolderDead({ ...self, pid: 2 ** 22 + 1, bootId: 'another boot' }, self)).toBe(false);
  expect(await isHolderDead({ ...self, pid: 2 ** 22 + 1, bootId: '' }, { ...self, bootId: '' })).toBe(false);
});

it('says which object is damaged', async () => {
  const store = memory();
  await store.create(layout.leaseGeneration('runs', 3), Buffer.from('{'));
  await expect(acquire(store, 'a')).rejects.toMatchObject({
    kind: 'corrupt',
    where: 'memory://west/leases/runs/0000000003.json',
    next: expect.stringContaining('delete'),
  });
});
