import { createHash, randomBytes } from 'node:crypto';
import {
  DeleteObjectCommand,
  GetObjectLockConfigurationCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  PutObjectRetentionCommand,
} from '@aws-sdk/client-s3';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import { type LockPolicy, lockPeriodMs, lockSlackMs } from './lock-policy.ts';
import { sendBody } from './s3-body.ts';
import type { S3Connection } from './s3-connection.ts';
import { answerOf } from './s3-errors.ts';
import type { CallOptions, LockProof, ObjectLocks } from './store.ts';

/** Locks looked at or made longer at once. */
const LOCKS_IN_FLIGHT = 16;
/** Objects whose lock is remembered, about 200 bytes each: parts that the next backup uses again need not be asked for. */
const REMEMBERED = 50_000;
/** How long the object of a proof stays locked, thus is left behind. */
const PROOF_MS = 60_000;
const proofs = 'probes/lock-';

/** What a PutObject says about its lock. */
export interface PutLock {
  readonly ObjectLockMode: 'GOVERNANCE' | 'COMPLIANCE';
  readonly ObjectLockRetainUntilDate: Date;
}

interface Known {
  readonly versionId: string | undefined;
  readonly untilMs: number;
}

/** Object Lock of one bucket. */
export class S3Locks implements ObjectLocks {
  readonly policy: LockPolicy;
  readonly #s3: S3Connection;
  readonly #list: (prefix: string, options: CallOptions) => AsyncIterable<{ readonly key: string }>;
  readonly #now: () => number;
  readonly #known = new Map<string, Known>();

  constructor(
    s3: S3Connection,
    policy: LockPolicy,
    list: (prefix: string, options: CallOptions) => AsyncIterable<{ readonly key: string }>,
    now: () => number,
  ) {
    this.#s3 = s3;
    this.policy = policy;
    this.#list = list;
    this.#now = now;
  }

