import { beforeAll, expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../src/config/problems.ts';
import { exampleText, recipient } from './example.ts';

let publicKey: string;
beforeAll(async () => {
  publicKey = await recipient();
});

function read(more: string, cluster = ', cluster: {}') {
  const text = exampleText(publicKey).replace('vault: east }', `vault: east${cluster} }`);
  return parseConfig(`${text}\n${more}`, '/dr.yaml', {
    ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders',
  }).config;
}

function problemsOf(more: string, cluster?: string): string {
  try {
    read(more, cluster);
    return '';
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(formatProblem).join('\n');
  }
}

test('the daemon works by itself and leads automatically, unless the file says otherwise', () => {
  expect(read('')).toMatchObject({ executor: undefined, daemon: { leader: 'automatic' } });
  expect(read('executor: local\ndaemon: { leader: never }')).toMatchObject({
    executor: undefined,
    daemon: { leader: 'never' },
  });
  expect(read('daemon: { leader: { namespace: ops } }').daemon.leader).toEqual({
    namespace: 'ops',
    name: undefined,
    durationMs: 12_000,
  });
});

test('Jobs need nothing but the word; everything else has a default', () => {
  expect(read('executor: { kubernetes: {} }').executor).toEqual({
    namespace: undefined,
    image: undefined,
    serviceAccount: undefined,
    requests: undefined,
    limits: undefined,
    parallel: 4,
    ttlMs: 3_600_000,
    patienceMs: 300_000,
    nodeSelector: undefined,
    tolerations: [],
    env: {},
    scratch: { claim: undefined, sizeLimit: undefined },
    volumes: {},
    mounts: [],
  });
});

test('volumes, resources and Secrets of Jobs', () => {
  const { executor } = read(`executor:
  kubernetes:
    requests: { cpu: 1, memory: 512Mi }
    env: { PGPASSWORD: { secret: orders-db, key: password } }
    volumes: { uploads: { claim: uploads, subPath: files, snapshot: {}, runAsUser: 33 } }
    mounts: [{ claim: vault, path: /vault, readOnly: false }]`);
  expect(executor).toMatchObject({
    requests: { cpu: '1', memory: '512Mi' },
    env: { PGPASSWORD: { secret: 'orders-db', key: 'password' } },
    volumes: { uploads: { claim: 'uploads', subPath: 'files', snapshot: { class: undefined }, runAsUser: 33 } },
    mounts: [{ claim: 'vault', path: '/vault', readOnly: false }],
  });
});

test.each([
  ['executor: { kubernetes: {} }', '', 'no site names its cluster'],
  ['daemon: { leader: { name: x } }', '', 'no site names its cluster'],
  ['executor: kubernetes', undefined, 'must be local, or kubernetes with its settings'],
  ['daemon: { leader: { duration: 1s } }', undefined, 'must be whole seconds, from 3s to 2m'],
  [
    'executor: { kubernetes: { volumes: { orders: { claim: x } } } }',
    undefined,
    'is a database: it is read through its connection',
  ],
  ['executor: { kubernetes: { volumes: { nothing: { claim: x } } } }', undefined, 'there is no data "nothing"'],
  ['executor: { kubernetes: { namespace: Dr_East } }', undefined, 'must be the name of a namespace'],
  [
    'executor: { kubernetes: { volumes: { uploads: { claim: x, runAsUser: 0 } } } }',
    undefined,
    'must be a whole number from 1',
  ],
])('%s is refused: %s', (more, cluster, message) => {
  expect(problemsOf(more, cluster)).toContain(message);
});
