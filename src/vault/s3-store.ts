import { createHash } from 'node:crypto';
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2Output,
} from '@aws-sdk/client-s3';
import { DrError } from '../base/errors.ts';
import { requireFolder, requireKeyPrefix, requireObjectKey } from './object-key.ts';
import { readEachAlone } from './read-each.ts';
import { receiveBody, sendBody } from './s3-body.ts';
import { type Abort, type Address, S3Connection, type S3StoreOptions } from './s3-connection.ts';
import { type ObjectVersion, S3Deleter } from './s3-delete.ts';
import { answerOf } from './s3-errors.ts';
import { S3Locks } from './s3-lock.ts';
import { S3Versions } from './s3-versions.ts';
import type {
  Body,
  ByteRange,
  CallOptions,
  CreateOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  ReadOutcome,
} from './store.ts';
import { bodyLength } from './store.ts';
import type { UsageMeter } from './usage.ts';

/**
 * A vault in a bucket of S3 or of anything that speaks its protocol with conditional writes (`If-None-Match: *`).
 */
export class S3Store implements ObjectStore {
  readonly name: string;
  readonly region: string;
  readonly location: string;
  readonly stats: UsageMeter;
  readonly locks: S3Locks | undefined;
  readonly versions: S3Versions;
  readonly #s3: S3Connection;
  readonly #deleter: S3Deleter;

