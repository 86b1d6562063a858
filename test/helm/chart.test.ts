import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { jobObject } from '../../src/cluster/job-object.ts';
import { isJson } from '../../src/cluster/json.ts';
import { loadConfig } from '../../src/config/load.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { chart, environments, needed, one, type Rendered, type RenderOptions, render } from '../harness/helm/render.ts';
import { tempDir } from '../harness/temp.ts';
import { podFaults } from './pod-security.ts';
import { schemaFaults } from './schema.ts';

const [helm, ...otherHelms] = helmPrograms();

/** Everything that can be turned on. */
const everything = {
  role: 'recovery',
  replicas: 2,
  runbooks: { 'failover.yaml': 'name: failover\n' },
  secrets: {
    env: ['dr-env', 'dr-more'],
    identity: { secret: 'dr-identity' },
    passphrase: { secret: 'dr-passphrase' },
    kubeconfigs: { west: { secret: 'dr-west-cluster' } },
  },
  restoreJobs: { namespaces: ['shop'] },
  externalSecrets: {
    enabled: true,
    store: { name: 'vault' },
    secrets: [{ name: 'dr-env', data: { ORDERS_DATABASE_URL: { key: 'prod/dr', property: 'ordersUrl' } } }],
  },
  imagePullSecrets: ['registry'],
  rights: {
    configuration: true,
    configurationSecrets: true,
    customGroups: ['*'],
    executor: true,
    snapshots: true,
    leader: true,
    restoreConfiguration: true,
    restoreSecrets: true,
    routes: true,
    namespaces: ['shop', 'backup'],
  },
  remote: { enabled: true, token: true, routes: true, restoreConfiguration: true, restoreSecrets: true },
  volumes: [{ name: 'uploads', claim: 'shop-uploads', path: '/srv/uploads', readOnly: true }],
  env: [{ name: 'AWS_REGION', value: 'eu-west-1' }],
  supplementalGroups: [33],
  nodeSelector: { 'kubernetes.io/os': 'linux' },
  tolerations: [{ key: 'backup', operator: 'Exists', effect: 'NoSchedule' }],
  affinity: { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } },
  priorityClassName: 'high',
  podAnnotations: { team: 'platform' },
  podLabels: { team: 'platform' },
  scratch: { storageClass: 'fast' },
  networkPolicy: {
    https: { cidrs: ['0.0.0.0/0', '::/0', '10.0.0.0/8'], except: ['169.254.0.0/16', 'fd00:ec2::/32'] },
    databases: { cidrs: ['10.20.0.0/16'], namespaces: [{ 'kubernetes.io/metadata.name': 'shop' }] },
    nameServers: { cidrs: ['0.0.0.0/0'] },
    metadata: { cidrs: ['169.254.170.23/32'] },
    extraEgress: [{ to: [{ ipBlock: { cidr: '10.9.0.0/16' } }], ports: [{ port: 25, protocol: 'TCP' }] }],
  },
  serviceMonitor: { enabled: true, labels: { release: 'prometheus' } },
  prometheusRule: { enabled: true },
  dashboard: { enabled: true },
};

/** Nothing that can be turned off. */
const bareBones = { networkPolicy: { enabled: false }, podDisruptionBudget: { enabled: false } };

const variants: ReadonlyArray<readonly [name: string, options: RenderOptions]> = [
  ...environments.map((environment) => [environment, { environment }] as const),
  ['the values as they come', {}],
  ['everything on', { values: everything }],
  ['everything off', { values: bareBones }],
  ['an account of others', { values: { serviceAccount: { create: false, name: 'theirs', automountToken: false } } }],
  ['another name', { release: 'shop-production', namespace: 'shop' }],
  ['a very long name', { release: `a${'b'.repeat(52)}` }],
];

const podsOf = ({ objects }: Rendered): Array<Readonly<Record<string, unknown>>> =>
  objects.flatMap((object) => {
    const { spec, kind } = object;
    if (!isJson(spec)) return [];
    if (kind === 'Pod') return [spec];
    const { template } = spec;
    return isJson(template) && isJson(template['spec']) ? [template['spec']] : [];
  });

