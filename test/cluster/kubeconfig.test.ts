import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { redact } from '../../src/base/redact.ts';
import { loadSettings } from '../../src/cluster/kubeconfig.ts';
import { tempDir } from '../harness/temp.ts';

const failure = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
};

const entry = (name: string, server = `https://${name}:6443`, user: object = { token: `token-of-${name}` }) => ({
  clusters: [{ name, cluster: { server } }],
  users: [{ name, user }],
  contexts: [{ name, context: { cluster: name, user: name } }],
  'current-context': name,
});

describe('a kubeconfig', () => {
  it('is found by the configuration, KUBECONFIG, the home folder and the service account, in this order', async () => {
    const folder = await tempDir();
    const write = (name: string, content: object) => {
      writeFileSync(join(folder, name), JSON.stringify(content));
      return join(folder, name);
    };
    const given = write('given', entry('given'));
    const [a, b] = [
      write('a', entry('a')),
      write('b', { ...entry('b'), users: [{ name: 'a', user: { token: 'later' } }, ...entry('b').users] }),
    ];
    mkdirSync(join(folder, '.kube'));
    write('.kube/config', entry('home'));
    write('token', {});
    const pod = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
    const env = { ...pod, HOME: folder, KUBECONFIG: `${a}:${join(folder, 'none')}:${b}` };
    const accountFolder = folder;
    expect(loadSettings({ kubeconfig: given, env }).server).toBe('https://given:6443');
    expect(loadSettings({ env })).toMatchObject({ server: 'https://a:6443', user: { token: 'token-of-a' } });
    expect(loadSettings({ env, context: 'b' })).toMatchObject({ origin: 'context b', user: { token: 'token-of-b' } });
    expect(loadSettings({ env: { ...env, KUBECONFIG: '' } }).server).toBe('https://home:6443');
    expect(loadSettings({ env: pod, accountFolder })).toEqual({
      server: 'https://[fd00::1]:443',
      origin: 'service account of the pod',
      caFile: join(folder, 'ca.crt'),
      insecure: false,
      user: { name: 'service account', tokenFile: join(folder, 'token') },
    });
    expect(failure(() => loadSettings({ env: {}, accountFolder }))).toMatchObject({
      kind: 'config',
      next: expect.stringContaining('KUBECONFIG'),
    });
    expect(redact('token-of-a')).toBe('***');
  });

  it('names its files and programs from where it lies', async () => {
    const folder = await tempDir();
    const path = join(folder, 'config');
    const user = { tokenFile: 'token', 'client-certificate': '/etc/cert', exec: { command: './sign-in', args: ['x'] } };
    const content = entry('east', 'https://east/', user);
    writeFileSync(
      path,
      JSON.stringify({
        ...content,
        clusters: [{ name: 'east', cluster: { server: 'https://east/', 'certificate-authority': 'ca.crt' } }],
      }),
    );
    expect(loadSettings({ kubeconfig: path, env: {} })).toMatchObject({
      server: 'https://east',
      caFile: join(folder, 'ca.crt'),
      user: {
        tokenFile: join(folder, 'token'),
        certFile: '/etc/cert',
        exec: { command: join(folder, 'sign-in'), args: ['x'] },
      },
    });
  });

  it.each([
    ['no file', undefined, 'not-found', /no such file/],
    ['no YAML', 'users: [{ name: a, user: { token: never-told-token\n]', 'config', /no YAML/],
    [
      'no server',
      JSON.stringify({ ...entry('a'), clusters: [{ name: 'a', cluster: {} }] }),
      'config',
      /clusters.0.cluster.server/,
    ],
    ['no such user', JSON.stringify({ ...entry('a'), users: [] }), 'config', /no user "a"/],
    ['no current context', JSON.stringify({ ...entry('a'), 'current-context': '' }), 'config', /no current-context/],
    ['a token over plain http', JSON.stringify(entry('a', 'http://a:8080')), 'config', /plain http/],
  ])('with %s is refused, and its lines are not told', async (_, content, kind, message) => {
    const folder = await tempDir();
    const kubeconfig = join(folder, 'config');
    if (content !== undefined) writeFileSync(kubeconfig, content);
    const error = failure(() => loadSettings({ kubeconfig, env: {} }));
    expect(error).toMatchObject({
      kind,
      where: expect.stringContaining(kubeconfig),
      message: expect.stringMatching(message),
    });
    expect(String(error)).not.toContain('token');
  });

  it('of a proxy on this machine may go by plain http', async () => {
    const folder = await tempDir();
    const kubeconfig = join(folder, 'config');
    writeFileSync(kubeconfig, JSON.stringify(entry('a', 'http://127.0.0.1:8001', {})));
    expect(loadSettings({ kubeconfig, env: {} }).server).toBe('http://127.0.0.1:8001');
  });
});
