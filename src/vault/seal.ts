import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { DrError, messageOf } from '../base/errors.ts';
import { freeBuffer } from '../base/free-memory.ts';
import { compress, decompress } from './zstd.ts';

/**
 * A frame: up to a few MiB of raw content, compressed, then encrypted, decodable alone. `docs/format.md` section "Frame".
 *
 *   0  magic "DRF1"        4
 *   4  compression         1   0 none, 1 zstd
 *   5  cipher              1   0 none (checksum only), 1 AES-256-GCM
 *   6  reserved            2
 *   8  counter             8   position of the frame below its data key: also the nonce, so it never repeats
 *  16  raw length          4
 *  20  payload length      4
 *  24  payload
 *      tag                16   GCM tag, or the first 16 bytes of SHA-256(context, header, payload)
 *
 * The authenticated data are the context (what the frame belongs to) and the header: a frame moved to another place, backup or
 * key does not open.
 */
export const FRAME_HEADER_BYTES = 24;
export const FRAME_TAG_BYTES = 16;
/** Raw bytes of a full frame. 4 MiB keeps nearly the ratio of 16 MiB with a quarter of the memory (measured). */
export const FRAME_RAW_BYTES = 4 * 1024 * 1024;

/** Bytes of a frame beside its payload. */
export const FRAME_OVERHEAD_BYTES = FRAME_HEADER_BYTES + FRAME_TAG_BYTES;

/** What is encrypted at a time: its copy stays small enough for memory that the allocator has at hand. */
const CIPHER_BYTES = 128 * 1024;

const MAGIC = 0x44524631;

export interface FrameSeal {
  /** 32 bytes, or undefined for a vault with `encryption: none`. */
  readonly secret: Uint8Array | undefined;
  /** What the frame belongs to: a backup id, or the name of a WAL range. */
  readonly context: string;
}

/** Compresses and seals one frame. `level` is zstd's; content that does not shrink is stored as it is. */
export function sealFrame(raw: Uint8Array, counter: number, seal: FrameSeal, level: number): Buffer {
  const packed = compress(raw, level);
  const content = packed.length < raw.length ? packed : raw;
  const frame = Buffer.allocUnsafeSlow(content.length + FRAME_OVERHEAD_BYTES);
  fillFrame(frame, content, raw.length, counter, seal);
  freeBuffer(packed);
  return frame;
}

/**
 * Seals a frame where its content lies: the `length` bytes behind the first FRAME_HEADER_BYTES of `buffer`, which needs
 * FRAME_OVERHEAD_BYTES more than them. Returns the length of the frame, which then begins the buffer.
 */
export function sealFrameInPlace(
  buffer: Uint8Array,
  length: number,
  counter: number,
  seal: FrameSeal,
  level: number,
): number {
  const raw = buffer.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length);
  const packed = compress(raw, level);
  const content = packed.length < length ? packed : raw;
  const frameBytes = content.length + FRAME_OVERHEAD_BYTES;
  fillFrame(Buffer.from(buffer.buffer, buffer.byteOffset, frameBytes), content, length, counter, seal);
  freeBuffer(packed);
  return frameBytes;
}

/** Writes header, payload and tag; `content` may lie where the payload goes. */
function fillFrame(frame: Buffer, content: Uint8Array, rawBytes: number, counter: number, seal: FrameSeal): void {
  const end = FRAME_HEADER_BYTES + content.length;
  const payload = frame.subarray(FRAME_HEADER_BYTES, end);
  frame.writeUInt32BE(MAGIC, 0);
  frame[4] = content.length < rawBytes ? 1 : 0;
  frame[5] = seal.secret ? 1 : 0;
  frame.writeUInt16BE(0, 6);
  frame.writeBigUInt64BE(BigInt(counter), 8);
  frame.writeUInt32BE(rawBytes, 16);
  frame.writeUInt32BE(content.length, 20);
  const header = frame.subarray(0, FRAME_HEADER_BYTES);
  if (seal.secret) {
    const cipher = createCipheriv('aes-256-gcm', seal.secret, nonceOf(counter));
    cipher.setAAD(Buffer.concat([Buffer.from(seal.context), header]));
    for (let at = 0; at < content.length; at += CIPHER_BYTES) {
      const piece = cipher.update(content.subarray(at, at + CIPHER_BYTES));
      payload.set(piece, at);
      freeBuffer(piece);
    }
    cipher.final();
    frame.set(cipher.getAuthTag(), end);
  } else {
    payload.set(content);
    frame.set(plainTag(seal.context, header, payload), end);
  }
}

