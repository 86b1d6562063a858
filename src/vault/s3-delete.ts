import { DeleteObjectCommand, DeleteObjectsCommand, HeadObjectCommand } from '@aws-sdk/client-s3';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import type { S3Connection } from './s3-connection.ts';
import { answerOf } from './s3-errors.ts';
import { type CallOptions, LockedError } from './store.ts';

/** What is to be removed: one version for good, or without a version the object as it is seen. */
export interface ObjectVersion {
  readonly key: string;
  readonly versionId?: string | undefined;
}

/** S3's limit of one request. */
const BATCH = 1000;
/** Objects that were refused and are asked for their lock: one tells for all, and refusals come by the thousand. */
const LOOKS = 3;

/** Removes objects and versions, in batches where the store has them. */
export class S3Deleter {
  readonly #s3: S3Connection;
  #deletesSingly = false;

  constructor(s3: S3Connection) {
    this.#s3 = s3;
  }

  /** Throws `LockedError` where locks are in the way, after all others are gone. */
  async delete(objects: readonly ObjectVersion[], options: CallOptions): Promise<void> {
    const batches: ObjectVersion[][] = [];
    for (let at = 0; at < objects.length; at += BATCH) batches.push(objects.slice(at, at + BATCH));
    const refused: Array<{ object: ObjectVersion; error: Error }> = [];
    await forEachLimit(batches, 4, async (batch) => {
      refused.push(...(await this.#deleteBatch(batch, options)));
    });
    const [first] = refused;
    if (!first) return;
    const keys = refused.map(({ object }) => object.key);
    const untilMs = await this.#lockedUntil(refused, options);
    if (untilMs === 'not locked') {
      await this.#s3.request('delete', first.object.key, options, () => Promise.reject(first.error));
    } else throw new LockedError(keys, untilMs, `${this.#s3.location}/${keys[0]}`);
  }

  /** Those that the store refuses to remove, for whatever reason. */
  async #deleteBatch(
    batch: readonly ObjectVersion[],
    options: CallOptions,
  ): Promise<Array<{ object: ObjectVersion; error: Error }>> {
    let left = batch;
    const refused: Array<{ object: ObjectVersion; error: Error }> = [];
    if (!this.#deletesSingly) {
      try {
        await this.#s3.request('delete', batch[0]?.key ?? '', options, async ({ Bucket }, abort) => {
          const Objects = left.map(({ key, versionId }) => ({
            Key: this.#s3.fullKey(key),
            ...(versionId === undefined ? {} : { VersionId: versionId }),
          }));
          const command = new DeleteObjectsCommand({
            Bucket,
            ChecksumAlgorithm: 'SHA256',
            Delete: { Objects, Quiet: true },
          });
          const { Errors = [] } = await this.#s3.client.send(command, abort);
          const errors = new Map(Errors.map((error) => [`${error.Key} ${error.VersionId ?? ''}`, error]));
          const failed = left.flatMap((object) => {
            const { key, versionId = '' } = object;
            const error =
              errors.get(`${this.#s3.fullKey(key)} ${versionId}`) ?? errors.get(`${this.#s3.fullKey(key)} `);
            return error && !/^NoSuch(Key|Version)$/.test(error.Code ?? '')
              ? [{ object, code: error.Code, error: refusalOf(error.Code, error.Message) }]
              : [];
          });
          refused.push(...failed.filter(({ code }) => code === 'AccessDenied'));
          const others = failed.filter(({ code }) => code !== 'AccessDenied');
          left = others.map(({ object }) => object);
          if (others[0]) throw others[0].error;
        });
        return refused;
      } catch (error) {
        // Some stores (Google's among them) know only the deletion of one object, or want an MD5 for more.
        if (!(error instanceof DrError && /NotImplemented|MissingContentMD5|InvalidRequest/.test(error.message)))
          throw error;
        this.#deletesSingly = true;
      }
    }
    await forEachLimit(left, 16, async (object) => {
      const { key, versionId } = object;
      await this.#s3.request('delete', key, options, async (address, abort) => {
        const version = versionId === undefined ? {} : { VersionId: versionId };
        try {
          await this.#s3.client.send(new DeleteObjectCommand({ ...address, ...version }), abort);
        } catch (error) {
          if (!(error instanceof Error) || answerOf(error).code !== 'AccessDenied') throw error;
          refused.push({ object, error });
        }
      });
    });
    return refused;
  }

  async #lockedUntil(
    refused: readonly { readonly object: ObjectVersion; readonly error: Error }[],
    options: CallOptions,
  ): Promise<number | undefined | 'not locked'> {
    let found: { untilMs: number | undefined } | undefined;
    for (const { object, error } of refused.slice(0, LOOKS)) {
      const { key, versionId } = object;
      const head = await this.#s3
        .request('stat', key, options, (address, abort) =>
          this.#s3.client.send(
            new HeadObjectCommand({ ...address, ...(versionId === undefined ? {} : { VersionId: versionId }) }),
            abort,
          ),
        )
        .catch(() => undefined);
      const untilMs = head?.ObjectLockRetainUntilDate?.getTime();
      const isHeld = head?.ObjectLockLegalHoldStatus === 'ON';
      // Whoever may not see locks is told of them all the same.
      const isSaid = /object lock|worm|retention|legal hold/i.test(error.message);
      if (untilMs === undefined && !isHeld && !isSaid) continue;
      found = { untilMs: Math.max(found?.untilMs ?? 0, untilMs ?? 0) || undefined };
    }
    return found ? found.untilMs : 'not locked';
  }
}

/** The refusal of one object in a batch, in the form in which the SDK throws that of a whole request. */
function refusalOf(code = 'InternalError', message = ''): Error {
  const status = code === 'AccessDenied' ? 403 : code === 'InternalError' ? 500 : code === 'SlowDown' ? 503 : 400;
  return Object.assign(new Error(message), { name: code, $metadata: { httpStatusCode: status } });
}
