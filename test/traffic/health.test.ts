import { existsSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { HealthConfig, SwitchConfig } from '../../src/config/types.ts';
import { HealthTraffic, type HealthTuning } from '../../src/traffic/health.ts';
import { FileSwitch } from '../../src/traffic/switch-file.ts';
import { S3Switch } from '../../src/traffic/switch-s3.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import { HealthChecker } from '../harness/health-checker.ts';
import { startRoute53 } from '../harness/route53/server.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';
import { hastyClock, skippingClock } from './support.ts';

const endpoints = { east: '192.0.2.10', west: '198.51.100.10' };
const east = [endpoints.east];
const west = [endpoints.west];

const fileSwitch = (path: string): SwitchConfig => ({
  url: `file://${path}`,
  region: undefined,
  endpoint: undefined,
  forcePathStyle: false,
  credentials: undefined,
});

const s3Switch = (s3: S3Server, key = 'active/orders'): SwitchConfig => ({
  url: `s3://switches/${key}`,
  region: 'eu-central-1',
  endpoint: s3.endpoint,
  forcePathStyle: true,
  credentials: { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey },
});

/**
 * A DNS zone with a failover pair whose PRIMARY is bound to a health check, which reads `count` documents over HTTP. Each
 * document lies in a "region" of its own: a folder behind a web server that can be lost.
 */
async function startWorld(count = 1) {
  const directory = await tempDir('switch');
  const dns = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' });
  const record = { name: 'orders.example.com', type: 'A', ttl: 30 };
  dns.zone.seed(
    { ...record, values: east, setIdentifier: 'east', failover: 'PRIMARY', healthCheckId: 'hc' },
    { ...record, values: west, setIdentifier: 'west', failover: 'SECONDARY' },
  );
  const paths = Array.from({ length: count }, (_, i) => join(directory, `region-${i}`, 'active', 'orders'));
  for (const path of paths) mkdirSync(join(path, '..'), { recursive: true });
  const lost = new Set<number>();
  const web = createServer((request, response) => {
    const region = Number(request.url?.slice(1));
    const path = paths[region] ?? '';
    if (lost.has(region)) return void request.socket.destroy();
    if (!existsSync(path)) return void response.writeHead(404).end();
    response.writeHead(200).end(readFileSync(path));
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  const { port } = web.address() as AddressInfo;
  const checker = new HealthChecker({
    urls: () => paths.map((_, i) => `http://127.0.0.1:${port}/${i}`),
    search: '"site":"west"',
    threshold: Math.floor(count / 2) + 1,
  });
  dns.zone.health.set('hc', () => checker.healthy);
  const config = (change: Partial<HealthConfig> = {}): HealthConfig => ({
    kind: 'health',
    record: record.name,
    type: 'A',
    primary: 'east',
    switches: paths.map(fileSwitch),
    nameservers: [dns.nameserver],
    ...change,
  });
  return {
    dns,
    paths,
    checker,
    config,
    /** The place cannot be read or written any more, by anybody. */
    lose: (region: number) => {
      lost.add(region);
      rmSync(join(paths[region] ?? '', '..'), { recursive: true });
      writeFileSync(join(paths[region] ?? '', '..'), 'a file where a directory was');
    },
    open: (change: Partial<HealthConfig> = {}, tuning: HealthTuning = {}) =>
      new HealthTraffic(
        config(change),
        silentLog,
        { clock: hastyClock, ...tuning },
        { endpoints, resolvers: [dns.nameserver] },
      ),
    [Symbol.asyncDispose]: async () => {
      await checker[Symbol.asyncDispose]();
      await new Promise((resolve) => web.close(resolve));
      await dns.close();
    },
  };
}
type World = Awaited<ReturnType<typeof startWorld>>;

async function failure(promise: Promise<unknown>): Promise<DrError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof DrError)) throw new Error(`expected a DrError, got ${String(error)}`);
  return error;
}

for (const count of [1, 3]) {
  trafficConformance(`health with ${count === 1 ? 'one switch' : 'three switches'}`, async () => {
    const world = await startWorld(count);
    return {
      open: () => world.open(),
      hold: () => {
        world.checker.held = true;
      },
      release: () => {
        world.checker.held = false;
      },
      hasNameServers: true,
      isFaithful: true,
      sites: Object.values(endpoints),
      isPremade: true,
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    };
  });
}