  get #mode(): PutLock['ObjectLockMode'] {
    return this.policy.mode === 'compliance' ? 'COMPLIANCE' : 'GOVERNANCE';
  }

  /** The lock for an object that is stored now; undefined for one that is not locked. */
  forPut(key: string): PutLock | undefined {
    const period = lockPeriodMs(this.policy, key);
    if (period === 0) return undefined;
    return {
      ObjectLockMode: this.#mode,
      ObjectLockRetainUntilDate: this.#date(this.#now() + period + lockSlackMs(period)),
    };
  }

  /** An object was stored with this lock. */
  stored(key: string, versionId: string | undefined, lock: PutLock | undefined): void {
    this.#remember(key, { versionId, untilMs: lock?.ObjectLockRetainUntilDate.getTime() ?? 0 });
  }

  /** An object was written over: which versions it has is not known any more. */
  forget(key: string): void {
    this.#known.delete(key);
  }

  /** The one version of an object that this process has created; undefined when it has not. */
  versionOf(key: string): string | undefined {
    return this.#known.get(key)?.versionId;
  }

  async extend(
    keys: readonly string[],
    options: CallOptions & { readonly untilMs?: number | undefined } = {},
  ): Promise<number> {
    let extended = 0;
    await forEachLimit(new Set(keys), LOCKS_IN_FLIGHT, async (key) => {
      const period = lockPeriodMs(this.policy, key);
      const neededMs = options.untilMs ?? this.#now() + period;
      if (period === 0 || (this.#known.get(key)?.untilMs ?? 0) >= neededMs) return;
      if (!key.endsWith('/')) {
        if (await this.#extendOne(key, neededMs, period, options)) extended++;
        return;
      }
      let earliest = Number.POSITIVE_INFINITY;
      for await (const below of this.#list(key, options)) {
        if (await this.#extendOne(below.key, neededMs, period, options)) extended++;
        earliest = Math.min(earliest, this.#known.get(below.key)?.untilMs ?? 0);
      }
      if (Number.isFinite(earliest)) this.#remember(key, { versionId: undefined, untilMs: earliest });
    });
    return extended;
  }

  async lockedUntil(key: string, options: CallOptions = {}): Promise<number | undefined> {
    const head = await this.#head(key, undefined, options);
    return head?.ObjectLockRetainUntilDate?.getTime();
  }

  async prove(options: CallOptions = {}): Promise<LockProof> {
    const bucket = await this.#bucketLock(options);
    if ('broken' in bucket) return { broken: bucket.broken, mayBypass: false, mayExtend: false };
    await this.#sweepProofs(options);
    const key = `${proofs}${randomBytes(12).toString('hex')}`;
    const lock = { ObjectLockMode: this.#mode, ObjectLockRetainUntilDate: this.#date(this.#now() + PROOF_MS) };
    const bytes = Buffer.from('a proof that dr made of Object Lock; it can be removed when its lock has ended\n');
    const sha256 = createHash('sha256').update(bytes).digest();
    const versionId = await this.#s3.request('create', key, options, async (address, abort) => {
      return await sendBody(this.#s3.client, { ...address, ...lock }, bytes, sha256, abort);
    });
    const mayExtend = await this.#mayExtend(key, this.#date(this.#now() + PROOF_MS + 1000), options);
    const facts = { mayExtend, ...(bucket.defaultDays === undefined ? {} : { defaultDays: bucket.defaultDays }) };
    if (versionId === undefined) return { ...facts, broken: 'the bucket keeps no versions', mayBypass: false };
    if (await this.#remove(key, versionId, false, options)) {
      return { ...facts, broken: 'an object that was just locked could be deleted', mayBypass: false };
    }
    const mayBypass = this.policy.mode === 'governance' && (await this.#remove(key, versionId, true, options));
    return { ...facts, mayBypass };
  }

  async #extendOne(key: string, neededMs: number, period: number, options: CallOptions): Promise<boolean> {
    if ((this.#known.get(key)?.untilMs ?? 0) >= neededMs) return false;
    const head = await this.#head(key, undefined, options);
    if (!head) {
      const where = `${this.#s3.location}/${key}`;
      throw new DrError('not-found', `${key} is to stay locked, and is not there`, {
        where,
        next: 'Run `dr vault check`, then `dr vault repair`.',
      });
    }
    const versionId = this.#known.get(key)?.versionId;
    const lockedMs = head.ObjectLockRetainUntilDate?.getTime() ?? 0;
    if (lockedMs >= neededMs) {
      this.#remember(key, { versionId, untilMs: lockedMs });
      return false;
    }
    const until = this.#date(Math.max(neededMs, this.#now() + period) + lockSlackMs(period));
    // A stricter lock cannot be made longer by a weaker one.
    const Mode = head.ObjectLockMode === 'COMPLIANCE' ? 'COMPLIANCE' : this.#mode;
    await this.#retain(key, Mode, until, options);
    this.#remember(key, { versionId, untilMs: until.getTime() });
    return true;
  }

  async #retain(key: string, Mode: PutLock['ObjectLockMode'], until: Date, options: CallOptions): Promise<void> {
    await this.#s3.request('lock', key, options, (address, abort) =>
      this.#s3.client.send(
        new PutObjectRetentionCommand({
          ...address,
          Retention: { Mode, RetainUntilDate: until },
          ChecksumAlgorithm: 'SHA256',
        }),
        abort,
      ),
    );
  }

  async #mayExtend(key: string, until: Date, options: CallOptions): Promise<boolean> {
    try {
      await this.#retain(key, this.#mode, until, options);
      return true;
    } catch (error) {
      if (error instanceof DrError && error.kind === 'denied') return false;
      throw error;
    }
  }

  async #head(
    key: string,
    versionId: string | undefined,
    options: CallOptions,
  ): Promise<HeadObjectCommandOutput | undefined> {
    return await this.#s3.request('stat', key, options, async (address, abort) => {
      try {
        const version = versionId === undefined ? {} : { VersionId: versionId };
        return await this.#s3.client.send(new HeadObjectCommand({ ...address, ...version }), abort);
      } catch (error) {
        if (answerOf(error).status === 404) return undefined;
        throw error;
      }
    });
  }

  async #bucketLock(options: CallOptions): Promise<{ broken: string } | { defaultDays: number | undefined }> {
    try {
      return await this.#s3.request('stat', '', options, async ({ Bucket }, abort) => {
        const command = new GetObjectLockConfigurationCommand({ Bucket });
        const { ObjectLockConfiguration: found } = await this.#s3.client.send(command, abort);
        if (found?.ObjectLockEnabled !== 'Enabled') return { broken: 'Object Lock is not enabled for the bucket' };
        const { Days, Years } = found.Rule?.DefaultRetention ?? {};
        return { defaultDays: Days ?? (Years === undefined ? undefined : Years * 365) };
      });
    } catch (error) {
      if (!(error instanceof DrError)) throw error;
      if (error.kind === 'not-found') return { broken: 'Object Lock is not enabled for the bucket' };
      if (error.kind === 'refused') return { broken: 'the store has no Object Lock' };
      // Whoever may not look is shown by the object that is stored next.
      if (error.kind === 'denied') return { defaultDays: undefined };
      throw error;
    }
  }

  /** Removes what earlier proofs have left; what is locked still, or may not be removed, stays. */
  async #sweepProofs(options: CallOptions): Promise<void> {
    for await (const { key } of this.#list(proofs, options)) {
      const head = await this.#head(key, undefined, options);
      const lockedMs = head?.ObjectLockRetainUntilDate?.getTime() ?? 0;
      if (head?.VersionId !== undefined && lockedMs < this.#now())
        await this.#remove(key, head.VersionId, false, options);
    }
  }

  /** True when the version is gone; false when that was refused. */
  async #remove(key: string, versionId: string, bypass: boolean, options: CallOptions): Promise<boolean> {
    try {
      await this.#s3.request('delete', key, options, (address, abort) =>
        this.#s3.client.send(
          new DeleteObjectCommand({
            ...address,
            VersionId: versionId,
            ...(bypass ? { BypassGovernanceRetention: true } : {}),
          }),
          abort,
        ),
      );
      // Some stores say yes to everything: what counts is whether it is there.
      return (await this.#head(key, versionId, options)) === undefined;
    } catch (error) {
      if (error instanceof DrError && (error.kind === 'denied' || error.kind === 'refused')) return false;
      throw error;
    }
  }

  /** Whole seconds, upwards: what every store can keep. */
  #date(ms: number): Date {
    return new Date(Math.ceil(ms / 1000) * 1000);
  }

  #remember(key: string, known: Known): void {
    this.#known.delete(key);
    if (this.#known.size >= REMEMBERED) {
      for (const oldest of this.#known.keys()) {
        this.#known.delete(oldest);
        break;
      }
    }
    this.#known.set(key, known);
  }
}
