import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { expectHelp, makeOperator, type Operator } from './world.ts';

let operator: Operator;

beforeAll(async () => {
  operator = await makeOperator({
    vaults: { east: { url: 'file:///nowhere/east' }, west: { url: 'file:///nowhere/west' } },
    databaseUrl: 'postgresql://dr:never-told-1729@127.0.0.1:9/orders',
  });
});

describe('the configuration', () => {
  test.each([
    [
      'an unknown key',
      (text: string) => text.replace('objectives:', 'objektives:'),
      ['objektives', 'did you mean objectives'],
    ],
    ['malformed YAML', (text: string) => text.replace('sites:', 'sites: ['), [/line \d+/]],
    [
      'a schedule that cannot keep the RPO',
      (text: string) => text.replace('wal: { flushEvery: 1s }', 'wal: { enabled: false }'),
      [/RPO|rpo/],
    ],
    [
      'a reference that is not set',
      (text: string) => text.replace('ORDERS_DATABASE_URL', 'NOBODY_SET_THIS'),
      ['NOBODY_SET_THIS'],
    ],
  ])('%s: exit 3 from every command, with the place', async (_, edit, facts) => {
    const file = await operator.variant(edit);
    for (const args of [
      ['validate'],
      ['backup'],
      ['restore', 'uploads', '--to', join(operator.root, 'never')],
      ['doctor'],
    ]) {
      expectHelp(await operator.dr(args, { DR_CONFIG: file }), 3, file, ...facts);
    }
    expect(existsSync(join(operator.root, 'never'))).toBe(false);
  });
});

test('the password of the URL is in no output', () => {
  expect(operator.said()).toContain('dr: ');
  expect(operator.said()).not.toContain('never-told-1729');
});
