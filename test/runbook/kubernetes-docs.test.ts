import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { parseRunbook } from '../../src/runbook/load.ts';
import { stepRegistry } from '../../src/steps/registry.ts';

// What docs/kubernetes.md says about runbooks can be copied.

const document = await readFile('docs/kubernetes.md', 'utf8');
const section = document.slice(document.indexOf('## Runbooks in the clusters'), document.indexOf('## Upgrade'));
const blocks = [...section.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = '']) => text);

const head = `version: 1
vaults:
  east: { region: eu-west-1, url: "file:///vaults/east" }
  west: { region: eu-central-1, url: "file:///vaults/west" }
active: east
encryption: none
`;
const read = (text: string) => parseConfig(head + text, '/etc/dr/dr.yaml', { ORDERS_PASSWORD: 'x' });

describe('docs/kubernetes.md, runbooks in the clusters of the sites', () => {
  it('has a configuration with workloads and reconcilers', () => {
    const { config } = read(`${blocks[0]}databases: { orders: { url: "postgresql://db.east/orders" } }\n`);
    expect(Object.keys(config.workloads)).toEqual(['orders-api', 'nightly', 'orders-db']);
    expect(config.gitops['shop']?.sites).toEqual(['east', 'west']);
  });

  it('has a configuration with a database in a volume', () => {
    const sites =
      'sites: { east: { region: eu-west-1, vault: east }, west: { region: eu-central-1, vault: west, cluster: {} } }\n';
    const { config, warnings } = read(sites + blocks[1]);
    expect(config.workloads['orders-db']?.restore?.config).toBe('dr-config');
    expect(warnings.filter(({ path }) => path.join('.').startsWith('workloads'))).toEqual([]);
  });

  it('has a step that fences a CloudNativePG cluster', () => {
    const text = `version: 1\nname: fence\nsummary: x\nmodes: [failover, drill]\nstages:\n  validate:\n${blocks[2]}`;
    const { stages } = parseRunbook(text, 'fence.yaml', stepRegistry);
    expect(stages[0]?.groups[0]?.[0]?.kind.name).toBe('object.apply');
  });
});
