import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** An object as the server keeps it. */
export interface StoredObject {
  readonly key: string;
  readonly size: number;
  readonly modifiedMs: number;
  readonly etag: string;
  /** Base64, where the client sent one. */
  readonly sha256: string | undefined;
}

/** Buckets in memory or, with a directory, in files that outlive the server (not durable: a test server). */
export class Buckets {
  readonly #directory: string | undefined;
  readonly #buckets = new Map<string, Map<string, { info: StoredObject; bytes: Buffer | undefined }>>();

  constructor(directory: string | undefined) {
    this.#directory = directory;
    if (directory === undefined) return;
    mkdirSync(directory, { recursive: true });
    for (const bucket of readdirSync(directory)) {
      const objects = this.make(bucket);
      for (const file of readdirSync(join(directory, bucket))) {
        if (!file.endsWith('.json')) continue;
        const info: StoredObject = JSON.parse(readFileSync(join(directory, bucket, file), 'utf8'));
        objects.set(info.key, { info, bytes: undefined });
      }
    }
  }

  make(bucket: string): Map<string, { info: StoredObject; bytes: Buffer | undefined }> {
    const objects = this.#buckets.get(bucket) ?? new Map();
    this.#buckets.set(bucket, objects);
    if (this.#directory !== undefined) mkdirSync(join(this.#directory, bucket), { recursive: true });
    return objects;
  }

  has(bucket: string): boolean {
    return this.#buckets.has(bucket);
  }

  info(bucket: string, key: string): StoredObject | undefined {
    return this.#buckets.get(bucket)?.get(key)?.info;
  }

  bytes(bucket: string, key: string): Buffer | undefined {
    const object = this.#buckets.get(bucket)?.get(key);
    return object && (object.bytes ?? readFileSync(this.#file(bucket, key)));
  }

  put(bucket: string, key: string, bytes: Buffer, sha256: string | undefined): StoredObject {
    const etag = createHash('md5').update(bytes).digest('hex');
    const info = { key, size: bytes.length, modifiedMs: Date.now(), etag, sha256 };
    if (this.#directory === undefined) {
      this.make(bucket).set(key, { info, bytes });
    } else {
      this.make(bucket).set(key, { info, bytes: undefined });
      writeFileSync(this.#file(bucket, key), bytes);
      writeFileSync(`${this.#file(bucket, key)}.json`, JSON.stringify(info));
    }
    return info;
  }

  delete(bucket: string, key: string): void {
    if (!this.#buckets.get(bucket)?.delete(key) || this.#directory === undefined) return;
    rmSync(`${this.#file(bucket, key)}.json`, { force: true });
    rmSync(this.#file(bucket, key), { force: true });
  }

  /** All keys of a bucket in byte order. */
  keys(bucket: string): string[] {
    return [...(this.#buckets.get(bucket)?.keys() ?? [])].sort((a, b) =>
      Buffer.compare(Buffer.from(a), Buffer.from(b)),
    );
  }

  #file(bucket: string, key: string): string {
    return join(this.#directory ?? '', bucket, createHash('sha256').update(key).digest('hex'));
  }
}
