import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readActiveSite } from '../../src/backup/active-site.ts';
import { systemClock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { parseConfig } from '../../src/config/load.ts';
import { hostDaemon } from '../../src/daemon/host.ts';
import { cronTicker } from '../../src/daemon/ticker.ts';
import { enrolVault } from '../../src/vault/enrol.ts';
import { backupWorld } from '../backup/fixture.ts';
import { tempDir } from '../harness/temp.ts';
import { memoryLog } from './support.ts';

const text = `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: region-east, url: "file:///srv/east" }
  west: { region: region-west, url: "file:///srv/west" }
sites: { east: { region: region-east, vault: east }, west: { region: region-west, vault: west } }
active: east
encryption: none
data:
  uploads: { path: UPLOADS, schedule: daily, retention: 90 days, allowEmpty: true }
verification: { schedule: never }
`;

async function setUp(open: (attempt: number) => void) {
  const world = await backupWorld();
  for (const store of world.stores) await enrolVault(store);
  const { config } = parseConfig(text.replace('UPLOADS', await tempDir('uploads')), join('/etc', 'dr.yaml'), {});
  const { log, lines } = memoryLog();
  const stop = new AbortController();
  let attempts = 0;
  let url = '';
  const said = new Map<string, () => void>();
  const line = (sentence: string) => new Promise<void>((resolve) => said.set(sentence, resolve));
  const watched = {
    ...log,
    info: (facts: { url?: string }, sentence: string) => {
      url ||= facts.url ?? '';
      log.info(facts, sentence);
      for (const [part, resolve] of said) if (sentence.includes(part)) resolve();
    },
    error: (facts: object, sentence: string) => {
      log.error(facts, sentence);
      for (const [part, resolve] of said) if (sentence.includes(part)) resolve();
    },
  };
  const host = () =>
    hostDaemon({
      version: '1.2.3',
      listen: { host: '127.0.0.1', port: 0 },
      stop: stop.signal,
      onReload: () => {},
      check: async () => {},
      open: async (signal) => {
        open(++attempts);
        const backups = { ...world.context, signal, log };
        const { stores, keyRing } = world;
        const verify = async () => Promise.reject(new DrError('internal', 'not asked for'));
        const parts = { config, site: 'east', stores, bare: stores, keyRing, backups, verify };
        return { ...parts, [Symbol.asyncDispose]: async () => {} };
      },
      ticker: () => cronTicker('test', log),
      clock: systemClock,
      log: watched,
      askEveryMs: 100,
    });
  const get = async (path: string) => await fetch(url + path);
  return { world, lines, stop, host, line, get, attempts: () => attempts };
}

test('while no vault answers it waits and says why; when one does it begins its work', async () => {
  let away = true;
  const { world, stop, host, line, get, attempts } = await setUp(() => {
    if (away) throw new DrError('unreachable', 'no vault answers');
  });
  const waits = line('no vault answers');
  const works = line('job done');
  const running = host();
  await waits;
  const ready = await get('/ready');
  expect([ready.status, await ready.json()]).toMatchObject([503, { dependencies: [{ detail: 'no vault answers' }] }]);
  expect((await get('/health')).status).toBe(200);
  expect((await get('/startup')).status).toBe(200);
  expect(await (await get('/metrics')).text()).toContain('dr_build_info{version="1.2.3"} 1');
  away = false;
  await works;
  expect(attempts()).toBeGreaterThan(1);
  expect((await readActiveSite(world.stores)).active).toMatchObject({ site: 'east', generation: 1 });
  await expect.poll(async () => (await get('/ready')).status).toBe(200);
  stop.abort();
  await running;
  await world.pool.close();
});

test('told to stop while it waits for a vault, it ends', async () => {
  const { world, stop, host, line } = await setUp(() => {
    throw new DrError('unreachable', 'no vault answers');
  });
  const waits = line('no vault answers');
  const running = host();
  await waits;
  stop.abort();
  await running;
  await world.pool.close();
});

test('a start that cannot succeed by waiting fails at once', async () => {
  const { world, host } = await setUp(() => {
    throw new DrError('refused', 'the store ignores create-only writes');
  });
  await expect(host()).rejects.toMatchObject({ kind: 'refused' });
  await world.pool.close();
});
