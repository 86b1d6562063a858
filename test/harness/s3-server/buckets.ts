import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export type LockMode = 'GOVERNANCE' | 'COMPLIANCE';

export interface Lock {
  readonly mode: LockMode;
  readonly untilMs: number;
}

/** An object, or one of its versions, as the server keeps it. */
export interface StoredObject {
  readonly key: string;
  readonly size: number;
  readonly modifiedMs: number;
  readonly etag: string;
  /** Base64, where the client sent one. */
  readonly sha256: string | undefined;
  /** `null` in a bucket without versions. */
  readonly versionId: string;
  /** True: this version says that the object was deleted. */
  readonly isDeleteMarker: boolean;
  readonly lock?: Lock | undefined;
}

export interface BucketSettings {
  readonly versioning?: boolean;
  /** Object Lock can only be had with versions; the default retention locks every new version. */
  readonly objectLock?: boolean | { readonly mode: LockMode; readonly days: number };
}

interface Version {
  info: StoredObject;
  readonly bytes: Buffer | undefined;
}

interface Bucket {
  settings: BucketSettings;
  /** By key, oldest version first; never empty. */
  readonly objects: Map<string, Version[]>;
}

const settingsFile = 'settings.json';

/** Buckets in memory or, with a directory, in files that outlive the server (not durable: a test server). */
export class Buckets {
  readonly #directory: string | undefined;
  readonly #buckets = new Map<string, Bucket>();
  readonly #now: () => number;
  #versions = 0;

  constructor(directory: string | undefined, now: () => number = Date.now) {
    this.#directory = directory;
    this.#now = now;
    if (directory === undefined) return;
    mkdirSync(directory, { recursive: true });
    for (const bucket of readdirSync(directory)) {
      const { objects } = this.#open(bucket);
      const files = readdirSync(join(directory, bucket)).filter((file) => file.endsWith('.json'));
      const infos: StoredObject[] = [];
      for (const file of files) {
        const value = JSON.parse(readFileSync(join(directory, bucket, file), 'utf8'));
        if (file === settingsFile) this.#open(bucket).settings = value;
        else infos.push(value);
      }
      infos.sort((a, b) => a.modifiedMs - b.modifiedMs || (a.versionId < b.versionId ? -1 : 1));
      for (const info of infos) objects.set(info.key, [...(objects.get(info.key) ?? []), { info, bytes: undefined }]);
    }
  }