export interface FrameHeader {
  readonly compressed: boolean;
  readonly encrypted: boolean;
  readonly counter: number;
  readonly rawBytes: number;
  /** Bytes of the whole frame: header, payload and tag. */
  readonly frameBytes: number;
}

/** Reads the header at the beginning of `frame`; throws `corrupt` if there is none. */
export function readFrameHeader(frame: Uint8Array, where: string): FrameHeader {
  const view = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.length < FRAME_HEADER_BYTES || view.readUInt32BE(0) !== MAGIC) {
    throw corruptFrame('this is not a frame (wrong magic or too short)', where);
  }
  const [compression = 255, cipher = 255] = [view[4], view[5]];
  if (compression > 1 || cipher > 1) {
    throw new DrError('corrupt', 'the frame uses a compression or cipher that this dr does not know', {
      where,
      next: 'Use the newest dr; if it is the newest, the object is damaged: restore from another vault (--vault).',
    });
  }
  return {
    compressed: compression === 1,
    encrypted: cipher === 1,
    counter: Number(view.readBigUInt64BE(8)),
    rawBytes: view.readUInt32BE(16),
    frameBytes: FRAME_HEADER_BYTES + view.readUInt32BE(20) + FRAME_TAG_BYTES,
  };
}

/**
 * Opens one whole frame: authenticates it against its key, context and `counter`, decompresses, checks the length.
 * Throws `corrupt` naming `where`. A wrong key cannot be told from damage here: the key's own object is checked first.
 */
export function openFrame(frame: Uint8Array, counter: number, seal: FrameSeal, where: string): Buffer {
  const header = readFrameHeader(frame, where);
  if (header.frameBytes !== frame.length) {
    throw corruptFrame(`the frame says ${header.frameBytes} bytes, and ${frame.length} were expected`, where);
  }
  if (header.counter !== counter)
    throw corruptFrame(`frame ${header.counter} stands in the place of ${counter}`, where);
  if (header.encrypted !== (seal.secret !== undefined)) {
    throw corruptFrame(
      header.encrypted ? 'the frame is encrypted, its backup is not' : 'the frame is not encrypted',
      where,
    );
  }
  const head = frame.subarray(0, FRAME_HEADER_BYTES);
  const payload = frame.subarray(FRAME_HEADER_BYTES, frame.length - FRAME_TAG_BYTES);
  const tag = frame.subarray(frame.length - FRAME_TAG_BYTES);
  const content = seal.secret
    ? decrypt(seal.secret, counter, Buffer.concat([Buffer.from(seal.context), head]), payload, tag, where)
    : checked(seal.context, head, payload, tag, where);
  if (!header.compressed) {
    if (content.length !== header.rawBytes)
      throw corruptFrame('the content has another length than the frame says', where);
    return Buffer.from(content.buffer, content.byteOffset, content.length);
  }
  let raw: Buffer;
  try {
    raw = decompress(content, header.rawBytes);
  } catch (error) {
    throw corruptFrame(`the content does not decompress: ${messageOf(error)}`, where);
  }
  if (raw.length !== header.rawBytes) throw corruptFrame('the content has another length than the frame says', where);
  // What was decrypted; without encryption it is a view of the frame, which is the caller's.
  if (seal.secret) freeBuffer(content);
  return raw;
}

/** SHA-256 as a Buffer. */
export function sha256(...pieces: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  return hash.digest();
}

function nonceOf(counter: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(counter), 4);
  return nonce;
}

function plainTag(context: string, header: Uint8Array, payload: Uint8Array): Buffer {
  return sha256(Buffer.from(context), header, payload).subarray(0, FRAME_TAG_BYTES);
}

function decrypt(
  secret: Uint8Array,
  counter: number,
  authenticated: Uint8Array,
  payload: Uint8Array,
  tag: Uint8Array,
  where: string,
): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', secret, nonceOf(counter));
  decipher.setAAD(authenticated);
  decipher.setAuthTag(tag);
  try {
    const content = decipher.update(payload);
    decipher.final();
    return content;
  } catch (error) {
    throw corruptFrame(
      'the frame fails its authentication: it was altered, moved or sealed with another key',
      where,
      error,
    );
  }
}

function checked(context: string, head: Uint8Array, payload: Uint8Array, tag: Uint8Array, where: string): Uint8Array {
  if (!plainTag(context, head, payload).equals(tag)) throw corruptFrame('the frame fails its checksum', where);
  return payload;
}

function corruptFrame(message: string, where: string, cause?: unknown): DrError {
  return new DrError('corrupt', message, {
    where,
    next: 'The object is damaged: restore from another vault (--vault NAME), then repair this one from it.',
    cause,
  });
}
