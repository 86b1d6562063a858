import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { networkProbes as probes } from '../../src/steps/probes.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';

const signal = new AbortController().signal;
let server: TestPostgres;

beforeAll(async () => {
  server = await startPostgres({ version: 17, password: 'sesame-open' });
});
afterAll(() => server.stop());

describe('a look at a database', () => {
  it('sees a primary, and that it does not refuse a write', async () => {
    expect(await probes.database(server.url, signal)).toMatchObject({
      reach: 'connected',
      session: true,
      inRecovery: false,
    });
    await server.sql('create table kept (n int)');
    const before = await server.sql('select count(*) from pg_class');
    expect(await probes.refusesWrites(server.url, signal)).toEqual({
      proof: false,
      detail: 'it accepted a write, which was rolled back',
    });
    expect(await server.sql('select count(*) from pg_class')).toEqual(before);
  });

  it('does not take a default of read-only for a fence', async () => {
    await server.sql('alter system set default_transaction_read_only = on');
    await server.sql('select pg_reload_conf()');
    try {
      expect((await probes.refusesWrites(server.url, signal)).proof).toBe(false);
    } finally {
      await server.sql('alter system reset default_transaction_read_only').catch(async () => {
        await server.sql('set default_transaction_read_only = off; alter system reset default_transaction_read_only');
      });
      await server.sql('select pg_reload_conf()');
    }
  });

  it('takes a wrong password for a server that lives, and tells no secret', async () => {
    const probe = await probes.database(server.url.replace('sesame-open', 'wrong-password'), signal);
    expect(probe).toMatchObject({ reach: 'connected', session: false });
    expect(probe.detail).toContain('refuses the session');
    expect(JSON.stringify(probe)).not.toContain('wrong-password');
    expect((await probes.refusesWrites(server.url.replace('sesame-open', 'wrong-password'), signal)).proof).toBe(false);
  });

  it('sees a standby refuse a write', async () => {
    await server.stop();
    const { writeFile } = await import('node:fs/promises');
    const { chown, stat } = await import('node:fs/promises');
    const file = `${server.dataDirectory}/standby.signal`;
    const { uid, gid } = await stat(server.dataDirectory);
    await writeFile(file, '');
    await chown(file, uid, gid);
    await server.start();
    expect(await probes.database(server.url, signal)).toMatchObject({ session: true, inRecovery: true });
    const { proof, detail } = await probes.refusesWrites(server.url, signal);
    expect(proof).toBe(true);
    expect(detail).toMatch(/cannot .* (recovery|read-only)/);
  });

  it('sees that nothing listens', async () => {
    await server.kill9();
    expect(await probes.database(server.url, signal)).toMatchObject({
      reach: 'refused',
      session: false,
      detail: 'nothing listens there',
    });
  });
});

describe('a look at a socket', () => {
  it('tells connected from refused', async () => {
    const listener = createTcpServer();
    const port = await listening(listener);
    expect((await probes.tcp('127.0.0.1', port, signal)).reach).toBe('connected');
    await new Promise((resolve) => listener.close(resolve));
    expect((await probes.tcp('127.0.0.1', port, signal)).reach).toBe('refused');
  });

  it('ends at once when the run is stopped', async () => {
    const stop = new AbortController();
    const look = probes.tcp('192.0.2.1', 9, stop.signal);
    stop.abort(new Error('stopped'));
    await expect(look).rejects.toThrow('stopped');
  });
});

describe('a look over HTTP', () => {
  it('gives status and the beginning of the body, follows no redirect, and survives a server that hangs up', async () => {
    const web = createServer((request, response) => {
      if (request.url === '/moved') response.writeHead(302, { location: '/' }).end();
      else if (request.url === '/broken') request.socket.destroy();
      else response.writeHead(request.url === '/down' ? 503 : 200).end('x'.repeat(100_000));
    });
    const base = `http://127.0.0.1:${await listening(web)}`;
    const good = await probes.http(`${base}/`, signal);
    expect([good.status, good.body.length]).toEqual([200, 65_536]);
    expect((await probes.http(`${base}/down`, signal)).status).toBe(503);
    expect((await probes.http(`${base}/moved`, signal)).status).toBe(302);
    expect((await probes.http(`${base}/broken`, signal)).status).toBeUndefined();
    web.closeAllConnections();
    await new Promise((resolve) => web.close(resolve));
    expect(await probes.http(`${base}/`, signal)).toMatchObject({ status: undefined, detail: 'nothing listens there' });
  });
});

async function listening(server: import('node:net').Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
