import { chmodSync, chownSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import {
  adoptServer,
  configuredSettings,
  type StartServerOptions,
  startServer,
} from '../../src/postgres/server-process.ts';
import { queryOnce } from '../../src/postgres/server-process-sql.ts';
import { handOver, resolveServerUser } from '../../src/postgres/server-process-user.ts';
import { serverUser } from '../harness/npm-postgres.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';

let stopped: TestPostgres;
beforeEach(async () => {
  stopped = await startPostgres({ version: 17 });
  await stopped.stop();
});

async function options(settings: Record<string, string> = {}): Promise<StartServerOptions> {
  const { bin, dataDirectory, socketDirectory } = stopped;
  const user = await resolveServerUser(undefined, dataDirectory);
  const given = { listen_addresses: '', port: '5432', unix_socket_directories: socketDirectory, ...settings };
  return { bin, dataDirectory, user, settings: given, logFile: join(dataDirectory, 'log', 'dr.log') };
}

test('a server starts on its socket only, is found again by its data directory, and stops', async () => {
  const server = await startServer(await options());
  expect(await server.waitReady(['nobody_here', 'postgres'])).toBe('postgres');
  expect(await queryOnce(server.url('postgres'), 'show listen_addresses')).toEqual([{ listen_addresses: '' }]);
  const found = await adoptServer(stopped.dataDirectory, server.log.path);
  expect(found).toMatchObject({ pid: server.pid, port: 5432, socketDirectory: stopped.socketDirectory });
  expect(found?.running()).toBe(true);
  await found?.stop();
  expect(server.running()).toBe(false);
  expect(await adoptServer(stopped.dataDirectory, server.log.path)).toBeUndefined();
});

test('a postmaster.pid whose number now belongs to another program is no server', async () => {
  const path = join(stopped.dataDirectory, 'postmaster.pid');
  writeFileSync(path, [process.pid, stopped.dataDirectory, 1, 5432, '/tmp', '', ' 1 1', 'ready'].join('\n'));
  expect(await adoptServer(stopped.dataDirectory, 'x')).toBeUndefined();
});

test('a server that cannot start says why in its own words', async () => {
  writeFileSync(join(stopped.dataDirectory, 'postgresql.auto.conf'), "shared_preload_libraries = 'nothing_like_it'\n");
  const server = await startServer(await options());
  await expect(server.waitReady(['postgres'])).rejects.toMatchObject({
    kind: 'local',
    message: expect.stringContaining('could not access file "nothing_like_it"'),
    where: stopped.dataDirectory,
  });
});

test('roles that do not exist are an error that names them', async () => {
  const server = await startServer(await options());
  await expect(server.waitReady(['alice', 'bob'])).rejects.toMatchObject({
    kind: 'denied',
    message: expect.stringContaining('alice, bob'),
  });
  await server.stop('immediate');
});

test('settings are read from the files as PostgreSQL reads them, and a broken file is an error', async () => {
  const given = await options({ work_mem: '7MB' });
  expect(await configuredSettings(given, ['work_mem', 'shared_buffers'])).toEqual({
    work_mem: '7168',
    shared_buffers: '4096',
  });
  writeFileSync(join(stopped.dataDirectory, 'postgresql.auto.conf'), 'nonsense = = \n');
  await expect(configuredSettings(given, ['work_mem'])).rejects.toMatchObject({
    kind: 'local',
    message: expect.stringMatching(/cannot read the configuration.*auto\.conf/),
  });
});

test('an unknown user is an error of the configuration', async () => {
  const resolved = resolveServerUser('no-such-user-here', stopped.dataDirectory);
  if (serverUser === undefined) expect(await resolved).toBeUndefined();
  else
    await expect(resolved).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringContaining('no-such-user-here'),
    });
});

test.skipIf(serverUser === undefined)(
  'as root, files get the owner of the data directory, and a closed parent is an error',
  async () => {
    const { dataDirectory } = stopped;
    const version = join(dataDirectory, 'PG_VERSION');
    chownSync(version, 0, 0);
    const user = await resolveServerUser(undefined, dataDirectory);
    await handOver(dataDirectory, user);
    expect(statSync(version).uid).toBe(serverUser?.uid);
    expect(readFileSync(version, 'utf8')).toBe('17\n');
    const closed = await tempDir();
    chmodSync(closed, 0o700);
    await expect(handOver(join(closed, 'data'), user)).rejects.toMatchObject({
      kind: 'local',
      next: expect.stringContaining(`chmod o+x ${closed}`),
    });
  },
);
