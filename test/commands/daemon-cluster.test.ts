import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { type RightsFeature, rights } from '../../src/cluster/rights.ts';
import { daemonClusterAreas, daemonClusterParts } from '../../src/commands/daemon-cluster.ts';
import { openLooks } from '../../src/commands/doctor-looks.ts';
import { parseConfig } from '../../src/config/load.ts';
import { exampleText, recipient } from '../config/example.ts';
import { memoryLog } from '../daemon/support.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { tempDir } from '../harness/temp.ts';

let server: KubernetesServer;
let folder: string;
beforeEach(async () => {
  server = await KubernetesServer.start();
  server.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  folder = await tempDir('daemon-cluster');
});
afterEach(async () => await server[Symbol.asyncDispose]());

/** What a daemon at `east` gets of its cluster, as an account with these rights. */
async function parts(features: readonly RightsFeature[], cluster: string, more = '', pod = true) {
  const rules = features.flatMap((feature) =>
    feature === 'steps' ? [] : rights[feature].map((rule) => ({ ...rule, namespace: 'dr' })),
  );
  server.accounts.set('token', { name: 'dr', rules });
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig('token'));
  const text = `${exampleText(await recipient()).replace('vault: east }', `vault: east${cluster} }`)}\n${more}`;
  const { config } = parseConfig(text, '/dr.yaml', { ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders' });
  const { log, lines } = memoryLog();
  const env = { KUBECONFIG: kubeconfig, ...(pod && { DR_POD_NAME: 'dr-0', DR_POD_NAMESPACE: 'dr' }) };
  const made = await daemonClusterParts(config, 'east', { env, log, clock: systemClock });
  made.close();
  return { ...made, lines };
}

const here = ', cluster: {}';

test('in a pod whose account may write Leases, the replica that holds the Lease works; without that right there is only one', async () => {
  const led = await parts(['leader'], here);
  expect(led.replicas?.lease.identity).toMatch(/^dr-0_[0-9a-f]{8}$/);
  expect(led.replicas?.lease.title).toContain('Lease dr/dr-east');
  const alone = await parts([], here);
  expect(alone.replicas).toBeUndefined();
  expect(alone.lines.map(({ sentence }) => sentence).join()).toContain('works as the only one');
});

test('a pod without a token of the API server works as the only one; Jobs cannot do without', async () => {
  const text = exampleText(await recipient()).replace('vault: east }', 'vault: east, cluster: {} }');
  const env = { DR_POD_NAME: 'dr-0', DR_POD_NAMESPACE: 'dr', HOME: folder };
  const of = (more: string) => {
    const { config } = parseConfig(`${text}\n${more}`, '/dr.yaml', {
      ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders',
    });
    return daemonClusterParts(config, 'east', { env, log: memoryLog().log, clock: systemClock });
  };
  expect(await of('')).toEqual({ close: expect.anything() });
  await expect(of('executor: { kubernetes: {} }')).rejects.toMatchObject({ kind: 'config' });
});

test('an API server that does not answer leaves nobody working twice', async () => {
  server.faults.always('*', { kind: 'status', code: 403 });
  expect((await parts(['leader'], here)).replicas).toBeDefined();
});

test('the doctor names each right that the leader and Jobs lack, with the rule that gives it', async () => {
  const areas = async (features: readonly RightsFeature[]) => {
    const rules = features.flatMap((feature) =>
      feature === 'steps' ? [] : rights[feature].map((rule) => ({ ...rule, namespace: 'dr' })),
    );
    server.accounts.set('token', { name: 'dr', rules });
    const kubeconfig = join(folder, 'kubeconfig');
    writeFileSync(kubeconfig, server.kubeconfig('token'));
    const text = exampleText(await recipient()).replace('vault: east }', 'vault: east, cluster: {} }');
    const more = 'executor: { kubernetes: { namespace: dr } }\ndaemon: { leader: { namespace: dr } }';
    const { config } = parseConfig(`${text}\n${more}`, '/dr.yaml', {
      ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders',
    });
    const context = {
      env: { KUBECONFIG: kubeconfig },
      log: memoryLog().log,
      clock: systemClock,
      signal: new AbortController().signal,
    };
    const found = await Promise.all(daemonClusterAreas(config, 'east', context, openLooks(context).look));
    return found.flatMap(({ findings }) => findings);
  };
  expect(await areas(['executor', 'leader'])).toEqual([
    { verdict: 'ok', what: 'Jobs: every right in the namespace dr' },
    { verdict: 'ok', what: 'the Lease of the replicas: every right in the namespace dr' },
  ]);
  const lacking = (await areas(['executor'])).filter(({ verdict }) => verdict === 'fail');
  expect(lacking).toMatchObject([
    {
      what: 'the Lease of the replicas: dr may not get, create, patch leases',
      next: expect.stringContaining('resources: ["leases"]'),
    },
  ]);
  expect((await areas([])).filter(({ verdict }) => verdict === 'fail')).toHaveLength(4);
});

test('nothing of a cluster is asked where none is named, in no pod, or by "never"', async () => {
  expect((await parts(['leader'], '')).replicas).toBeUndefined();
  expect((await parts(['leader'], here, '', false)).replicas).toBeUndefined();
  const { replicas, executor } = await parts(['leader'], here, 'daemon: { leader: never }');
  expect([replicas, executor]).toEqual([undefined, undefined]);
  expect(server.calls).toEqual([]);
});

test('a Lease and Jobs that are asked for outside of a pod are refused with what is missing', async () => {
  const named = await parts(
    ['leader'],
    here,
    'daemon: { leader: { namespace: ops, name: of-east, duration: 20s } }',
    false,
  );
  expect(named.replicas?.lease).toMatchObject({
    durationMs: 20_000,
    title: expect.stringContaining('Lease ops/of-east'),
  });
  await expect(parts(['executor'], here, 'executor: { kubernetes: {} }', false)).rejects.toMatchObject({
    kind: 'config',
    message: expect.stringContaining('runs in no pod'),
  });
  expect((await parts(['executor'], here, 'executor: { kubernetes: {} }')).executor).toBeDefined();
});
