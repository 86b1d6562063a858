import { createHash, type Hash } from 'node:crypto';
import { Semaphore } from '../base/concurrency.ts';
import type { DataKey } from '../vault/keys.ts';
import { layout } from '../vault/layout.ts';
import type { Mirror } from '../vault/mirror.ts';
import { FRAME_OVERHEAD_BYTES, FRAME_RAW_BYTES } from '../vault/seal.ts';
import type { PartTable } from './part-table.ts';

/** Parts in memory at once: one that fills and two on their way to the vaults. Bounds memory with the frames being sealed. */
const PARTS_IN_MEMORY = 3;

export interface PartOptions {
  readonly resource: string;
  readonly backupId: string;
  readonly mirror: Mirror;
  readonly parts: PartTable;
  readonly key: DataKey | undefined;
  /** A part is closed when it has reached this many bytes. */
  readonly partBytes: number;
  readonly signal?: AbortSignal | undefined;
}

/** A part that fills. */
interface OpenPart {
  readonly number: number;
  readonly buffer: Buffer;
  readonly hash: Hash;
  bytes: number;
}

/** Where a frame was put (`part`: position in the manifest's list), and the storing of its part if the frame filled it. */
export interface PlacedFrame {
  readonly part: number;
  readonly offset: number;
  readonly stored: Promise<void> | undefined;
}

/** Collects sealed frames into parts, each stored in all vaults while the next one fills; the same few buffers all along. */
export class PartWriter {
  readonly #options: PartOptions;
  readonly #slots = new Semaphore(PARTS_IN_MEMORY);
  readonly #spare: Buffer[] = [];
  #open: OpenPart | undefined;

  constructor(options: PartOptions) {
    this.#options = options;
  }

  /** Copies a frame of `rawBytes` into the part that fills; waits while all buffers are on their way to the vaults. */
  async append(frame: Uint8Array, rawBytes: number): Promise<PlacedFrame> {
    // Looked at again after each wait: another frame may have opened a part meanwhile, or filled and closed it.
    while (!this.#open) {
      await this.#slots.acquire();
      if (this.#open) this.#slots.release();
      else this.#open = this.#newPart();
    }
    const part = this.#open;
    const offset = part.bytes;
    part.buffer.set(frame, offset);
    part.hash.update(frame);
    part.bytes += frame.length;
    this.#options.parts.addRaw(part.number, rawBytes);
    // Closed in the same turn, so that no other frame lands in a part that is full.
    const stored = part.bytes >= this.#options.partBytes ? this.close() : undefined;
    return { part: this.#options.parts.position(part.number), offset, stored };
  }

  /** Stores what the last part has. */
  async close(): Promise<void> {
    const part = this.#open;
    if (!part) return;
    this.#open = undefined;
    const { resource, backupId, key, mirror, signal } = this.#options;
    try {
      signal?.throwIfAborted();
      const objectKey = layout.part(resource, backupId, part.number);
      const digest = part.hash.digest();
      await mirror.create(objectKey, [part.buffer.subarray(0, part.bytes)], signal, digest);
      this.#options.parts.fill(part.number, {
        key: objectKey,
        size: part.bytes,
        sha256: digest.toString('hex'),
        context: backupId,
        ...(key ? { keyId: key.id } : {}),
      });
      // Only now: after a failure a vault may still be reading it.
      this.#spare.push(part.buffer);
    } finally {
      this.#slots.release();
    }
  }

  #newPart(): OpenPart {
    // The last frame may reach beyond partBytes.
    const room = this.#options.partBytes + FRAME_RAW_BYTES + FRAME_OVERHEAD_BYTES;
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(room);
    return { number: this.#options.parts.open(), buffer, hash: createHash('sha256'), bytes: 0 };
  }
}
