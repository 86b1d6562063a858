import { beforeAll, describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../src/config/problems.ts';
import { forSite } from '../../src/config/sites.ts';
import { exampleText, recipient } from './example.ts';

const env = { ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders' };
let key: string;
beforeAll(async () => {
  key = await recipient();
});

/** The example with one piece replaced: its problems or, when it is usable, its warnings. */
function judge(from: string, to: string): { problems: string[]; warnings: string[] } {
  const text = exampleText(key);
  expect(text).toContain(from);
  try {
    const { warnings } = parseConfig(
      text.replace(from, () => to),
      '/dr.yaml',
      env,
    );
    return { problems: [], warnings: warnings.map(formatProblem) };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { problems: error.problems.map(formatProblem), warnings: [] };
  }
}

const secondDatabase = (lines: string) => `databases:
  billing:
    url: "postgresql://dr@db.other:5432/billing"
${lines}
`;

describe('refused, with the reason', () => {
  test.each([
    [
      'region: eu-central-1, url',
      'region: eu-west-1, url',
      'vaults: all vaults lie in eu-west-1, so a disaster in that region takes the backups too',
    ],
    [
      '  west: { region: eu-central-1, url: "s3://acme-dr/prod", endpoint: "http://127.0.0.1:9000", forcePathStyle: true }\n',
      '',
      'vaults: there is only one vault',
    ],
    [
      '"s3://acme-dr/prod", endpoint: "http://127.0.0.1:9000", forcePathStyle: true',
      '"file:///srv/dr/east"',
      'vaults.west.url: is the place of vault east',
    ],
    ['s3://acme-dr/prod', 's3://key:secret-key@acme-dr/prod', 'credentials do not belong in the URL'],
    ['file:///srv/dr/east', 'file://srv/dr/east', 'three slashes'],
    ['file:///srv/dr/east', '/srv/dr/east', 'is no vault URL'],
    ['vault: west', 'vault: wset', 'sites.west.vault: there is no vault "wset"; did you mean west?'],
    ['active: east', 'active: esat', 'active: there is no site "esat"; did you mean east?'],
    [
      'recover: { west: { dataDirectory',
      'recover: { wets: { dataDirectory',
      'databases.orders.recover.wets: there is no site "wets"; did you mean west?',
    ],
    ['recover: { west: { path: /srv/west/uploads', 'recover: { east: { path: /srv/west/uploads', 'is the active site'],
    [
      'wal: { flushEvery: 5s }',
      'wal: { enabled: false }',
      'databases.orders.schedule: cannot keep the objective: without WAL up to 6 h are lost, and the RPO is 15 min',
    ],
    [
      'wal: { flushEvery: 5s }',
      'wal: { flushEvery: 30m }',
      'databases.orders.wal.flushEvery: cannot keep the objective',
    ],
    ['wal: { flushEvery: 5s }', 'wal: { flushEvery: 10ms }', 'shorter than 100ms'],
    ['wal: { flushEvery: 5s }', 'wal: { slot: Dr-Orders }', 'slot names have'],
    [
      'schedule: daily, retention: 90 days',
      'schedule: daily, rpo: 6 hours',
      'data.uploads.schedule: cannot keep its own rpo: up to 24 h lie between two backups, and 6 h may be lost',
    ],
    [
      'schedule: daily, retention: 90 days',
      'schedule: weekly, retention: 3 days',
      'data.uploads.retention: is shorter than the 7 d',
    ],
    ['schedule: daily, retention: 90 days', 'schedule: on change', '"on change" is for configuration'],
    ['schedule: every 6 hours', 'schedule: on change', '"on change" is for configuration'],
    ['  uploads:', '  orders:', 'data.orders: the name is taken by databases.orders'],
    ['  uploads:', '  Orders:', 'data.Orders: the name is taken by databases.orders'],
    ['port: 5433', 'port: 0', 'must be a whole number from 1 to 65535'],
    [
      'path: /srv/west/uploads',
      'path: /srv/uploads/west',
      'lies inside the folder of uploads: a recovery would write into what is protected',
    ],
    [
      'path: /srv/west/uploads',
      'path: /srv/west/orders/uploads',
      'lies inside the data directory of orders: a recovery would mix them',
    ],
    ['path: /srv/west/uploads', 'path: /srv/west/etc', 'a recovery would mix them'],
    ['path: /srv/west/uploads', 'path: /srv/dr/east/x', 'lies inside vault east: a recovery would write into it'],
    [
      'file:///srv/dr/east',
      'file:///srv/uploads/vault',
      'vaults.east.url: lies inside the folder of uploads: a backup would store itself',
    ],
    ['path: /srv/uploads', 'path: /srv', 'vaults.east.url: lies inside the folder of uploads'],
    ['path: /srv/uploads', 'path: /', 'root of the file system'],
    ['path: /srv/uploads', 'path: ~/uploads', '"~" is not expanded'],
    ['path: /etc/orders', 'path: /srv/uploads', 'configuration.settings.path: is the folder of uploads too'],
    [
      'databases:\n',
      secondDatabase('    recover: { west: { dataDirectory: /srv/west/billing, port: 5433 } }'),
      'databases.orders.recover.west.port: 5433 is the port of billing there',
    ],
    [
      'databases:\n',
      secondDatabase('    wal: { slot: dr_orders }').replace('db.other', 'db.east'),
      'databases.orders.wal: shares the slot dr_orders',
    ],
    [
      'east: 192.0.2.10',
      'east: orders.example.com',
      'traffic.orders.endpoints.east: an A record points to an IPv4 address',
    ],
    ['type: A', 'type: CNAME', 'a CNAME record points to a host name'],
    [
      'west: 198.51.100.10',
      'wets: 198.51.100.10',
      'traffic.orders.endpoints.wets: there is no site "wets"; did you mean west?',
    ],
    [
      'checks: { orders:',
      'checks: { order:',
      'verification.checks.order: there is no database "order"; did you mean orders?',
    ],
    [
      'version: 1\n',
      'version: 1\nvalidation: { http: [{ site: wst, url: "http://x/" }] }\n',
      'validation.http[0].site: there is no site "wst"; did you mean west?',
    ],
    ['version: 1\n', 'version: 1\ndaemon: { listen: "8080" }\n', 'daemon.listen: "8080" is no address'],
    ['version: 1\n', 'version: 1\nbackup: { partSize: 1GiB }\n', 'backup.partSize: must be from 1 MiB to 256 MiB'],
    ['"${ORDERS_DATABASE_URL}"', '"mysql://dr@db/orders"', 'cannot be read as a PostgreSQL URL'],
    ['"${ORDERS_DATABASE_URL}"', '"postgresql://dr@db:5432"', 'names no database'],
  ])('%j → %j: %s', (from, to, reason) => {
    expect(judge(from, to).problems.join('\n')).toContain(reason);
  });

  test('a recipient with a slip of the pen, one that is none, and an identity in its place', () => {
    const slip = key.replace(/.$/, (last) => (last === 'q' ? 'p' : 'q'));
    expect(judge(key, slip).problems.join()).toContain(
      'encryption.recipients[0]: is no age recipient: a character is missing or wrong',
    );
    expect(judge(key, key.slice(0, -1)).problems.join()).toContain('is no age recipient');
    expect(judge(key, 'ssh-ed25519 AAAA').problems.join()).toContain('it begins with age1');
    const identity = `AGE-SECRET-KEY-1${'Q'.repeat(58)}`;
    for (const found of [judge(key, identity), judge('active: east', `active: east # ${identity}`)]) {
      expect(found.problems.join()).toContain('a decryption identity (AGE-SECRET-KEY…) stands here: remove it');
      expect(found.problems.join()).not.toContain('QQQQ');
    }
  });
});

describe('Object Lock', () => {
  const locked = (text: string) => judge('forcePathStyle: true }', `forcePathStyle: true, objectLock: { ${text} } }`);

  test('lasts as long as retention, or a fixed length', () => {
    for (const text of ['mode: compliance', 'for: 2 years', 'mode: governance, for: retention']) {
      expect(locked(text), text).toEqual({ problems: [], warnings: [] });
    }
    const { config } = parseConfig(
      exampleText(key).replace('forcePathStyle: true }', 'forcePathStyle: true, objectLock: {} }'),
      '/dr.yaml',
      env,
    );
    const day = 86_400_000;
    expect(config.vaults['west']?.objectLock).toEqual({
      mode: 'governance',
      byResource: { orders: 31.25 * day, uploads: 92 * day, settings: 366 * day + 2000 },
      otherwiseMs: 366 * day + 2000,
    });
    expect(config.vaults['east']?.objectLock).toBeUndefined();
  });

  test('is refused for a directory and for a word that is no mode; one that ends too early is doubtful', () => {
    const directory = judge('vault: east }', 'vault: east }').problems;
    expect(directory).toEqual([]);
    expect(
      judge('url: "file:///srv/dr/east" }', 'url: "file:///srv/dr/east", objectLock: {} }').problems.join(),
    ).toContain('vaults.east.objectLock: is for buckets');
    expect(locked('mode: strict').problems.join()).toContain('must be governance or compliance');
    expect(locked('for: 200 years').problems.join()).toContain('longer than the 100 years');
    expect(locked('for: 7 days').warnings.join()).toContain('is shorter than the 30 d that orders is kept');
  });
});

describe('a key of AWS KMS', () => {
  const arn = (region: string, id = 'mrk-0123456789abcdef0123456789abcdef') =>
    `arn:aws:kms:${region}:111122223333:key/${id}`;
  const plain = '01234567-89ab-cdef-0123-456789abcdef';
  const kms = (text: string, recipients = '[]') =>
    judge(`encryption: { recipients: ["${key}"] }`, `encryption: { recipients: ${recipients}, kms: { ${text} } }`);

  test('is enough with a replica, and beside age recipients', () => {
    const replicated = `keyId: "${arn('eu-west-1')}", replicas: [eu-central-1]`;
    expect(kms(replicated)).toEqual({ problems: [], warnings: [] });
    expect(kms(`keyId: "${arn('eu-west-1', plain)}"`, `[${key}]`)).toEqual({ problems: [], warnings: [] });
  });

  test.each([
    [`keyId: "${arn('eu-west-1', plain)}"`, 'the disaster that takes the site takes the key'],
    [`keyId: "${arn('eu-west-1')}", region: eu-west-2`, 'is eu-west-2, and the key of this ARN lies in eu-west-1'],
    [`keyId: "${arn('eu-west-1', plain)}", replicas: [eu-central-1]`, 'needs a multi-Region key'],
    ['keyId: alias/dr', 'is no ARN of a KMS key'],
  ])('%s is refused', (text, reason) => {
    expect(kms(text).problems.join()).toContain(reason);
  });

  test('alone in a third region it is doubtful; no key at all is refused', () => {
    expect(kms(`keyId: "${arn('eu-north-1')}"`)).toMatchObject({
      problems: [],
      warnings: [expect.stringContaining('encryption.kms: is the only thing that opens the backups')],
    });
    expect(judge(`encryption: { recipients: ["${key}"] }`, 'encryption: { recipients: [] }').problems.join()).toContain(
      'needs at least one age',
    );
  });
});

describe('usable, with a warning', () => {
  test.each([
    ['active: east', 'active: east\nallowSingleRegion: true', []],
    ['encryption: { recipients: [', 'encryption: none\n# [', ['encryption: is "none": whoever can read a vault']],
    ['ttl: 30', 'ttl: 300', ['traffic.orders.route53.ttl: clients may keep the old address for 5 min']],
    [
      ', recover: { west: { path: /srv/west/uploads } }',
      '',
      ['data.uploads: has no place at west: it is backed up, but a failover there leaves it out'],
    ],
    [', west: 198.51.100.10', '', ['traffic.orders.endpoints: has no endpoint for west']],
    ['verification: { schedule: daily', 'verification: { schedule: never', ['verification.schedule: is "never"']],
    [
      'west: { region: eu-central-1, vault: west }',
      'west: { region: us-east-1, vault: west }',
      ['sites.west.vault: vault west lies in eu-central-1 and the site in us-east-1'],
    ],
    [
      'path: /etc/orders',
      'path: /srv/uploads/etc',
      ['configuration.settings.path: lies in the folder of uploads, which stores it too'],
    ],
  ])('%j → %j', (from, to, wanted) => {
    const { problems, warnings } = judge(from, to);
    expect(problems).toEqual([]);
    expect(warnings).toHaveLength(wanted.length);
    wanted.forEach((text, i) => {
      expect(warnings[i]).toContain(text);
    });
  });

  test('one region, accepted in writing', () => {
    const text = exampleText(key)
      .replaceAll('eu-central-1', 'eu-west-1')
      .replace('active: east', 'active: east\nallowSingleRegion: true');
    expect(parseConfig(text, '/dr.yaml', env).config.allowSingleRegion).toBe(true);
  });

  test('the same folders at both sites, which are other machines', () => {
    expect(judge('path: /srv/west/uploads', 'path: /srv/uploads')).toEqual({ problems: [], warnings: [] });
  });
});

describe('where everything is at a site', () => {
  const config = () =>
    parseConfig(
      exampleText(key, (text) => text.replace(', recover: { west: { path: /srv/west/etc } }', '')),
      '/dr.yaml',
      env,
    ).config;

  test('the active site of the file has the top-level places', () => {
    const east = forSite(config(), 'east');
    expect(east.vault.name).toBe('east');
    expect(east.databases['orders']).toMatchObject({ url: env.ORDERS_DATABASE_URL, target: undefined });
    expect(east.directories['uploads']?.path).toBe('/srv/uploads');
    expect(east.endpoints).toEqual({ orders: '192.0.2.10' });
    expect(east.without).toEqual([]);
  });

  test('another site has what is under recover; what has no place there is named', () => {
    const west = forSite(config(), 'west');
    expect(west.vault.name).toBe('west');
    expect(west.databases['orders']).toMatchObject({
      url: 'postgresql://dr@127.0.0.1:5433/orders',
      target: { dataDirectory: '/srv/west/orders' },
    });
    expect(west.directories['uploads']?.path).toBe('/srv/west/uploads');
    expect(west.without).toEqual(['settings']);
    expect(() => forSite(config(), 'north')).toThrow('there is no site "north"');
  });

  test.each([
    ['postgresql:///orders?host=/run/postgresql&port=5499', 'postgresql://127.0.0.1:5433/orders'],
    ['postgresql://dr@/orders?host=/run/postgresql', 'postgresql://dr@127.0.0.1:5433/orders'],
    [
      'postgres://dr:p%40ss@db:6000/orders?sslmode=require',
      'postgres://dr:p%40ss@127.0.0.1:5433/orders?sslmode=require',
    ],
  ])('the URL of a recovered server keeps user, database and options: %s', (url, moved) => {
    const { config: found } = parseConfig(exampleText(key), '/dr.yaml', { ORDERS_DATABASE_URL: url });
    expect(found.databases['orders']?.recover['west']?.url).toBe(moved);
  });
});
