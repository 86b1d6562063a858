import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';

const file = (sections: string) => `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file:///vaults/east" }
  west: { region: eu-central-1, url: "file:///vaults/west" }
sites:
  east: { region: eu-west-1, vault: east, cluster: { context: east } }
  west: { region: eu-central-1, vault: west, cluster: {} }
  north: { region: eu-north-1, vault: west }
active: east
encryption: none
databases:
  orders: { url: "postgresql://app@db.east/orders", recover: { west: { dataDirectory: /pg/data } } }
${sections}`;

const read = (sections: string) => parseConfig(file(sections), '/etc/dr/dr.yaml', {});
const problems = (sections: string) => {
  try {
    read(sections);
  } catch (error) {
    return String(error instanceof Error ? error.message : error);
  }
  throw new Error('it was expected to be refused');
};

describe('workloads and gitops', () => {
  it('are at all sites that have a cluster, under the name of the entry', () => {
    const { config } = read(`workloads:
  api: { kind: Deployment, namespace: shop }
  db: { kind: StatefulSet, namespace: shop, name: orders-db, sites: [east], database: orders }
gitops:
  shop: { kind: Kustomization, namespace: flux-system }
`);
    expect(config.workloads['api']).toEqual({
      entry: 'api',
      kind: 'Deployment',
      namespace: 'shop',
      name: 'api',
      sites: ['east', 'west'],
      replicas: undefined,
      database: undefined,
      restore: undefined,
    });
    expect(config.workloads['db']).toMatchObject({ name: 'orders-db', sites: ['east'], database: 'orders' });
    expect(config.gitops['shop']).toMatchObject({ kind: 'Kustomization', sites: ['east', 'west'] });
  });

  it.each([
    ['api: { kind: Deployment, namespace: shop, sites: [wst] }', 'there is no site "wst"; did you mean west?'],
    ['api: { kind: Deployment, namespace: shop, sites: [north] }', 'site north has no cluster'],
    ['api: { kind: Deployment, namespace: Shop }', 'must be the name of a namespace'],
    ['api: { kind: Pod, namespace: shop }', 'must be Deployment, StatefulSet, DaemonSet or CronJob'],
    ['api: { kind: Deployment, namespace: shop, database: orders }', 'it must be a StatefulSet'],
    [
      'db: { kind: StatefulSet, namespace: shop, database: order }',
      'there is no database "order"; did you mean orders?',
    ],
    ['db: { kind: StatefulSet, namespace: shop, restore: { image: dr } }', 'needs "database"'],
    [
      'a: { kind: StatefulSet, namespace: shop, database: orders }\n  b: { kind: StatefulSet, namespace: shop, database: orders }',
      'a is the server of orders at east already',
    ],
  ])('refuse %s', (entry, reason) => {
    expect(problems(`workloads:\n  ${entry}\n`)).toContain(reason);
  });

  it('warn of what a runbook could not stop, and of an address that leads nowhere in a cluster', () => {
    const { warnings } = read(`workloads:
  agent: { kind: DaemonSet, namespace: shop }
  db: { kind: StatefulSet, namespace: shop, database: orders, sites: [west], restore: { image: "dr:1" } }
`);
    const told = warnings.map(({ reason }) => reason).join('\n');
    expect(told).toContain('a DaemonSet cannot be scaled to 0');
    expect(told).toContain('is reached at 127.0.0.1, but lies in a volume');
  });
});
