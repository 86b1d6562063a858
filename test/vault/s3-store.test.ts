import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { inspect } from 'node:util';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import type { S3StoreOptions } from '../../src/vault/s3-connection.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import { collect } from '../conformance/object-store.ts';
import type { S3Request } from '../harness/s3-server/faults.ts';
import { S3Server } from '../harness/s3-server/server.ts';

let server: S3Server;
let store: S3Store;
const open = (options: Partial<S3StoreOptions> = {}) =>
  new S3Store({
    name: 'east',
    region: 'eu-west-1',
    bucket: 'vault',
    prefix: 'p',
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
    limits: { attempts: 6, retryBaseMs: 1, retryMaxMs: 5, connectMs: 1000, ...options.limits },
    ...Object.fromEntries(Object.entries(options).filter(([name]) => name !== 'limits')),
  });
const failure = (work: Promise<unknown>) =>
  work.then(
    () => {
      throw new Error('it should have failed');
    },
    (error: unknown) => {
      if (!(error instanceof DrError)) throw error;
      return error;
    },
  );
const puts = (request: S3Request) => request.operation === 'PutObject';

beforeAll(async () => {
  server = await S3Server.start();
  store = open();
});
afterAll(async () => {
  await store.close();
  await server.stop();
});
beforeEach(() => {
  expect(server.faults.pending).toBe(0);
  server.requests.length = 0;
});

describe('create, when answers are lost', () => {
  it('says created when the retry finds its own content', async () => {
    server.faults.add({ kind: 'lose-answer' }, { matches: puts });
    expect(await store.create('lost/one', Buffer.from('mine'))).toBe('created');
    expect(server.requests.map(({ operation }) => operation)).toEqual(['PutObject', 'PutObject', 'HeadObject']);
    expect((await store.read('lost/one')).toString()).toBe('mine');
  });

  it('says created also after a 500 that had stored the object, and with a store that keeps no checksum', async () => {
    server.faults.add({ kind: 'lie', status: 500, code: 'InternalError' }, { matches: puts });
    const body = [randomBytes(400_000), randomBytes(5)];
    const forget = store.create('lost/two', body);
    expect(await forget).toBe('created');
    // The same content, stored by somebody without a checksum: now the content itself has to be compared.
    server.buckets.put('vault', 'p/lost/three', Buffer.from('same'), undefined);
    server.faults.add({ kind: 'reset' }, { matches: puts });
    expect(await store.create('lost/three', Buffer.from('same'))).toBe('created');
    expect(server.requests.at(-1)?.operation).toBe('GetObject');
  });

  it('says exists when somebody else had the key, whether of the same length or not', async () => {
    for (const [key, other] of [
      ['lost/four', 'theirs'],
      ['lost/five', 'their longer one'],
    ] as const) {
      await store.create(key, Buffer.from(other));
      server.faults.add({ kind: 'reset' }, { matches: puts });
      expect(await store.create(key, Buffer.from('mine!!'))).toBe('exists');
      expect((await store.read(key)).toString()).toBe(other);
    }
  });

  it('says exists at once, without reading, when no answer was lost', async () => {
    await store.create('lost/six', Buffer.from('same'));
    server.requests.length = 0;
    expect(await store.create('lost/six', Buffer.from('same'))).toBe('exists');
    expect(server.requests.map(({ operation }) => operation)).toEqual(['PutObject']);
  });

  it('repeats after 409 ConditionalRequestConflict', async () => {
    server.faults.add({ kind: 'status', status: 409, code: 'ConditionalRequestConflict' }, { times: 2, matches: puts });
    expect(await store.create('lost/seven', Buffer.from('x'))).toBe('created');
  });
});

