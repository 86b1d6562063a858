import { formatLsn, type Lsn } from '../../postgres/lsn.ts';
import type { DataKey } from '../../vault/keys.ts';
import { encodeRecord } from '../../vault/record.ts';
import { FRAME_RAW_BYTES, sealFrame, sha256 } from '../../vault/seal.ts';
import type { SealPool } from '../../vault/seal-pool.ts';
import { walKey } from './names.ts';
import { frameContext, WAL_MAGIC, WAL_PREFIX_BYTES, type WalHeader } from './object.ts';

/** Up to this size sealing here costs less (about 1 ms) than the way to a worker and back. */
const INLINE_BYTES = 128 * 1024;

/** An object ready to be stored in every vault. */
export interface SealedWal {
  readonly key: string;
  readonly header: WalHeader;
  readonly body: readonly Uint8Array[];
  /** Bytes of the body. */
  readonly bytes: number;
}

/** What the caller says of the WAL that it wants sealed. */
export interface WalContent {
  readonly timeline: number;
  readonly start: Lsn;
  readonly segmentBytes: number;
  readonly rawSha256: string;
  readonly serverClockMs: number;
  readonly endClockMs: number;
}

/** Raw bytes of one frame: a view to be copied, or a buffer of its own to be lent to a worker. */
export type FrameInput = { readonly view: Uint8Array } | { readonly buffer: ArrayBuffer; readonly length: number };

/**
 * Makes the objects of one receiver session, below one data key: the counters of its frames never repeat. A new process makes a new key.
 */
export class WalSealer {
  readonly #systemId: string;
  readonly #key: DataKey | undefined;
  readonly #pool: SealPool;
  readonly #level: number;
  #counter = 0;

  constructor(options: { systemId: string; key: DataKey | undefined; pool: SealPool; level: number }) {
    this.#systemId = options.systemId;
    this.#key = options.key;
    this.#pool = options.pool;
    this.#level = options.level;
  }

  /** Seals WAL in frames of FRAME_RAW_BYTES. Lent buffers come back in `returned`. */
  async seal(
    content: WalContent,
    frames: readonly FrameInput[],
  ): Promise<{ object: SealedWal; returned: ArrayBuffer[] }> {
    const length = frames.reduce((sum, frame) => sum + ('view' in frame ? frame.view.length : frame.length), 0);
    const end = content.start + BigInt(length);
    const counter = this.#counter;
    this.#counter += frames.length;
    const header: WalHeader = {
      format: 1,
      kind: 'wal',
      systemId: this.#systemId,
      timeline: content.timeline,
      start: formatLsn(content.start),
      length,
      ...(this.#key ? { keyId: this.#key.id } : {}),
      counter,
      rawSha256: content.rawSha256,
      serverClockMs: content.serverClockMs,
      endClockMs: content.endClockMs,
      segmentBytes: content.segmentBytes,
      complete: length === content.segmentBytes,
    };
    const headerBytes = encodeRecord(header);
    const context = frameContext(header, headerBytes);
    const returned: ArrayBuffer[] = [];
    const sealed = await Promise.all(
      frames.map(async (frame, i) => {
        if ('view' in frame && length <= INLINE_BYTES) return this.#inline(frame.view, counter + i, context);
        const lent = 'view' in frame ? undefined : frame.buffer;
        const raw = 'view' in frame ? Uint8Array.from(frame.view).buffer : frame.buffer;
        const result = await this.#pool.seal({
          kind: 'seal',
          raw,
          length: 'view' in frame ? frame.view.length : frame.length,
          slices: [],
          counter: counter + i,
          context,
          secret: this.#key?.secret,
          level: this.#level,
        });
        if (lent) returned.push(result.raw);
        return new Uint8Array(result.frame, 0, result.frameBytes);
      }),
    );
    const key = walKey(this.#systemId, content.timeline, content.start, end, content.segmentBytes);
    return { object: assemble(key, header, headerBytes, sealed), returned };
  }

  /** Seals a timeline history file. */
  history(
    key: string,
    timeline: number,
    content: Uint8Array,
    ancestors: WalHeader['ancestors'],
    segmentBytes: number,
  ): SealedWal {
    const frameCount = Math.max(1, Math.ceil(content.length / FRAME_RAW_BYTES));
    const counter = this.#counter;
    this.#counter += frameCount;
    const header: WalHeader = {
      format: 1,
      kind: 'history',
      systemId: this.#systemId,
      timeline,
      start: '0/0',
      length: content.length,
      ...(this.#key ? { keyId: this.#key.id } : {}),
      counter,
      rawSha256: sha256(content).toString('hex'),
      serverClockMs: 0,
      endClockMs: 0,
      segmentBytes,
      complete: false,
      ...(ancestors ? { ancestors } : {}),
    };
    const headerBytes = encodeRecord(header);
    const context = frameContext(header, headerBytes);
    const frames = Array.from({ length: frameCount }, (_, i) =>
      this.#inline(content.subarray(i * FRAME_RAW_BYTES, (i + 1) * FRAME_RAW_BYTES), counter + i, context),
    );
    return assemble(key, header, headerBytes, frames);
  }

  #inline(raw: Uint8Array, counter: number, context: string): Uint8Array {
    return sealFrame(raw, counter, { secret: this.#key?.secret, context }, this.#level);
  }
}

function assemble(key: string, header: WalHeader, headerBytes: Uint8Array, frames: readonly Uint8Array[]): SealedWal {
  const prefix = Buffer.alloc(WAL_PREFIX_BYTES);
  prefix.writeUInt32BE(WAL_MAGIC, 0);
  prefix.writeUInt32BE(headerBytes.length, 4);
  const content = [prefix, headerBytes, ...frames];
  const body = [...content, sha256(...content)];
  return { key, header, body, bytes: body.reduce((sum, piece) => sum + piece.length, 0) };
}
