import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { redact } from '../../src/base/redact.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import type { ClusterSettings } from '../../src/cluster/settings.ts';
import { everything } from '../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { ManualClock } from '../harness/manual-clock.ts';
import { tempDir } from '../harness/temp.ts';
import { settingsFor } from './support.ts';

let server: KubernetesServer;
let folder: string;
const opened: KubernetesCluster[] = [];

beforeEach(async () => {
  server = await KubernetesServer.start();
  folder = await tempDir();
});

afterEach(async () => {
  for (const each of opened.splice(0)) each.close();
  await server[Symbol.asyncDispose]();
});

function open(settings: ClusterSettings, clock = new ManualClock()): KubernetesCluster {
  const cluster = new KubernetesCluster(settings, { log: silentLog, clock });
  opened.push(cluster);
  return cluster;
}

const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
const known = (...tokens: string[]) => {
  server.accounts.clear();
  for (const token of tokens) server.accounts.set(token, { name: 'tester', rules: everything });
};
/** A program that prints the token of a file and counts its calls in another. */
function signIn(more = ''): string {
  const program = join(folder, 'sign-in');
  const credential = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}';
  writeFileSync(
    program,
    `#!/bin/sh\necho "$1 $DR_TEST $KUBERNETES_EXEC_INFO" >> ${folder}/calls\n${more}\nprintf '${credential}' "$(cat ${folder}/token)"\n`,
  );
  chmodSync(program, 0o755);
  return program;
}

describe('a token in a file', () => {
  it('is read again after a minute, and at once when the server no longer takes it', async () => {
    const tokenFile = join(folder, 'token');
    writeFileSync(tokenFile, 'first-token\n');
    known('first-token');
    const clock = new ManualClock();
    const cluster = open(settingsFor(server, { tokenFile }), clock);
    await cluster.version();
    // Both are good for a while, as with the tokens of a service account: the new one is taken after a minute.
    writeFileSync(tokenFile, 'second-token');
    known('first-token', 'second-token');
    await cluster.version();
    clock.jump(61_000);
    known('second-token');
    const before = server.calls.length;
    await cluster.version();
    expect(server.calls.length).toBe(before + 1);
    // Revoked before the minute was over: one refusal, and the new one is read.
    writeFileSync(tokenFile, 'third-token');
    known('third-token');
    expect((await cluster.version()).major).toBe(1);
    expect(redact('first-token third-token')).toBe('*** ***');
  });

  it('that has expired is told as such, without its content', async () => {
    const tokenFile = join(folder, 'token');
    writeFileSync(tokenFile, 'expired-token');
    known('another-token');
    const error = await failure(open(settingsFor(server, { tokenFile })).version());
    expect(error).toMatchObject({ kind: 'denied', retryable: false, next: expect.stringContaining('expired') });
    expect(String(error)).not.toContain('expired-token');
  });

  it('that is gone is named', async () => {
    const tokenFile = join(folder, 'none');
    const error = await failure(open(settingsFor(server, { tokenFile })).version());
    expect(error).toMatchObject({ kind: 'not-found', where: tokenFile });
  });
});

describe('a program that signs in', () => {
  it('is run once, told what client-go would tell it, and run again when its token is refused', async () => {
    writeFileSync(join(folder, 'token'), 'first-of-program');
    known('first-of-program');
    const env = [{ name: 'DR_TEST', value: 'seen' }];
    const exec = {
      apiVersion: 'client.authentication.k8s.io/v1',
      command: signIn(),
      args: ['get-token'],
      env,
      provideClusterInfo: true,
    };
    const cluster = open(settingsFor(server, { exec }));
    await cluster.version();
    await cluster.version();
    const calls = () => readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n');
    expect(calls()).toHaveLength(1);
    expect(calls()[0]).toMatch(
      /^get-token seen \{"apiVersion":"client.authentication.k8s.io\/v1","kind":"ExecCredential"/,
    );
    expect(calls()[0]).toContain(server.url);
    writeFileSync(join(folder, 'token'), 'second-of-program');
    known('second-of-program');
    await cluster.version();
    expect(calls()).toHaveLength(2);
    expect(redact('second-of-program')).toBe('***');
  });

  it('and fails, is told in its words', async () => {
    const exec = { command: signIn('echo "the session has ended" >&2; exit 1') };
    const error = await failure(open(settingsFor(server, { exec })).version());
    expect(error).toMatchObject({
      kind: 'denied',
      message: expect.stringContaining('the session has ended'),
      where: expect.stringContaining('sign-in'),
    });
  });
});

it('a name and password, and another user to act as, go with each request', async () => {
  await server[Symbol.asyncDispose]();
  const seen: http.IncomingHttpHeaders[] = [];
  const echo = http.createServer((request, response) => {
    seen.push(request.headers);
    response.end('{"major":"1","minor":"32","gitVersion":"v1.32.0"}');
  });
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(echo.address() as AddressInfo).port}`;
  const user = { name: 'tester', basic: { user: 'admin', password: 'swordfish' }, impersonate: 'auditor' };
  await open({ server: url, origin: 'test', insecure: false, user }).version();
  expect(seen[0]).toMatchObject({
    authorization: `Basic ${btoa('admin:swordfish')}`,
    'impersonate-user': 'auditor',
    'user-agent': 'dr',
  });
  echo.close();
});

describe('client-node', () => {
  it('signs in by OpenID Connect', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const token = `${part({ alg: 'none' })}.${part({ exp: 4_000_000_000 })}.signature`;
    known(token);
    const provider = {
      name: 'oidc',
      config: { 'id-token': token, 'client-id': 'dr', 'idp-issuer-url': 'https://nowhere.example.com' },
    };
    expect((await open(settingsFor(server, { 'auth-provider': provider })).version()).major).toBe(1);
  });

  it('goes by a proxy', async () => {
    await using far = await KubernetesServer.start({ tls: true });
    const asked: string[] = [];
    const proxy = http.createServer();
    proxy.on('connect', (request, socket) => {
      asked.push(String(request.url));
      const [host, port] = String(request.url).split(':');
      const onward = net.connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        onward.pipe(socket).pipe(onward);
      });
      onward.on('error', () => socket.destroy());
      socket.on('error', () => onward.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const settings = settingsFor(far);
    const cluster = open({ ...settings, proxy: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` });
    expect((await cluster.version()).git).toBe('v1.32.3-test');
    expect(asked).toEqual([`127.0.0.1:${far.port}`]);
    cluster.close();
    proxy.close();
    proxy.closeAllConnections();
  });
});
