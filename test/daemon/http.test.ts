import { afterEach, expect, test } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { type HttpOptions, type HttpServer, serveHttp } from '../../src/daemon/http.ts';
import { readinessOf } from '../../src/daemon/readiness.ts';
import type { RoleState } from '../../src/daemon/role.ts';

const servers: HttpServer[] = [];
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function serve(options: Partial<HttpOptions> = {}): Promise<HttpServer> {
  const server = await serveHttp({
    listen: { host: '127.0.0.1', port: 0 },
    log: silentLog,
    health: () => ({ ok: true, detail: 'working' }),
    started: () => true,
    ready: () => ({ ready: true, role: 'active', dependencies: [] }),
    state: () => ({ site: 'east' }),
    metrics: async () => ({ contentType: 'text/plain; version=0.0.4', text: 'dr_build_info 1\n' }),
    ...options,
  });
  servers.push(server);
  return server;
}

test('probes say yes with 200 and no with 503, and say why', async () => {
  const yes = await serve();
  for (const path of ['/health', '/startup', '/ready', '/ready?verbose', '/state', '/metrics']) {
    expect((await fetch(yes.url + path)).status, path).toBe(200);
  }
  const no = await serve({
    health: () => ({ ok: false, detail: 'hangs' }),
    started: () => false,
    ready: () => ({ ready: false, role: 'unknown', dependencies: [] }),
  });
  for (const path of ['/health', '/startup', '/ready']) expect((await fetch(no.url + path)).status, path).toBe(503);
  expect(await (await fetch(`${no.url}/health`)).json()).toEqual({ ok: false, detail: 'hangs' });
});

test('only reading is possible, other paths are named, and a failure inside is an answer too', async () => {
  const { url } = await serve({ metrics: () => Promise.reject(new Error('no numbers')) });
  expect((await fetch(`${url}/ready`, { method: 'POST' })).status).toBe(405);
  const missing = await fetch(`${url}/metricz`);
  expect([missing.status, await missing.text()]).toMatchObject([404, expect.stringContaining('/metrics')]);
  const failed = await fetch(`${url}/metrics`);
  expect([failed.status, await failed.json()]).toEqual([500, { error: 'no numbers' }]);
});

test('a port in use is an error that says what to do', async () => {
  const { url } = await serve();
  const port = Number(new URL(url).port);
  await expect(serve({ listen: { host: '127.0.0.1', port } })).rejects.toMatchObject({
    kind: 'local',
    where: `127.0.0.1:${port}`,
    next: expect.stringContaining('daemon.listen'),
  });
});

const active: RoleState = {
  role: 'active',
  active: { site: 'east', since: '2026-01-01T00:00:00.000Z', generation: 1 },
  askedMs: 0,
  error: undefined,
};
const vault = (name: string, up: boolean | undefined) => ({
  vault: name,
  up,
  sinceMs: 0,
  error: up === false ? new Error(`vault ${name} does not answer`) : undefined,
});

test('ready: one vault is enough, the role must be known, WAL must flow at the active site, and stopping is not ready', () => {
  const base = { vaults: [vault('east', true), vault('west', false)], role: active, archivers: [], services: [] };
  const ready = readinessOf({ ...base, stopping: false });
  expect(ready.ready).toBe(true);
  expect(ready.dependencies.find(({ name }) => name === 'vault west')).toMatchObject({
    ok: false,
    needed: false,
    detail: 'vault west does not answer',
  });
  const none = [vault('east', false), vault('west', undefined)];
  expect(readinessOf({ ...base, vaults: none, stopping: false }).ready).toBe(false);
  const unknown: RoleState = { ...active, role: 'unknown', active: undefined };
  expect(readinessOf({ ...base, role: unknown, stopping: false }).ready).toBe(false);
  expect(readinessOf({ ...base, stopping: true }).ready).toBe(false);
  const archivers = [{ resource: 'orders', status: () => undefined }];
  expect(readinessOf({ ...base, archivers, stopping: false })).toMatchObject({
    ready: false,
    dependencies: expect.arrayContaining([expect.objectContaining({ name: 'wal orders', ok: false })]),
  });
});
