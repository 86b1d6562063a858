import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { stepRights } from '../../src/cluster/rights.ts';
import { verbs } from '../../src/commands/verbs.ts';
import { loadConfig } from '../../src/config/load.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { chart, one, render } from '../harness/helm/render.ts';
import { tempDir } from '../harness/temp.ts';
import { podFaults } from './pod-security.ts';
import { schemaFaults } from './schema.ts';

const document = await readFile(join(chart, '../../docs/kubernetes.md'), 'utf8');
const blocks = new Map(
  [...document.matchAll(/<!-- (values|manifest): (.+) -->\n```yaml\n([\s\S]*?)```/g)].map(
    ([, , name = '', text = '']) => [name, text],
  ),
);
const block = (name: string) => blocks.get(name) ?? expect.fail(`docs/kubernetes.md has no ${name}`);

const [helm] = helmPrograms();

describe.skipIf(helm === undefined)('docs/kubernetes.md: needs Helm (Linux on x64, or on the PATH)', () => {
  if (helm === undefined) return;
  const site = async (name: 'east' | 'west') => {
    const environment = `production-${name}` as const;
    return await render(helm, { environment, layers: [block('common.yaml'), block(`${name}.yaml`)], namespace: 'dr' });
  };

  test.each(['east', 'west'] as const)('its values install at %s', async (name) => {
    const rendered = await site(name);
    expect(rendered.objects.flatMap(schemaFaults)).toEqual([]);
    const { template } = one(rendered, 'StatefulSet')['spec'] as { template: { spec: Record<string, unknown> } };
    expect(podFaults(template.spec)).toEqual([]);
    const path = join(await tempDir('configuration'), 'dr.yaml');
    await writeFile(path, (one(rendered, 'ConfigMap', 'dr')['data'] as Record<string, string>)['dr.yaml'] ?? '');
    const key = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';
    const url = 'postgresql://dr@orders-db.shop/orders';
    const env = {
      DR_AGE_RECIPIENT: key,
      DR_SAFE_RECIPIENT: key,
      ORDERS_DATABASE_URL: url,
      ORDERS_DATABASE_URL_WEST: url,
    };
    const { config } = await loadConfig(path, env, {});
    expect(config.sites[name]?.cluster).toEqual({});
    if (name === 'west') expect(config.sites['east']?.cluster?.kubeconfig).toBe('/etc/dr/clusters/east/kubeconfig');
  });

  test('east changes nothing in its cluster by itself, and lets the other site fence it', async () => {
    const rendered = await site('east');
    const names = (kind: string) =>
      rendered.objects
        .filter((each) => each.kind === kind)
        .map(({ metadata }) => `${metadata.namespace ?? '-'} ${metadata.name}`);
    expect(names('Role').sort()).toEqual(['dr dr', 'shop dr-remote']);
    expect((await site('west')).objects.some(({ metadata }) => metadata.name.endsWith('-remote'))).toBe(false);
  });
});

test('every step, command and file that it names exists', async () => {
  for (const name of ['east.yaml', 'west.yaml']) {
    const values = parse(block(name)) as { rights?: { steps: string[] }; remote?: { steps: string[] } };
    for (const step of [...(values.rights?.steps ?? []), ...(values.remote?.steps ?? [])])
      expect(Object.keys(stepRights)).toContain(step);
  }
  const known = new Set(verbs.map(({ name }) => name));
  const said = [...document.matchAll(/-- dr ([a-z]+)|`dr ([a-z]+)[ `]/g)].map(([, a, b]) => a ?? b ?? '');
  expect(said.length).toBeGreaterThan(5);
  for (const verb of said) expect([...known]).toContain(verb);
  for (const [, path = ''] of document.matchAll(/-f (helm\/\S+\.yaml)/g))
    await expect(readFile(join(chart, '../..', path), 'utf8')).resolves.toBeTruthy();
});

test('its GitOps examples name value files that exist', async () => {
  for (const name of ['Argo CD', 'Flux']) {
    const objects = parseAllDocuments(block(name)).map((each) => each.toJS() as ClusterObject);
    for (const { apiVersion, kind, metadata } of objects)
      expect([apiVersion, kind, metadata.name].every(Boolean)).toBe(true);
    for (const [, path = ''] of block(name).matchAll(/- (?:\.\/helm\/dr\/)?((?:environments\/)?[\w-]+\.yaml)$/gm))
      await expect(readFile(join(chart, path), 'utf8')).resolves.toBeTruthy();
  }
});
