import { expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../src/config/problems.ts';
import { forSite } from '../../src/config/sites.ts';
import { recipient } from './example.ts';

const key = await recipient();

/** A configuration of two sites whose objects are as `kubernetes` says; both sites have the cluster that dr runs in. */
function load(
  kubernetes: string,
  { rest = '', cluster = 'cluster: {}', encryption = `{ recipients: ["${key}"] }` } = {},
) {
  const text = `version: 1
vaults: { east: { region: r1, url: "s3://east" }, west: { region: r2, url: "s3://west" } }
sites: { east: { region: r1, vault: east, ${cluster} }, west: { region: r2, vault: west, ${cluster} } }
active: east
encryption: ${encryption}
configuration:
  cluster:
    kubernetes: ${kubernetes}
    ${rest}
`;
  return parseConfig(text, '/etc/dr/dr.yaml', {}).config;
}

function problems(...args: Parameters<typeof load>): string[] {
  try {
    load(...args);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(formatProblem).map((line) => line.replace(/ \(line.*/, ''));
  }
}

test('objects of a cluster, with every default filled in', () => {
  const { objects, configuration } = load('{ namespaces: [shop] }');
  expect(configuration).toEqual({});
  expect(objects['cluster']).toMatchObject({
    kind: 'configuration',
    select: {
      namespaces: ['shop'],
      selector: undefined,
      clusterObjects: true,
      kinds: { include: [], exclude: [] },
      secrets: false,
    },
    schedule: { kind: 'on-change', quietMs: 10_000 },
  });
  const short = load('{ namespaces: [shop] }', { rest: 'schedule: on change after 3s' }).objects['cluster'];
  expect(short?.schedule).toMatchObject({ quietMs: 3000 });
});

test('they are taken from the cluster of the site that is active, and brought up where the file says', () => {
  const rest = 'recover: { west: { kubernetes: { namespaces: { shop: shop-dr } } } }';
  const config = load('{ selector: "tier=production" }', { rest });
  const { objects, without } = forSite(config, 'east');
  expect(objects['cluster']).toMatchObject({ cluster: {}, target: undefined });
  expect(without).toEqual([]);
  expect(forSite(config, 'west').objects['cluster']?.target).toEqual({
    namespaces: { shop: 'shop-dr' },
    scaleToZero: true,
  });
  expect(forSite(load('{ namespaces: [shop] }'), 'west').without).toEqual(['cluster']);
  const named = load('{ namespaces: [shop, stock] }', { rest });
  expect(forSite(named, 'west').objects['cluster']?.objects.select.namespaces).toEqual(['shop-dr', 'stock']);
  expect(forSite(named, 'east').objects['cluster']?.objects.select.namespaces).toEqual(['shop', 'stock']);
});

test('what cannot be is refused in words', () => {
  expect(problems('{}')).toEqual(['configuration.cluster.kubernetes: needs exactly one of namespaces and selector']);
  expect(problems('{ namespaces: [Shop] }')[0]).toContain('must be the name of a namespace');
  expect(problems('{ namespaces: [shop], kinds: { exclude: ["a b"] } }')[0]).toContain('as kubectl takes it');
  expect(problems('{ namespaces: [shop] }', { rest: 'path: /etc/shop' })).toEqual([
    'configuration.cluster: needs exactly one of path and kubernetes',
  ]);
  expect(problems('{ namespaces: [shop] }', { rest: 'recover: { west: { path: /srv } }' })[0]).toContain(
    '{ kubernetes: … }',
  );
  expect(problems('{ namespaces: [shop] }', { cluster: '' })).toEqual([
    'configuration.cluster.kubernetes: needs a cluster: add "sites.east.cluster" ({} = the one that dr runs in)',
  ]);
});

test('Secrets are never stored readable', () => {
  expect(problems('{ namespaces: [shop], secrets: true }', { encryption: 'none' })[0]).toMatch(
    /^configuration.cluster.kubernetes.secrets: stores Secrets, and the vaults are readable/,
  );
  expect(problems('{ namespaces: [shop], secrets: true }')).toEqual([]);
});
