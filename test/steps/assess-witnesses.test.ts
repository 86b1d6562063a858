import { expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { assessWitnesses } from '../../src/steps/assess-witnesses.ts';
import { exampleText, recipient } from '../config/example.ts';
import { stepContext } from './context.ts';

// A backend of a route has a name inside of a cluster only: from here it is silent, and would look like a site that died.
test('a route has no endpoints that could be asked; a record has', async () => {
  const env = { ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders' };
  const { config } = parseConfig(exampleText(await recipient()), '/dr.yaml', env);
  const [record] = Object.values(config.traffic);
  if (record === undefined) throw new Error('the example has no traffic');
  const cluster = { kubeconfig: undefined, context: undefined };
  const driver = { kind: 'httpRoute', cluster, namespace: 'shop', name: 'orders', rule: undefined } as const;
  const asked: string[] = [];
  for (const entry of [record, { ...record, driver, endpoints: { east: 'orders-east', west: 'orders-west' } }]) {
    const context = stepContext({ ...config, databases: {}, traffic: { orders: entry } });
    const tcp = async (host: string, port: number) => {
      asked.push(`${host}:${port}`);
      return { reach: 'connected', detail: 'it answers' };
    };
    Object.assign(context.world, { probes: { tcp }, vaults: [], from: { name: 'east', vault: 'east' } });
    await assessWitnesses.run(context, {});
  }
  expect(asked.sort()).toEqual(['192.0.2.10:443', '192.0.2.10:80']);
});