/** The spec of the daemon's pod. */
function daemonOf(rendered: Rendered): Readonly<Record<string, unknown>> {
  const [pod] = podsOf(rendered);
  if (!pod) throw new Error('there is no pod');
  return pod;
}

const specOf = (object: ClusterObject) => object['spec'] as Record<string, unknown>;

describe.skipIf(helm === undefined)('the chart: needs Helm (Linux on x64, or on the PATH)', () => {
  if (helm === undefined) return;

  describe.each(variants)('%s', (_name, options) => {
    const rendered = render(helm, options);

    test('every object is what its schema says', async () => {
      const { objects } = await rendered;
      expect(objects.length).toBeGreaterThan(4);
      expect(objects.flatMap(schemaFaults)).toEqual([]);
    });

    test('every pod keeps Pod Security "restricted"', async () => {
      const pods = podsOf(await rendered);
      expect(pods).toHaveLength(2);
      expect(pods.flatMap(podFaults)).toEqual([]);
    });

    test('every object has its place and its labels, names are unique and short', async () => {
      const { objects } = await rendered;
      const { release = 'dr', namespace = 'backup' } = options;
      const clusterWide = new Set(['ClusterRole', 'ClusterRoleBinding']);
      for (const { kind, metadata } of objects) {
        const others = ['shop', namespace];
        if (clusterWide.has(kind)) expect(metadata.namespace).toBeUndefined();
        else if (kind.startsWith('Role') || metadata.name === 'dr-config') expect(others).toContain(metadata.namespace);
        else expect(metadata.namespace).toBe(namespace);
        expect(metadata.labels).toMatchObject({
          'app.kubernetes.io/name': 'dr',
          'app.kubernetes.io/instance': release,
          'app.kubernetes.io/managed-by': 'Helm',
        });
        expect(metadata.name.length).toBeLessThanOrEqual(clusterWide.has(kind) ? 253 : 63);
      }
      const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace} ${metadata.name}`);
      expect(new Set(names).size).toBe(names.length);
    });

    test('no secret is in it', async () => {
      const secrets = (await rendered).objects.filter(({ kind }) => kind === 'Secret');
      for (const secret of secrets) expect(Object.keys(secret)).not.toContain('data');
      expect(secrets.map(({ type }) => type)).toEqual(secrets.map(() => 'kubernetes.io/service-account-token'));
    });

    test('a token of the API server is mounted only where rights are used', async () => {
      const all = await rendered;
      const roles = all.objects.filter(
        ({ kind, metadata }) => kind.endsWith('Role') && !metadata.name.endsWith('-remote'),
      );
      expect(daemonOf(all)['automountServiceAccountToken']).toBe(roles.length > 0);
      for (const account of all.objects.filter(({ kind }) => kind === 'ServiceAccount'))
        expect(account['automountServiceAccountToken']).toBe(false);
    });

    test('what selects pods does not change with a version', async () => {
      const selector = specOf(one(await rendered, 'StatefulSet'))['selector'];
      expect(selector).toEqual({
        matchLabels: {
          'app.kubernetes.io/name': 'dr',
          'app.kubernetes.io/instance': options.release ?? 'dr',
          'app.kubernetes.io/component': 'daemon',
        },
      });
    });

    test('dr takes the configuration', async () => {
      const text = (
        one(await rendered, 'ConfigMap', one(await rendered, 'StatefulSet').metadata.name)['data'] as Record<
          string,
          string
        >
      )['dr.yaml'];
      const { config } = await load(text ?? '');
      expect(config.daemon.listen).toEqual({ host: '0.0.0.0', port: 8080 });
      expect(config.scratch).toBe('/var/lib/dr');
    });

    test.each(otherHelms)('Helm $version renders the same', async (other) => {
      expect((await render(other, options)).text).toBe((await rendered).text);
    });
  });

  /** As the daemon reads it. */
  async function load(text: string, edit: (text: string) => string = (same) => same) {
    const path = join(await tempDir('configuration'), 'dr.yaml');
    await writeFile(path, edit(text));
    const env = {
      DR_AGE_RECIPIENT: await identityToRecipient(await generateX25519Identity()),
      ORDERS_DATABASE_URL: 'postgresql://dr@db:5432/orders',
    };
    return await loadConfig(path, env, {});
  }

  test('the configuration gets what a pod of the site needs, and keeps what it says itself', async () => {
    const configOf = async (values: object) =>
      parse(
        (one(await render(helm, { values }), 'ConfigMap', 'dr')['data'] as Record<string, string>)['dr.yaml'] ?? '',
      ) as Record<string, Record<string, unknown>>;
    const plain = await configOf({});
    expect(plain).toMatchObject({ daemon: { listen: '0.0.0.0:8080', leader: 'never' }, scratch: '/var/lib/dr' });
    expect(plain).not.toHaveProperty('runbooks');
    expect(plain['sites']).toEqual(needed.config.sites);
    const full = await configOf(everything);
    expect(full).toMatchObject({
      runbooks: '/etc/dr/runbooks',
      sites: { east: { cluster: {} }, west: { cluster: { kubeconfig: '/etc/dr/clusters/west/kubeconfig' } } },
    });
    expect(full['daemon']).not.toHaveProperty('leader');
    const own = await configOf({
      config: { daemon: { listen: '0.0.0.0:9999', retention: 'weekly' }, scratch: '/srv/scratch' },
    });
    expect(own).toMatchObject({ daemon: { listen: '0.0.0.0:9999', retention: 'weekly' }, scratch: '/srv/scratch' });
  });

  test('Jobs that restore into volumes find the same configuration in their namespace', async () => {
    const rendered = await render(helm, { values: { restoreJobs: { namespaces: ['shop', 'billing'] } } });
    const given = rendered.objects.filter(({ metadata }) => metadata.name === 'dr-config');
    expect(given.map(({ metadata }) => metadata.namespace)).toEqual(['shop', 'billing']);
    for (const { data } of given) expect(data).toEqual(one(rendered, 'ConfigMap', 'dr')['data']);
  });

  test('runbooks of a ConfigMap, mounted as Kubernetes does it, are found', async () => {
    const failover = await readFile(join(chart, '../../runbooks/failover.yaml'), 'utf8');
    const values = { runbooks: { 'failover.yaml': failover } };
    const rendered = await render(helm, { values });
    expect(one(rendered, 'ConfigMap', 'dr-runbooks')['data']).toEqual(values.runbooks);
    const folder = await tempDir('mounted');
    await mkdir(join(folder, '..data'));
    await writeFile(join(folder, '..data', 'failover.yaml'), failover);
    await symlink('..data/failover.yaml', join(folder, 'failover.yaml'));
    const text = (one(rendered, 'ConfigMap', 'dr')['data'] as Record<string, string>)['dr.yaml'] ?? '';
    const { config } = await load(text, (same) => same.replace('/etc/dr/runbooks', folder));
    expect(config.runbooks).toBe(folder);
  });

  test('a changed configuration makes new pods', async () => {
    const annotations = async (values: object) => {
      const template = specOf(one(await render(helm, { values }), 'StatefulSet'))['template'] as { metadata: object };
      return template.metadata;
    };
    const [before, same, after] = await Promise.all([
      annotations({}),
      annotations({ logLevel: 'debug' }),
      annotations({ config: { objectives: { rpo: '10m' } } }),
    ]);
    expect(same).toEqual(before);
    expect(after).not.toEqual(before);
  });

  test('probes ask what the daemon serves, and give it time', async () => {
    const pod = daemonOf(await render(helm));
    const [container] = pod['containers'] as Array<Record<string, unknown>>;
    expect(container).toMatchObject({
      args: ['daemon'],
      startupProbe: { httpGet: { path: '/startup', port: 'http' } },
      livenessProbe: { httpGet: { path: '/health', port: 'http' } },
      readinessProbe: { httpGet: { path: '/ready', port: 'http' } },
      ports: [{ name: 'http', containerPort: 8080 }],
    });
    // 15 s for work under way and 10 s for WAL, and then some.
    expect(pod['terminationGracePeriodSeconds']).toBeGreaterThanOrEqual(30);
  });

  test('secrets are mounted for the user of the pod alone, and never writable', async () => {
    const pod = daemonOf(await render(helm, { values: everything }));
    const volumes = pod['volumes'] as Array<{ name: string; secret?: { defaultMode: number } }>;
    const secrets = volumes.filter(({ secret }) => secret);
    expect(secrets.map(({ name }) => name)).toEqual(['identity', 'passphrase', 'cluster-west']);
    for (const { secret } of secrets) expect(secret?.defaultMode).toBe(0o440);
    const [container] = pod['containers'] as Array<{ volumeMounts: Array<{ name: string; readOnly?: boolean }> }>;
    const writable = container?.volumeMounts.filter(({ readOnly }) => readOnly !== true).map(({ name }) => name);
    expect(writable).toEqual(['scratch', 'tmp']);
    expect(container).toMatchObject({
      envFrom: [{ secretRef: { name: 'dr-env' } }, { secretRef: { name: 'dr-more' } }],
    });
  });

  test('Jobs made after the pod of the daemon are as restricted, and under the same network policies', async () => {
    const rendered = await render(helm, { values: { ...everything, rights: { executor: true, leader: true } } });
    const { template } = specOf(one(rendered, 'StatefulSet')) as { template: { metadata: object; spec: object } };
    const metadata = { name: 'dr-0', namespace: 'backup', ...template.metadata };
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata, spec: template.spec } as ClusterObject;
    const job = jobObject(pod, {
      namespace: 'backup',
      name: 'dr-backup-uploads',
      labels: {},
      annotations: {},
      args: ['backup', 'uploads'],
      image: undefined,
      serviceAccount: undefined,
      env: [],
      requests: { cpu: '1' },
      limits: { memory: '1Gi' },
      nodeSelector: undefined,
      tolerations: [],
      claims: [{ claim: 'shop-uploads', path: '/srv/uploads', readOnly: true }],
      scratch: { path: '/var/lib/dr', sizeLimit: undefined },
      runAsUser: undefined,
      runAsGroup: undefined,
      ttlSeconds: 3600,
      suspended: false,
    });
    expect(schemaFaults(job)).toEqual([]);
    const made = (job['spec'] as { template: { metadata: { labels: object }; spec: Record<string, unknown> } })
      .template;
    expect(podFaults(made.spec)).toEqual([]);
    const { matchLabels } = (specOf(one(rendered, 'NetworkPolicy', 'dr'))['podSelector'] ?? {}) as {
      matchLabels: object;
    };
    expect(made.metadata.labels).toMatchObject(matchLabels);
    const daemons = specOf(one(rendered, 'Service'))['selector'] as Record<string, string>;
    expect(made.metadata.labels).not.toMatchObject(daemons);
    // The configuration and the identity come along, the daemon's own scratch does not.
    const mounts = (made.spec['containers'] as Array<{ volumeMounts: Array<{ mountPath: string }> }>)[0]?.volumeMounts;
    const places = mounts?.map(({ mountPath }) => mountPath);
    expect(places).toEqual(expect.arrayContaining(['/etc/dr/dr.yaml', '/etc/dr/identity', '/srv/uploads', '/tmp']));
  });

  test('the image is what is asked for', async () => {
    const imageOf = async (image: object) => {
      const pod = daemonOf(await render(helm, { values: { image } }));
      return (pod['containers'] as Array<{ image: string }>)[0]?.image;
    };
    const digest = `sha256:${'0123456789abcdef'.repeat(4)}`;
    const { version } = JSON.parse(await readFile(join(chart, '../../package.json'), 'utf8')) as { version: string };
    expect(await imageOf({})).toBe(`dr:${version}`);
    expect(await imageOf({ repository: 'registry.example.com/dr', tag: '1.2.3' })).toBe(
      'registry.example.com/dr:1.2.3',
    );
    expect(await imageOf({ tag: '1.2.3', digest })).toBe(`dr@${digest}`);
  });

  test('all traffic is denied but what is needed', async () => {
    const rendered = await render(helm, { values: everything });
    const pods = { matchLabels: { 'app.kubernetes.io/name': 'dr', 'app.kubernetes.io/instance': 'dr' } };
    expect(specOf(one(rendered, 'NetworkPolicy', 'dr-deny-all'))).toEqual({
      podSelector: pods,
      policyTypes: ['Ingress', 'Egress'],
    });
    const policy = specOf(one(rendered, 'NetworkPolicy', 'dr'));
    expect(policy['podSelector']).toEqual(pods);
    const egress = policy['egress'] as Array<{ to: object[]; ports: Array<{ port: number | string }> }>;
    expect(egress.every(({ to, ports }) => to.length > 0 && ports.length > 0)).toBe(true);
    expect(egress.map(({ ports }) => ports.map(({ port }) => port))).toEqual([
      [53, 53],
      ['http'],
      [443, 6443],
      [443],
      [5432],
      [53, 53],
      [80],
      [25],
    ]);
    expect(egress[3]?.to).toEqual([
      { ipBlock: { cidr: '0.0.0.0/0', except: ['169.254.0.0/16'] } },
      { ipBlock: { cidr: '::/0', except: ['fd00:ec2::/32'] } },
      { ipBlock: { cidr: '10.0.0.0/8' } },
    ]);
    const ingress = policy['ingress'] as Array<{ from: object[]; ports: object[] }>;
    expect(ingress).toHaveLength(2);
    expect(ingress[1]?.from).toEqual([
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } },
    ]);
    const few = specOf(one(await render(helm), 'NetworkPolicy', 'dr'))['egress'] as typeof egress;
    expect(few.map(({ ports }) => ports[0]?.port)).toEqual([53, 'http', 443, 5432]);
  });

  test.each([
    ['no site', { config: needed.config }, 'site is needed'],
    ['no configuration', { site: 'east' }, 'config is needed'],
    [
      'a site that is not configured',
      { ...needed, site: 'north' },
      'site "north" is not among config.sites: east, west',
    ],
    ['two that would work at once', { ...needed, replicas: 2 }, 'replicas above 1 need rights.leader'],
    [
      'Secrets by the back door',
      { ...needed, rights: { customGroups: ['*'] } },
      'set rights.configurationSecrets as well',
    ],
    ['databases out of reach', { ...needed, networkPolicy: {} }, 'networkPolicy.databases is needed'],
    [
      'a cluster of nowhere',
      { ...needed, secrets: { kubeconfigs: { north: { secret: 'x' } } } },
      'names a site "north" that config.sites does not have',
    ],
    [
      'a step that does not exist',
      { ...needed, role: 'recovery', rights: { steps: ['cluster.destroy'] } },
      'there is no step "cluster.destroy" that needs rights',
    ],
    ['no store', { ...needed, externalSecrets: { enabled: true } }, 'externalSecrets.store.name is needed'],
    ['an unknown value', { ...needed, replica: 2 }, 'replica'],
    ['a secret in the values', { ...needed, secrets: { env: { PASSWORD: 'x' } } }, 'secrets'],
    ['a wrong role', { ...needed, role: 'standby' }, 'role'],
    ['a kill that comes too soon', { ...needed, terminationGracePeriodSeconds: 5 }, 'terminationGracePeriodSeconds'],
  ])('refused: %s', async (_name, values, message) => {
    await expect(render(helm, { values, bare: true })).rejects.toThrow(message);
  });
});
