import { expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { openVault } from '../../src/vault/open.ts';

const config = (url: string, endpoint?: string) => ({
  name: 'east',
  region: 'eu-west-1',
  url,
  endpoint,
  forcePathStyle: false,
  credentials: undefined,
});
const open = (url: string, endpoint?: string) => openVault(config(url, endpoint), silentLog);

it('opens each kind of vault by its url', () => {
  expect(open('file:///srv/dr/east').location).toBe('file:///srv/dr/east');
  expect(open('file:///srv/dr/with%20space/').location).toBe('file:///srv/dr/with%20space');
  expect(open('s3://acme-dr/prod/east/').location).toBe('s3://acme-dr/prod/east');
  expect(open('s3://acme-dr').location).toBe('s3://acme-dr');
  expect(open('s3://acme-dr', 'http://127.0.0.1:9000')).toMatchObject({ name: 'east', region: 'eu-west-1' });
});

it('shares a memory vault within the process', async () => {
  await open('memory://shared').create('a', Buffer.from('x'));
  expect((await open('memory://shared').read('a')).toString()).toBe('x');
  expect(await open('memory://another').stat('a')).toBeUndefined();
});

it.each([
  'gs://bucket',
  '/srv/dr',
  'file://host/share',
  'file:///',
  'file://relative',
  's3://',
  's3://Bucket_Name/x',
  's3://bucket/a b',
  's3://bucket/../x',
])('refuses %s with what to write instead', (url) => {
  expect(() => open(url)).toThrow(
    expect.objectContaining({
      kind: 'config',
      next: expect.stringContaining('vaults.east.url'),
      where: expect.any(String),
    }),
  );
});

it.each(['127.0.0.1:9000', 'http://key:secret-value@host', 'ftp://host'])('refuses the endpoint %s', (endpoint) => {
  try {
    open('s3://bucket', endpoint);
  } catch (error) {
    expect(error).toMatchObject({ kind: 'config', next: expect.stringContaining('endpoint') });
    expect(JSON.stringify(error)).not.toContain('secret-value');
    return;
  }
  throw new Error('it was accepted');
});
