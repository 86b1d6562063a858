import {
  GetBucketVersioningCommand,
  GetObjectCommand,
  ListObjectVersionsCommand,
  type ListObjectVersionsOutput,
} from '@aws-sdk/client-s3';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import { requireKeyPrefix, requireObjectKey } from './object-key.ts';
import { receiveBody } from './s3-body.ts';
import type { S3Connection } from './s3-connection.ts';
import type { ObjectVersion, S3Deleter } from './s3-delete.ts';
import type { CallOptions, HiddenObject, ObjectVersions } from './store.ts';

/** Lists looked at at once. */
const LISTS_IN_FLIGHT = 8;

/** One version of an object, or the marker that hides it. */
interface Version {
  readonly versionId: string;
  readonly isLatest: boolean;
  readonly isMarker: boolean;
  readonly size: number;
  readonly modifiedMs: number;
}

/** All versions of one object, newest first. */
interface Versions {
  readonly key: string;
  readonly versions: readonly Version[];
}

/** Versions of objects in a bucket that may keep them: what hides them, and how they are seen or removed all the same. */
export class S3Versions implements ObjectVersions {
  readonly #s3: S3Connection;
  readonly #deleter: S3Deleter;

  constructor(s3: S3Connection, deleter: S3Deleter) {
    this.#s3 = s3;
    this.#deleter = deleter;
  }

  async areKept(options: CallOptions = {}): Promise<boolean | undefined> {
    try {
      return await this.#s3.request('stat', '', options, async ({ Bucket }, abort) => {
        const { Status } = await this.#s3.client.send(new GetBucketVersioningCommand({ Bucket }), abort);
        return Status === 'Enabled';
      });
    } catch (error) {
      if (error instanceof DrError && error.kind === 'denied') return undefined;
      if (error instanceof DrError && error.kind === 'refused') return false;
      throw error;
    }
  }

  async *hidden(prefix: string, options: CallOptions = {}): AsyncGenerator<HiddenObject> {
    requireKeyPrefix(prefix, this.#s3.location);
    for await (const { key, versions } of this.#list(prefix, options)) {
      const [newest] = versions;
      const content = versions.find(({ isMarker }) => !isMarker);
      if (!newest?.isMarker || !content) continue;
      yield { key, size: content.size, modifiedMs: content.modifiedMs, hiddenMs: newest.modifiedMs };
    }
  }

  async readHidden(key: string, options: CallOptions = {}): Promise<Buffer> {
    requireObjectKey(key, this.#s3.location);
    const where = `${this.#s3.location}/${key}`;
    const content = (await this.#of(key, options))?.versions.find(({ isMarker }) => !isMarker);
    if (!content) throw new DrError('not-found', `no version of ${key} is left`, { where });
    return await this.#s3.request('read', key, options, async (address, abort) => {
      const command = new GetObjectCommand({ ...address, VersionId: content.versionId });
      return await receiveBody(await this.#s3.client.send(command, abort), undefined, where, (bytes) => {
        this.#s3.stats.received(bytes);
      });
    });
  }

  async reveal(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    const markers: ObjectVersion[] = [];
    await this.#each(keys, options, ({ key, versions }) => {
      const content = versions.findIndex(({ isMarker }) => !isMarker);
      if (content < 0) return;
      for (const { versionId } of versions.slice(0, content)) markers.push({ key, versionId });
    });
    await this.#deleter.delete(markers, options);
  }

  async purge(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    const contents: ObjectVersion[] = [];
    const markers: ObjectVersion[] = [];
    await this.#each(keys, options, ({ key, versions }) => {
      for (const { versionId, isMarker } of versions) (isMarker ? markers : contents).push({ key, versionId });
    });
    // Markers last: where a lock keeps the content, what was hidden stays hidden.
    await this.#deleter.delete(contents, options);
    await this.#deleter.delete(markers, options);
  }

  /** Looks up the versions of many objects: neighbours in one listing. */
  async #each(keys: readonly string[], options: CallOptions, use: (found: Versions) => void): Promise<void> {
    for (const key of keys) requireObjectKey(key, this.#s3.location);
    const folders = Map.groupBy([...new Set(keys)].sort(), (key) => key.slice(0, key.lastIndexOf('/') + 1));
    await forEachLimit(folders.values(), LISTS_IN_FLIGHT, async (group) => {
      const wanted = new Set(group);
      const last = group.at(-1) ?? '';
      for await (const found of this.#list(commonPrefix(group[0] ?? '', last), options)) {
        if (found.key > last) break;
        if (wanted.has(found.key)) use(found);
      }
    });
  }

  async #of(key: string, options: CallOptions): Promise<Versions | undefined> {
    for await (const found of this.#list(key, options)) return found.key === key ? found : undefined;
    return undefined;
  }

  /** Every object below a prefix with all its versions, in the order of the keys. */
  async *#list(prefix: string, options: CallOptions): AsyncGenerator<Versions> {
    // The last object of a page may go on in the next one.
    let open: { key: string; versions: Version[] } | undefined;
    for await (const page of this.#pages(prefix, options)) {
      for (const { key, version } of this.#entries(page)) {
        if (open && open.key !== key) {
          yield newestFirst(open);
          open = undefined;
        }
        open ??= { key, versions: [] };
        open.versions.push(version);
      }
    }
    if (open) yield newestFirst(open);
  }

  #entries(page: ListObjectVersionsOutput): Array<{ key: string; version: Version }> {
    const prefix = this.#s3.fullKey('').length;
    const entries = [
      ...(page.Versions ?? []).map((version) => ({ ...version, isMarker: false, size: version.Size ?? 0 })),
      ...(page.DeleteMarkers ?? []).map((marker) => ({ ...marker, isMarker: true, size: 0 })),
    ].map(({ Key = '', VersionId = 'null', IsLatest = false, LastModified, isMarker, size }) => ({
      key: Key.slice(prefix),
      version: { versionId: VersionId, isLatest: IsLatest, isMarker, size, modifiedMs: LastModified?.getTime() ?? 0 },
    }));
    return entries.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  }

  async *#pages(prefix: string, options: CallOptions): AsyncGenerator<ListObjectVersionsOutput> {
    let marker: { KeyMarker?: string; VersionIdMarker?: string } = {};
    for (;;) {
      const page: ListObjectVersionsOutput = await this.#s3.request('list', prefix, options, (address, abort) =>
        this.#s3.client.send(
          new ListObjectVersionsCommand({ Bucket: address.Bucket, Prefix: address.Key, ...marker }),
          abort,
        ),
      );
      yield page;
      if (!page.IsTruncated) return;
      const { NextKeyMarker, NextVersionIdMarker } = page;
      if (
        NextKeyMarker === undefined ||
        (NextKeyMarker === marker.KeyMarker && NextVersionIdMarker === marker.VersionIdMarker)
      ) {
        throw new DrError('corrupt', 'the listing of versions breaks off without saying where to go on', {
          where: `${this.#s3.location}/${prefix}`,
          next: 'Report it to the maker of the store.',
        });
      }
      marker = {
        KeyMarker: NextKeyMarker,
        ...(NextVersionIdMarker === undefined ? {} : { VersionIdMarker: NextVersionIdMarker }),
      };
    }
  }
}

function newestFirst({ key, versions }: { key: string; versions: Version[] }): Versions {
  const sorted = [...versions].sort((a, b) => Number(b.isLatest) - Number(a.isLatest) || b.modifiedMs - a.modifiedMs);
  return { key, versions: sorted };
}

function commonPrefix(a: string, b: string): string {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  // A listing takes no prefix that ends in a dot.
  return a.slice(0, length).replace(/\.+$/, '');
}