describe('one switch', () => {
  let world: World;
  beforeEach(async () => {
    world = await startWorld();
  });
  afterEach(() => world[Symbol.asyncDispose]());

  it('moves traffic without one call to the DNS API, and says in the document what a health check looks for', async () => {
    const driver = world.open();
    const before = await driver.current();
    expect(before).toMatchObject({ values: east, ttlSeconds: 30 });
    const change = await driver.point(west, before);
    expect(change.id).toBe('generation 1');
    await driver.settled(change);
    expect(await driver.answers()).toEqual([{ server: world.dns.nameserver, values: west }]);
    expect(world.dns.calls).toEqual([]);
    const text = readFileSync(world.paths[0] ?? '', 'utf8');
    expect(text.startsWith('{"site":"west","format":1,"generation":1,"changedAt":"20')).toBe(true);
  });

  it('stays where it is when the document can no longer be read: its loss moves nothing', async () => {
    const driver = world.open();
    world.lose(0);
    expect(await failure(driver.current())).toMatchObject({ kind: expect.any(String), where: driver.target });
    expect((await driver.answers())[0]?.values).toEqual(east);
  });

  it('finds its name servers by the resolvers', async () => {
    world.dns.zone.seed({ name: 'example.com', type: 'NS', ttl: 30, values: ['127.0.0.1'] });
    const driver = world.open({ nameservers: undefined });
    // Nothing listens at port 53 there, or nobody who serves the zone.
    expect(await driver.answers()).toEqual([{ server: '127.0.0.1', values: [], error: expect.any(String) }]);
    expect(await driver.current()).toMatchObject({ values: east, ttlSeconds: 60 });
  });

  it('takes the time that health checks need where nobody can be asked', async () => {
    world.dns.faults.dns = 'refuse';
    const clock = skippingClock();
    const driver = world.open({}, { clock });
    await driver.settled(await driver.point(west, await driver.current()));
    expect(clock.pauses.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThanOrEqual(150_000);
  });

  it('is found by the doctor when DNS does not follow it', async () => {
    const driver = world.open();
    world.checker.held = true;
    await driver.point(west, await driver.current());
    const wrong = (await driver.doctor()).filter(({ ok }) => !ok);
    expect(wrong).toEqual([
      {
        ok: false,
        what: `name server ${world.dns.nameserver} answers 192.0.2.10, but the record says 198.51.100.10`,
        next: expect.stringContaining('inverted'),
      },
    ]);
  });

  it('that is no document of dr is told, not overwritten', async () => {
    writeFileSync(world.paths[0] ?? '', 'something else');
    const driver = world.open();
    expect(await failure(driver.current())).toMatchObject({ kind: 'corrupt' });
    expect((await driver.doctor())[0]).toMatchObject({ ok: false, what: expect.stringContaining('no switch of dr') });
    expect(readFileSync(world.paths[0] ?? '', 'utf8')).toBe('something else');
  });
});

describe('three switches', () => {
  let world: World;
  beforeEach(async () => {
    world = await startWorld(3);
  });
  afterEach(() => world[Symbol.asyncDispose]());

  it('work with any one region lost, before and after', async () => {
    const driver = world.open();
    world.lose(0);
    await driver.settled(await driver.point(west, await driver.current()));
    expect((await driver.answers())[0]?.values).toEqual(west);
    await driver.settled(await driver.point(east, await driver.current()));
    expect((await driver.answers())[0]?.values).toEqual(east);
    const findings = await driver.doctor();
    expect(findings.filter(({ ok }) => !ok)).toEqual([
      expect.objectContaining({ severity: 'warning', what: expect.stringContaining(world.paths[0] ?? '-') }),
    ]);
  });

  it('do not move traffic when a region comes back with an old document', async () => {
    const driver = world.open();
    await driver.settled(await driver.point(west, await driver.current()));
    const old = readFileSync(world.paths[2] ?? '');
    await driver.settled(await driver.point(east, await driver.current()));
    writeFileSync(world.paths[2] ?? '', old);
    expect((await driver.current()).values).toEqual(east);
    await expect.poll(() => world.checker.healthy).toBe(true);
    // The next redirect to the same place brings it up to the others.
    await driver.point(east, await driver.current());
    expect(JSON.parse(readFileSync(world.paths[2] ?? '', 'utf8'))).toMatchObject({ site: 'east', generation: 3 });
  });

  it('refuse to decide when two of them are lost', async () => {
    const driver = world.open();
    const before = await driver.current();
    world.lose(0);
    world.lose(1);
    const error = await failure(driver.point(west, before));
    expect(error.message).toContain('2 of 3 switches give no answer');
    expect(existsSync(world.paths[2] ?? '')).toBe(false);
  });
});

describe('a switch in S3', () => {
  let s3: S3Server;
  beforeEach(async () => {
    s3 = await S3Server.start({ buckets: ['switches'] });
  });
  afterEach(() => s3.stop());

  it('is written only in place of what was read', async () => {
    const at = new S3Switch(s3Switch(s3));
    expect(await at.read()).toBeUndefined();
    await at.checkWrite();
    expect(await at.read()).toBeUndefined();
    expect(await at.write('one', undefined)).toBe('written');
    const one = await at.read();
    expect(one?.text).toBe('one');
    expect(await at.write('two', undefined)).toBe('changed');
    expect(await at.write('two', one?.tag)).toBe('written');
    expect(await at.write('three', one?.tag)).toBe('changed');
    await at.checkWrite();
    expect((await at.read())?.text).toBe('two');
    at.close();
  });

  it('lets one of many writers win', async () => {
    const writers = Array.from({ length: 8 }, () => new S3Switch(s3Switch(s3)));
    const outcomes = await Promise.all(writers.map((at, i) => at.write(`text ${i}`, undefined)));
    expect(outcomes.filter((outcome) => outcome === 'written')).toHaveLength(1);
    expect((await writers[0]?.read())?.text).toBe(`text ${outcomes.indexOf('written')}`);
    for (const at of writers) at.close();
  });

  it('says which rights are missing, and what is wrong with its place', async () => {
    const config = s3Switch(s3);
    const stranger = new S3Switch({
      ...config,
      credentials: { accessKeyId: 'nobody', secretAccessKey: 'never-told-1729' },
    });
    const error = await failure(stranger.checkWrite());
    expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining('s3:PutObject') });
    expect(`${error.message}${error.stack}`).not.toContain('never-told-1729');
    const lost = new S3Switch({ ...config, url: 's3://no-such-bucket/active/orders' });
    expect(await failure(lost.read())).toMatchObject({
      kind: 'not-found',
      next: expect.stringContaining('Create the bucket'),
    });
    await s3.stop();
    expect(await failure(new S3Switch(config).read())).toMatchObject({ kind: 'unreachable', retryable: true });
    stranger.close();
    lost.close();
    await s3.stop().catch(() => {});
  });
});

describe('a switch in a file', () => {
  it('is written only in place of what was read, by one of many at a time', async () => {
    const path = join(await tempDir('switch'), 'active');
    const writers = Array.from({ length: 8 }, () => new FileSwitch({ url: `file://${path}` }));
    const outcomes = await Promise.allSettled(writers.map((at, i) => at.write(`text ${i}`, undefined)));
    const written = outcomes.filter((outcome) => outcome.status === 'fulfilled' && outcome.value === 'written');
    expect(written).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ kind: 'unreachable', retryable: true });
    }
    expect(readFileSync(path, 'utf8')).toMatch(/^text \d$/);
  });

  it('is not blocked for good by a writer that was killed', async () => {
    const path = join(await tempDir('switch'), 'active');
    const at = new FileSwitch({ url: `file://${path}` });
    writeFileSync(`${path}.lock`, '');
    expect(await failure(at.write('text', undefined))).toMatchObject({ kind: 'unreachable' });
    utimesSync(`${path}.lock`, new Date(0), new Date(0));
    expect(await at.write('text', undefined)).toBe('written');
    expect(existsSync(`${path}.lock`)).toBe(false);
  });
});
