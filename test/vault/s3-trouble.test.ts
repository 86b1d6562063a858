import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { DrError } from '../../src/base/errors.ts';
import { createLog } from '../../src/base/log.ts';
import type { S3StoreOptions } from '../../src/vault/s3-connection.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import { collect } from '../conformance/object-store.ts';
import { FastClock } from '../harness/fast-clock.ts';
import type { S3Request } from '../harness/s3-server/faults.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

const minute = 60_000;
let server: S3Server;
const stores: S3Store[] = [];
beforeEach(async () => {
  server = await S3Server.start();
});
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const store of stores.splice(0)) await store.close();
  await server.stop();
});

function open(options: Partial<S3StoreOptions> = {}): S3Store {
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const store = new S3Store({
    name: 'east',
    region: 'eu-west-1',
    bucket: 'vault',
    prefix: 'p',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    ...options,
  });
  stores.push(store);
  return store;
}

async function failure(work: Promise<unknown>): Promise<DrError> {
  return await work.then(
    () => Promise.reject(new Error('it should have failed')),
    (error: DrError) => error,
  );
}

describe('a store that asks to slow down', () => {
  const slowDown = { kind: 'status', status: 503, code: 'SlowDown' } as const;

  it('is waited for a minute by everybody, with ever fewer requests, and nothing fails', async () => {
    const clock = new FastClock(40);
    const store = open({ clock });
    await store.create('there', Buffer.from('content'));
    const until = clock.now() + minute;
    server.faults.add(slowDown, { times: Number.POSITIVE_INFINITY, matches: () => clock.now() < until });
    server.requests.length = 0;
    const creations = Array.from({ length: 40 }, (_, i) => store.create(`new/${i}`, Buffer.from(`${i}`)));
    const [content, info, listed] = await Promise.all([
      store.read('there'),
      store.stat('there'), // The refusal of a HEAD says nothing but 503.
      collect(store.list('there')),
      ...creations,
    ]);
    expect(clock.now()).toBeGreaterThanOrEqual(until);
    expect([content.toString(), info?.size, listed.length]).toEqual(['content', 7, 1]);
    expect(await Promise.all(creations)).toEqual(creations.map(() => 'created'));
    // 43 requests: in a minute each was sent again a few times, not hundreds of times.
    expect(server.requests.length).toBeLessThan(43 * 15);
    expect(store.stats.retries).toBe(server.requests.length - 43);
  });

  it('fails after three minutes, saying what to do', async () => {
    const clock = new FastClock(200);
    const store = open({ clock });
    const began = clock.now();
    server.faults.add(slowDown, { times: Number.POSITIVE_INFINITY });
    const error = await failure(store.create('x', Buffer.from('x')));
    expect(clock.now() - began).toBeGreaterThanOrEqual(3 * minute);
    expect(error).toMatchObject({ kind: 'unreachable', retryable: true, where: 's3://vault/p/x' });
    expect(error.message).toMatch(/503 SlowDown: .* \(for 3 min.*, \d+ tries\)/);
    expect(error.next).toContain('rate of this bucket');
  });

  it('does not keep anybody who wants to stop', async () => {
    const store = open();
    server.faults.add(slowDown, { times: Number.POSITIVE_INFINITY });
    const stop = new AbortController();
    const reading = failure(store.read('x', undefined, { signal: stop.signal }));
    await vi.waitFor(() => expect(server.requests.length).toBeGreaterThan(0));
    stop.abort();
    expect(await reading).toMatchObject({ kind: 'interrupted' });
  });
});

describe('credentials that expire', () => {
  const expired = { kind: 'status', status: 400, code: 'ExpiredToken' } as const;
  const token = (request: S3Request) => request.headers['x-amz-security-token'];
  let file = '';

  const write = (sessionToken: string) => {
    const { accessKeyId, secretAccessKey } = server;
    const lines = { aws_access_key_id: accessKeyId, aws_secret_access_key: secretAccessKey };
    const text = Object.entries({ ...lines, aws_session_token: sessionToken }).map(
      ([name, value]) => `${name} = ${value}`,
    );
    writeFileSync(file, ['[default]', ...text, ''].join('\n'), { mode: 0o600 });
  };

  beforeEach(async () => {
    file = join(await tempDir(), 'credentials');
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_PROFILE']) {
      vi.stubEnv(name, undefined);
    }
    vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', file);
    vi.stubEnv('AWS_CONFIG_FILE', join(file, '../none'));
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
  });

  it('are read again from where they came from, and the request goes on with the new ones', async () => {
    write('first');
    const store = open({ credentials: undefined });
    await store.create('one', Buffer.from('x'));
    expect(server.requests.map(token)).toEqual(['first']);
    for (const next of ['second', 'third']) {
      const old = token(server.requests.at(-1) as S3Request);
      server.faults.add(expired, { times: Number.POSITIVE_INFINITY, matches: (request) => token(request) === old });
      write(next);
      const all = Array.from({ length: 20 }, (_, i) => store.create(`${next}/${i}`, Buffer.from('x')));
      expect(new Set(await Promise.all(all))).toEqual(new Set(['created']));
      // A HEAD request is refused without a word why.
      expect(await store.stat('one')).toMatchObject({ size: 1 });
      expect(token(server.requests.at(-1) as S3Request)).toBe(next);
    }
  });

  it('are a clear error when there are no others, after one request and one more look', async () => {
    write('only');
    const store = open({ credentials: undefined });
    server.faults.add(expired, { times: Number.POSITIVE_INFINITY });
    const error = await failure(store.create('x', Buffer.from('x')));
    expect(error).toMatchObject({ kind: 'denied', retryable: false, where: 's3://vault/p/x' });
    expect(error.message).toContain('cannot store an object in vault east: the store answered 400 ExpiredToken');
    expect(error.next).toContain('Renew the temporary credentials');
    expect(server.requests).toHaveLength(1);
    write('renewed');
    server.faults.clear();
    expect(await store.create('x', Buffer.from('x'))).toBe('created');
  });

  it('that stand in the configuration are not looked for elsewhere', async () => {
    write('elsewhere');
    server.faults.add(expired, { times: 1 });
    expect(await failure(open().read('x'))).toMatchObject({ kind: 'denied' });
    expect(server.requests).toHaveLength(1);
  });
});

describe('a clock that is an hour off', () => {
  it.each([1, -1])('does not stop anything (%i h), and is told once', async (hours) => {
    await server.stop();
    server = await S3Server.start({ now: () => Date.now() + hours * 60 * minute });
    const lines: string[] = [];
    const store = open({ log: createLog('warn', { write: (line) => lines.push(line) }) });
    expect(await store.create('a', Buffer.from('x'))).toBe('created');
    expect(server.requests).toHaveLength(2);
    expect(await store.create('b', Buffer.from('x'))).toBe('created');
    expect(server.requests).toHaveLength(3);
    const [line, ...more] = lines;
    expect(more).toEqual([]);
    expect(line).toContain(hours > 0 ? '1 h behind' : '1 h ahead');
    expect(line).toContain('correct it (NTP)');
  });

  it('is the error when nothing helps', async () => {
    server.faults.add({ kind: 'status', status: 403, code: 'RequestTimeTooSkewed' }, { times: 2 });
    const error = await failure(open().read('x'));
    expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining('clock of this machine (NTP)') });
    expect(error.message).toContain('(clock skew)');
    server.faults.clear();
  });
});