  make(bucket: string, settings: BucketSettings = {}): void {
    this.#open(bucket).settings = settings;
    if (this.#directory === undefined) return;
    mkdirSync(join(this.#directory, bucket), { recursive: true });
    if (Object.keys(settings).length > 0)
      writeFileSync(join(this.#directory, bucket, settingsFile), JSON.stringify(settings));
  }

  /** Deletes a bucket with all that is in it. */
  drop(bucket: string): void {
    this.#buckets.delete(bucket);
    if (this.#directory !== undefined) rmSync(join(this.#directory, bucket), { recursive: true, force: true });
  }

  has(bucket: string): boolean {
    return this.#buckets.has(bucket);
  }

  settings(bucket: string): BucketSettings {
    return this.#buckets.get(bucket)?.settings ?? {};
  }

  isVersioned(bucket: string): boolean {
    const { versioning = false, objectLock = false } = this.settings(bucket);
    return versioning || objectLock !== false;
  }

  /** The newest version, unless it is a delete marker. */
  info(bucket: string, key: string): StoredObject | undefined {
    const info = this.newest(bucket, key);
    return info?.isDeleteMarker ? undefined : info;
  }

  newest(bucket: string, key: string): StoredObject | undefined {
    return this.#buckets.get(bucket)?.objects.get(key)?.at(-1)?.info;
  }

  /** All versions, newest first. */
  versions(bucket: string, key: string): StoredObject[] {
    return (this.#buckets.get(bucket)?.objects.get(key) ?? []).map(({ info }) => info).reverse();
  }

  version(bucket: string, key: string, versionId: string): StoredObject | undefined {
    return this.versions(bucket, key).find((info) => info.versionId === versionId);
  }

  /** The content of the newest version, or of one. */
  bytes(bucket: string, key: string, versionId?: string): Buffer | undefined {
    const found = this.#buckets
      .get(bucket)
      ?.objects.get(key)
      ?.findLast(({ info }) => versionId === undefined || info.versionId === versionId);
    return found && (found.bytes ?? readFileSync(this.#file(bucket, found.info)));
  }

  put(
    bucket: string,
    key: string,
    bytes: Buffer,
    sha256: string | undefined,
    lock?: Lock,
    modifiedMs = this.#now(),
  ): StoredObject {
    const etag = createHash('md5').update(bytes).digest('hex');
    const { objectLock } = this.settings(bucket);
    const byDefault =
      typeof objectLock === 'object'
        ? { mode: objectLock.mode, untilMs: modifiedMs + objectLock.days * 86_400_000 }
        : undefined;
    const versionId = this.#versionId(bucket);
    const info: StoredObject = {
      key,
      size: bytes.length,
      modifiedMs,
      etag,
      sha256,
      versionId,
      isDeleteMarker: false,
      lock: lock ?? byDefault,
    };
    this.#append(bucket, info, bytes);
    return info;
  }

  /** Hides the object in a bucket with versions, and gives the marker; removes it in any other. */
  delete(bucket: string, key: string): StoredObject | undefined {
    if (!this.isVersioned(bucket)) {
      this.removeVersion(bucket, key, 'null');
      return undefined;
    }
    const marker: StoredObject = {
      key,
      size: 0,
      modifiedMs: this.#now(),
      etag: '',
      sha256: undefined,
      versionId: this.#versionId(bucket),
      isDeleteMarker: true,
    };
    this.#append(bucket, marker, Buffer.alloc(0));
    return marker;
  }

  removeVersion(bucket: string, key: string, versionId: string): void {
    const objects = this.#buckets.get(bucket)?.objects;
    const versions = objects?.get(key);
    const gone = versions?.find(({ info }) => info.versionId === versionId);
    if (!objects || !versions || !gone) return;
    const left = versions.filter((version) => version !== gone);
    if (left.length > 0) objects.set(key, left);
    else objects.delete(key);
    if (this.#directory === undefined) return;
    rmSync(`${this.#file(bucket, gone.info)}.json`, { force: true });
    rmSync(this.#file(bucket, gone.info), { force: true });
  }

  lock(bucket: string, key: string, versionId: string, lock: Lock): void {
    const version = this.#buckets
      .get(bucket)
      ?.objects.get(key)
      ?.find(({ info }) => info.versionId === versionId);
    if (!version) return;
    version.info = { ...version.info, lock };
    if (this.#directory !== undefined)
      writeFileSync(`${this.#file(bucket, version.info)}.json`, JSON.stringify(version.info));
  }

  /** All keys of a bucket in byte order, those of hidden objects too where asked for. */
  keys(bucket: string, hiddenToo = false): string[] {
    const objects = this.#buckets.get(bucket)?.objects ?? new Map<string, Version[]>();
    return [...objects.keys()]
      .filter((key) => hiddenToo || this.info(bucket, key) !== undefined)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  }

  #open(bucket: string): Bucket {
    const known = this.#buckets.get(bucket) ?? { settings: {}, objects: new Map() };
    this.#buckets.set(bucket, known);
    return known;
  }

  /** Sorts by age, so that the order survives a restart. */
  #versionId(bucket: string): string {
    if (!this.isVersioned(bucket)) return 'null';
    return `${Date.now().toString(36).padStart(9, '0')}.${(this.#versions++).toString(36).padStart(6, '0')}`;
  }

  #append(bucket: string, info: StoredObject, bytes: Buffer): void {
    const { objects } = this.#open(bucket);
    const before = info.versionId === 'null' ? [] : (objects.get(info.key) ?? []);
    objects.set(info.key, [...before, { info, bytes: this.#directory === undefined ? bytes : undefined }]);
    if (this.#directory === undefined) return;
    mkdirSync(join(this.#directory, bucket), { recursive: true });
    writeFileSync(this.#file(bucket, info), bytes);
    writeFileSync(`${this.#file(bucket, info)}.json`, JSON.stringify(info));
  }

  #file(bucket: string, { key, versionId }: StoredObject): string {
    const name = versionId === 'null' ? key : `${key}\0${versionId}`;
    return join(this.#directory ?? '', bucket, createHash('sha256').update(name).digest('hex'));
  }
}