  constructor(options: S3StoreOptions) {
    this.name = options.name;
    this.region = options.region;
    this.#s3 = new S3Connection(options);
    this.location = this.#s3.location;
    this.stats = this.#s3.stats;
    this.#deleter = new S3Deleter(this.#s3);
    this.versions = new S3Versions(this.#s3, this.#deleter);
    const list = (prefix: string, call: CallOptions) => this.list(prefix, call);
    this.locks = options.lock && new S3Locks(this.#s3, options.lock, list, options.now ?? Date.now);
  }

  /** Buckets are made by their owner: nothing to do. */
  async prepare(): Promise<void> {}

  async create(key: string, body: Body, options: CreateOptions = {}): Promise<'created' | 'exists'> {
    const sha256 = this.#digest(key, body, options);
    // True once an attempt ended without a clear "no": the object may be there, written by us.
    let maybeStored = false;
    return this.#s3.request('create', key, options, async (address, abort) => {
      try {
        const lock = this.locks?.forPut(key);
        const target = { ...address, IfNoneMatch: '*', ...lock };
        const versionId = await sendBody(this.#s3.client, target, body, sha256, abort);
        this.locks?.stored(key, versionId, lock);
      } catch (error) {
        const { status } = answerOf(error);
        if (status === 412)
          return maybeStored && (await this.#holds(address, key, body, sha256, abort)) ? 'created' : 'exists';
        if (status === undefined || status < 400 || status >= 500) maybeStored = true;
        throw error;
      }
      this.stats.sent(bodyLength(body));
      return 'created';
    });
  }

  async overwrite(key: string, body: Body, options: CreateOptions = {}): Promise<void> {
    const sha256 = this.#digest(key, body, options);
    await this.#s3.request('overwrite', key, options, async (address, abort) => {
      await sendBody(this.#s3.client, { ...address, ...this.locks?.forPut(key) }, body, sha256, abort);
      this.locks?.forget(key);
      this.stats.sent(bodyLength(body));
    });
  }

  async read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Buffer> {
    requireObjectKey(key, this.location);
    if (range?.length === 0) return this.#readNothing(key, range.offset, options);
    return this.#s3.request('read', key, options, async (address, abort) => {
      const from = range && `bytes=${range.offset}-${range.offset + range.length - 1}`;
      const answer = await this.#s3.client
        .send(new GetObjectCommand({ ...address, ...(from !== undefined && { Range: from }) }), abort)
        .catch((error: unknown) => {
          const { status, code } = answerOf(error);
          const where = `${this.location}/${key}`;
          if (status === 416) throw new DrError('corrupt', `${key} is too short: ${from} is needed`, { where });
          if (status === 404 && code !== 'NoSuchBucket') throw this.#missing(key);
          throw error;
        });
      return receiveBody(answer, range, `${this.location}/${key}`, (bytes) => {
        this.stats.received(bytes);
      });
    });
  }

  readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectInfo | undefined> {
    requireObjectKey(key, this.location);
    return this.#s3.request('stat', key, options, async (address, abort) => {
      try {
        const head = await this.#s3.client.send(new HeadObjectCommand(address), abort);
        return { key, size: head.ContentLength ?? 0, modifiedMs: head.LastModified?.getTime() ?? 0 };
      } catch (error) {
        if (answerOf(error).status === 404) return undefined;
        throw error;
      }
    });
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, undefined> {
    requireKeyPrefix(prefix, this.location);
    let last = '';
    for await (const page of this.#pages(prefix, undefined, options.startAfter, options)) {
      for (const object of page.Contents ?? []) {
        const key = (object.Key ?? '').slice(this.#s3.fullKey('').length);
        // "Newest" is the end of a listing all over dr: an unordered one (S3 directory buckets) must not pass.
        if (key <= last)
          throw this.#badListing(prefix, 'is not in the order of the keys', 'Use a general purpose bucket.');
        last = key;
        if (options.before !== undefined && key >= options.before) return;
        yield { key, size: object.Size ?? 0, modifiedMs: object.LastModified?.getTime() ?? 0 };
      }
    }
  }

  async *names(prefix: string, options: ListOptions = {}): AsyncGenerator<string, void, undefined> {
    for await (const { key } of this.list(prefix, options)) yield key;
  }

  async folders(prefix: string, options: CallOptions = {}): Promise<string[]> {
    requireFolder(prefix, this.location);
    const names: string[] = [];
    const start = this.#s3.fullKey(prefix).length;
    for await (const page of this.#pages(prefix, '/', undefined, options)) {
      for (const common of page.CommonPrefixes ?? []) names.push((common.Prefix ?? '').slice(start, -1));
    }
    return names;
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    for (const key of keys) requireObjectKey(key, this.location);
    if (!this.locks)
      return await this.#deleter.delete(
        keys.map((key) => ({ key })),
        options,
      );
    // Deleting by name would only hide what is locked, and leave every old lease behind as a version.
    const own: ObjectVersion[] = [];
    const others: string[] = [];
    for (const key of keys) {
      const versionId = this.locks.versionOf(key);
      if (versionId === undefined) others.push(key);
      else own.push({ key, versionId });
    }
    if (own.length > 0) await this.#deleter.delete(own, options);
    if (others.length > 0) await this.versions.purge(others, options);
  }

  async close(): Promise<void> {
    this.#s3.client.destroy();
  }

  #digest(key: string, body: Body, options: CreateOptions): Uint8Array {
    requireObjectKey(key, this.location);
    if (options.sha256) return options.sha256;
    const hash = createHash('sha256');
    for (const view of body instanceof Uint8Array ? [body] : body) hash.update(view);
    return hash.digest();
  }

  /** True when the object there has the content of `body`. */
  async #holds(address: Address, key: string, body: Body, sha256: Uint8Array, abort: Abort): Promise<boolean> {
    try {
      const head = await this.#s3.client.send(new HeadObjectCommand({ ...address, ChecksumMode: 'ENABLED' }), abort);
      if (head.ContentLength !== bodyLength(body)) return false;
      if (head.ChecksumSHA256 !== undefined && head.ChecksumType !== 'COMPOSITE') {
        return head.ChecksumSHA256 === Buffer.from(sha256).toString('base64');
      }
      const answer = await this.#s3.client.send(new GetObjectCommand(address), abort);
      const stored = await receiveBody(answer, undefined, this.location, () => {});
      return createHash('sha256').update(stored).digest().equals(sha256);
    } catch (error) {
      if (answerOf(error).status !== 404) throw error;
      const message = `${key} was taken and is gone again`;
      throw new DrError('unreachable', message, { where: `${this.location}/${key}`, retryable: true });
    }
  }

  #missing(key: string): DrError {
    return new DrError('not-found', `vault ${this.name} has no object ${key}`, { where: `${this.location}/${key}` });
  }

  /** S3 has no empty range: whether the object is there and long enough is asked instead. */
  async #readNothing(key: string, offset: number, options: CallOptions): Promise<Buffer> {
    const info = await this.stat(key, options);
    if (!info) throw this.#missing(key);
    if (offset > info.size) {
      const where = `${this.location}/${key}`;
      throw new DrError('corrupt', `${key} has ${info.size} bytes, ${offset} are needed`, { where });
    }
    return Buffer.alloc(0);
  }

  async *#pages(
    prefix: string,
    delimiter: string | undefined,
    startAfter: string | undefined,
    options: CallOptions,
  ): AsyncGenerator<ListObjectsV2Output, void, undefined> {
    for (let token: string | undefined; ; ) {
      const page: ListObjectsV2Output = await this.#s3.request('list', prefix, options, (address, abort) =>
        this.#s3.client.send(
          new ListObjectsV2Command({
            Bucket: address.Bucket,
            Prefix: address.Key,
            ...(delimiter !== undefined && { Delimiter: delimiter }),
            ...(startAfter !== undefined && { StartAfter: this.#s3.fullKey(startAfter) }),
            ...(token !== undefined && { ContinuationToken: token }),
          }),
          abort,
        ),
      );
      // Anything that answers 200 (a proxy's page) would otherwise pass for an empty vault.
      if (page.IsTruncated === undefined) {
        throw this.#badListing(
          prefix,
          'is not one of S3',
          `Check that the endpoint of vault ${this.name} is an S3 service.`,
        );
      }
      yield page;
      if (!page.IsTruncated) return;
      const next = page.NextContinuationToken;
      if (next === undefined || next === token) {
        throw this.#badListing(
          prefix,
          'breaks off without saying where to go on',
          'Report it to the maker of the store.',
        );
      }
      token = next;
    }
  }

  #badListing(prefix: string, what: string, next: string): DrError {
    return new DrError('corrupt', `the listing of vault ${this.name} ${what}`, {
      where: `${this.location}/${prefix}`,
      next,
    });
  }
}