describe('a store in trouble', () => {
  it('gets through storms of 503, 429, 500 and reset connections, and counts the repetitions', async () => {
    await store.create('storm/x', Buffer.from('content'));
    const before = store.stats.retries;
    for (const [status, code] of [
      [503, 'SlowDown'],
      [429, 'TooManyRequests'],
      [500, 'InternalError'],
    ] as const) {
      server.faults.add({ kind: 'status', status, code });
    }
    server.faults.add({ kind: 'reset' }, { times: 2 });
    expect((await store.read('storm/x')).toString()).toBe('content');
    expect(store.stats.retries - before).toBe(5);
  });

  it('keeps forty concurrent writers correct while a third of all requests fails', async () => {
    let count = 0;
    const matches = () => ++count % 3 === 0;
    server.faults.add({ kind: 'lose-answer' }, { times: 10, matches });
    server.faults.add({ kind: 'status', status: 503, code: 'SlowDown' }, { times: 10, matches });
    const patient = open({ limits: { attempts: 12, retryBaseMs: 1, retryMaxMs: 5 } });
    const bodies = Array.from({ length: 40 }, () => [randomBytes(300_000), randomBytes(100_000)]);
    const outcomes = await Promise.all(bodies.map((body, i) => patient.create(`storm/many/${i}`, body)));
    expect(new Set(outcomes)).toEqual(new Set(['created']));
    for (const [i, body] of bodies.entries()) {
      expect(Buffer.concat(body).equals(await patient.read(`storm/many/${i}`))).toBe(true);
    }
    await patient.close();
  });

  it('gives up after its attempts, saying that the vault does not answer', async () => {
    server.faults.add({ kind: 'status', status: 503, code: 'ServiceUnavailable' }, { times: 6 });
    const error = await failure(store.read('storm/x'));
    expect(error).toMatchObject({ kind: 'unreachable', where: 's3://vault/p/storm/x', retryable: true });
    expect(error.message).toContain('503 ServiceUnavailable');
    expect(server.requests).toHaveLength(6);
  });

  it('reads again what arrives truncated, and gives up when it always does', async () => {
    const bytes = randomBytes(500_000);
    await store.create('cut/x', bytes);
    server.faults.add({ kind: 'truncate', bytes: 100_000 }, { times: 3 });
    expect(bytes.equals(await store.read('cut/x'))).toBe(true);
    server.faults.add({ kind: 'truncate', bytes: 10 }, { times: 6 });
    expect((await failure(store.read('cut/x', { offset: 5, length: 1000 }))).kind).toBe('unreachable');
  });

  it('is unreachable while the region is gone, and works again after', async () => {
    server.unavailable = true;
    try {
      expect((await failure(store.create('region/x', Buffer.from('x')))).kind).toBe('unreachable');
      expect((await failure(collect(store.list('region/')))).kind).toBe('unreachable');
      expect((await failure(store.delete(['region/x']))).kind).toBe('unreachable');
    } finally {
      server.unavailable = false;
    }
    expect(await store.create('region/x', Buffer.from('x'))).toBe('created');
  });

  it('does not wait for ever for a connection that has gone silent, also in the middle of a body', async () => {
    const impatient = open({ limits: { attempts: 2, idleMs: 150, retryBaseMs: 1 } });
    const wake = Promise.withResolvers<void>();
    server.faults.add({ kind: 'slow', until: wake.promise }, { times: 2 });
    const error = await failure(impatient.stat('region/x'));
    wake.resolve();
    expect(error).toMatchObject({ kind: 'unreachable' });
    expect(error.message).toContain('did not answer in time');
    await impatient.close();

    const silent = createServer((socket) => {
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this'));
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const waiting = open({ endpoint, limits: { attempts: 1, idleMs: 150 } });
    expect((await failure(waiting.read('x'))).message).toContain('did not answer in time');
    await waiting.close();
    silent.close();
  });

  it('says so when nothing listens, or something that is not S3', async () => {
    const nobody = open({ endpoint: 'http://127.0.0.1:1', limits: { attempts: 2, retryBaseMs: 1 } });
    const error = await failure(nobody.stat('x'));
    expect(error).toMatchObject({ kind: 'unreachable' });
    expect(error.message).toContain('ECONNREFUSED');
    expect(error.next).toContain('http://127.0.0.1:1');
    const web = createServer((socket) => {
      socket.on('data', () =>
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<html></html>'),
      );
    });
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    const strange = open({ endpoint: `http://127.0.0.1:${(web.address() as AddressInfo).port}` });
    expect(await failure(collect(strange.list('')))).toMatchObject({
      kind: 'corrupt',
      next: expect.stringContaining('S3'),
    });
    expect(await failure(strange.create('x', Buffer.from('x')))).toMatchObject({ kind: 'corrupt' });
    web.close();
    await Promise.all([nobody.close(), strange.close()]);
  });

  it('lets requests queue for a connection longer than one may take to be made', async () => {
    const narrow = open({ limits: { connections: 2, connectMs: 100, attempts: 1 } });
    const until = new Promise<void>((resolve) => setTimeout(resolve, 250));
    server.faults.add({ kind: 'slow', until }, { times: 2 });
    const reads = await Promise.all(Array.from({ length: 10 }, () => narrow.read('storm/x')));
    expect(reads.map(String)).toEqual(Array(10).fill('content'));
    await narrow.close();
  });

  it('stops a running request and the pauses between requests when asked to', async () => {
    const wake = Promise.withResolvers<void>();
    server.faults.add({ kind: 'slow', until: wake.promise });
    const stop = new AbortController();
    const reading = failure(store.read('cut/x', undefined, { signal: stop.signal }));
    stop.abort(new Error('lease lost'));
    expect(await reading).toMatchObject({ kind: 'interrupted' });
    wake.resolve();
    server.faults.clear();
    const patient = open({
      endpoint: 'http://127.0.0.1:1',
      limits: { attempts: 50, retryBaseMs: 1e9, retryMaxMs: 1e9 },
    });
    const later = new AbortController();
    const pausing = failure(patient.stat('x', { signal: later.signal }));
    setImmediate(() => later.abort());
    expect(await pausing).toMatchObject({ kind: 'interrupted' });
    await patient.close();
  });
});

describe('answers that are wrong', () => {
  it('calls a listing that breaks off without a token corrupt', async () => {
    server.faults.add({ kind: 'no-token' });
    const error = await failure(collect(store.list('cut/')));
    expect(error).toMatchObject({ kind: 'corrupt', where: 's3://vault/p/cut/' });
  });

  it('deletes one by one where the store cannot delete many at once', async () => {
    for (let i = 0; i < 5; i++) await store.create(`single/${i}`, Buffer.from('x'));
    const old = open();
    server.faults.add(
      { kind: 'status', status: 501, code: 'NotImplemented' },
      { matches: (r) => r.operation === 'DeleteObjects' },
    );
    await old.delete([0, 1, 2, 3, 4].map((i) => `single/${i}`));
    expect(await collect(store.list('single/'))).toEqual([]);
    await old.close();
  });
});

describe('credentials and places', () => {
  it('says denied for an unknown key, a wrong secret, none at all, and never shows the secret', async () => {
    const secret = 'wrong-secret-that-must-not-be-shown';
    const wrongKey = open({ credentials: { accessKeyId: 'nobody', secretAccessKey: secret } });
    const wrongSecret = open({ credentials: { accessKeyId: server.accessKeyId, secretAccessKey: secret } });
    const [first, second] = await Promise.all([
      failure(wrongKey.read('x')),
      failure(wrongSecret.create('x', Buffer.from('x'))),
    ]);
    expect(first).toMatchObject({ kind: 'denied', next: expect.stringContaining('access key id'), retryable: false });
    expect(second).toMatchObject({ kind: 'denied', next: expect.stringContaining('secret access key') });
    expect((await failure(wrongSecret.stat('x'))).kind).toBe('denied'); // A HEAD answer says no code.
    for (const error of [first, second]) {
      expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(secret);
      expect(inspect(error, { depth: 10, showHidden: true })).not.toContain('Signature=');
    }
    await Promise.all([wrongKey.close(), wrongSecret.close()]);
  });

  it('names a bucket that does not exist', async () => {
    const lost = open({ bucket: 'nowhere' });
    const calls = [() => lost.read('x'), () => lost.create('x', Buffer.from('x')), () => collect(lost.list(''))];
    for (const call of calls) {
      expect(await failure(call())).toMatchObject({
        kind: 'not-found',
        message: expect.stringContaining('bucket nowhere'),
      });
    }
    await lost.close();
  });

  it('explains quota, region and damaged bodies', async () => {
    const expected = [
      [507, 'InsufficientStorage', 'local'],
      [403, 'QuotaExceeded', 'local'],
      [301, 'PermanentRedirect', 'config'],
      [403, 'AccessDenied', 'denied'],
      [400, 'ExpiredToken', 'denied'],
      [501, 'NotImplemented', 'refused'],
    ] as const;
    for (const [status, code, kind] of expected) {
      server.faults.add({ kind: 'status', status, code });
      expect(await failure(store.create('explained', Buffer.from('x'))), code).toMatchObject({
        kind,
        next: expect.any(String),
      });
    }
    expect(
      await store.create('digest', Buffer.from('x'), { sha256: Buffer.alloc(32) }).catch((e: DrError) => e.kind),
    ).toBe('unreachable');
  });

  it('sends the SHA-256 it computed or was given, and keeps it with the object', async () => {
    await store.create('sum', Buffer.from('abc'));
    const sum = 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='; // SHA-256 of "abc", FIPS 180-2 appendix B.1
    expect(server.buckets.info('vault', 'p/sum')?.sha256).toBe(sum);
    expect(server.requests[0]?.headers['x-amz-content-sha256']).toBe(Buffer.from(sum, 'base64').toString('hex'));
  });
});
