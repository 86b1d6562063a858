import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../postgres/lsn.ts';
import type { DataKey } from '../../vault/keys.ts';
import { decodeRecord } from '../../vault/record.ts';
import { openFrame, readFrameHeader, sha256 } from '../../vault/seal.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { parseWalKey, rangeOfName } from './names.ts';

/**
 * One archived object: a WAL segment, a piece of one, or a timeline history file. `docs/format.md` section "WAL object".
 *
 *   magic "DRW1"                    4
 *   length of the header            4
 *   header                          JSON record (with its own SHA-256)
 *   frames                          `vault/seal.ts`, FRAME_RAW_BYTES of content each (the last one less)
 *   SHA-256 of everything before   32   so that a copy or a scrub needs no key
 */
export const WAL_MAGIC = 0x44525731;
export const WAL_PREFIX_BYTES = 8;
export const WAL_TRAILER_BYTES = 32;
/** Enough for any header but that of a history with very many timelines. */
const HEADER_GUESS_BYTES = 1024;
const HEADER_LIMIT_BYTES = 1024 * 1024;

const lsnText = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);

const headerSchema = z.object({
  format: z.literal(1),
  kind: z.enum(['wal', 'history']),
  systemId: z.string().regex(/^\d{1,20}$/),
  timeline: z.int().positive(),
  /** LSN of the first byte; `0/0` for a history. */
  start: lsnText,
  /** Bytes of raw content. */
  length: z.int().positive(),
  keyId: z.string().optional(),
  /** Counter of the first frame; the others follow it. */
  counter: z.int().nonnegative(),
  rawSha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Everything committed before this moment of the server's clock lies before the end of this object; 0 = not known. */
  serverClockMs: z.number().nonnegative(),
  /** The server's clock when it sent the last byte: nothing in this object was committed later; 0 = not known. */
  endClockMs: z.number().nonnegative(),
  segmentBytes: z.int().positive(),
  /** True: a whole segment. */
  complete: z.boolean(),
  /** Of a history: the timelines before and where each was left. */
  ancestors: z.array(z.object({ timeline: z.int().positive(), end: lsnText })).optional(),
});

export type WalHeader = z.infer<typeof headerSchema>;

/** What the frames of an object are bound to: its place in the WAL and every word of its header. */
export function frameContext(header: WalHeader, headerBytes: Uint8Array): string {
  const place = header.kind === 'history' ? 'history' : header.start;
  return `wal/${header.systemId}/${header.timeline}/${place}/${sha256(headerBytes).toString('hex')}`;
}

/** First LSN of an object. */
export function startOf(header: WalHeader): Lsn {
  return parseLsn(header.start) ?? 0n;
}

/** First LSN after an object. */
export function endOf(header: WalHeader): Lsn {
  return startOf(header) + BigInt(header.length);
}

/** Reads and checks only the header of a stored object; `size` is its size from a listing. Throws `corrupt` and `refused`. */
export async function readWalHeader(
  store: ObjectStore,
  key: string,
  size?: number,
  signal?: AbortSignal,
): Promise<WalHeader> {
  const where = `${store.location}/${key}`;
  const total = size ?? (await store.stat(key, { signal }))?.size;
  if (total === undefined) throw new DrError('not-found', `vault ${store.name} has no object ${key}`, { where });
  const first = await store.read(key, { offset: 0, length: Math.min(total, HEADER_GUESS_BYTES) }, { signal });
  const end = headerEnd(first, where);
  if (end > total) throw corrupt('it is shorter than its header says', where);
  const bytes = end <= first.length ? first : await store.read(key, { offset: 0, length: end }, { signal });
  return parseHeader(bytes.subarray(WAL_PREFIX_BYTES, end), key, where);
}

/** A stored object taken apart and checked as far as that goes without its key. */
export interface SplitWalObject {
  readonly header: WalHeader;
  readonly context: string;
  readonly frames: readonly Uint8Array[];
}

/** Checks checksum, header, name and frame structure of a whole object. Throws `corrupt` naming it, `refused` for a newer format. */
export function splitWalObject(bytes: Uint8Array, key: string, location: string): SplitWalObject {
  const where = `${location}/${key}`;
  const end = headerEnd(bytes, where);
  const framesEnd = bytes.length - WAL_TRAILER_BYTES;
  if (end > framesEnd) throw corrupt('it is cut off', where);
  if (!sha256(bytes.subarray(0, framesEnd)).equals(bytes.subarray(framesEnd))) {
    throw corrupt('its content does not match its checksum', where);
  }
  const headerBytes = bytes.subarray(WAL_PREFIX_BYTES, end);
  const header = parseHeader(headerBytes, key, where);
  const frames: Uint8Array[] = [];
  let raw = 0;
  for (let at = end; at < framesEnd; ) {
    const { frameBytes, rawBytes, encrypted } = readFrameHeader(bytes.subarray(at, framesEnd), where);
    if (at + frameBytes > framesEnd) throw corrupt('its last frame is cut off', where);
    if (encrypted !== (header.keyId !== undefined))
      throw corrupt('its header and frames disagree on encryption', where);
    frames.push(bytes.subarray(at, at + frameBytes));
    raw += rawBytes;
    at += frameBytes;
  }
  if (raw !== header.length) throw corrupt(`it holds ${raw} bytes of WAL, its header says ${header.length}`, where);
  return { header, context: frameContext(header, headerBytes), frames };
}

/**
 * Opens a whole object: every check there is. `keyOf` gives the data key of an id. Throws `corrupt` naming the object, or what
 * `keyOf` throws (`wrong-key`).
 */
export async function decodeWalObject(
  bytes: Uint8Array,
  key: string,
  location: string,
  keyOf: (id: string) => Promise<DataKey>,
): Promise<{ header: WalHeader; raw: Buffer }> {
  const where = `${location}/${key}`;
  const { header, context, frames } = splitWalObject(bytes, key, location);
  const secret = header.keyId === undefined ? undefined : (await keyOf(header.keyId)).secret;
  const raw = Buffer.allocUnsafe(header.length);
  let at = 0;
  for (const [i, frame] of frames.entries()) {
    // A segment takes some ten milliseconds a frame: others get their turn in between.
    if (i > 0) await new Promise<void>((resolve) => setImmediate(resolve));
    at += openFrame(frame, header.counter + i, { secret, context }, where).copy(raw, at);
  }
  if (at !== header.length || sha256(raw).toString('hex') !== header.rawSha256) {
    throw corrupt('its content does not match the SHA-256 in its header', where);
  }
  return { header, raw };
}

function headerEnd(bytes: Uint8Array, where: string): number {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.length < WAL_PREFIX_BYTES || view.readUInt32BE(0) !== WAL_MAGIC) {
    throw corrupt('it does not begin as one (wrong magic or too short)', where);
  }
  const length = view.readUInt32BE(4);
  if (length > HEADER_LIMIT_BYTES) throw corrupt('its header has an impossible length', where);
  return WAL_PREFIX_BYTES + length;
}

function parseHeader(bytes: Uint8Array, key: string, where: string): WalHeader {
  const record = decodeRecord(bytes, 'the header of this WAL object', where);
  if (typeof record.format === 'number' && record.format > 1) {
    throw new DrError('refused', `this WAL object has format ${record.format}; this dr knows formats up to 1`, {
      where,
      next: 'Use the version of dr that wrote it, or a newer one.',
    });
  }
  const parsed = headerSchema.safeParse(record);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw corrupt(`its header is not one: ${issue?.path.join('.')}: ${issue?.message}`, where);
  }
  requireName(parsed.data, key, where);
  return parsed.data;
}

/** An object that was moved to another name is as bad as a damaged one: recovery would replay the wrong WAL. */
function requireName(header: WalHeader, key: string, where: string): void {
  const name = parseWalKey(key);
  const same =
    name !== undefined &&
    name.systemId === header.systemId &&
    name.timeline === header.timeline &&
    (name.kind === 'history') === (header.kind === 'history') &&
    (name.kind === 'segment') === header.complete;
  const range = same && name.kind !== 'history' ? rangeOfName(name, header.segmentBytes) : undefined;
  if (!same || (range && (range.start !== startOf(header) || range.end !== endOf(header)))) {
    throw corrupt(`it is that of timeline ${header.timeline}, ${header.start}, ${header.length} bytes`, where);
  }
}

function corrupt(reason: string, where: string): DrError {
  return new DrError('corrupt', `the WAL object is damaged: ${reason}`, {
    where,
    next: 'Recover from another vault (--vault NAME), then repair this one from it.',
  });
}

export function lsnPair(start: Lsn, end: Lsn): string {
  return `${formatLsn(start)} to ${formatLsn(end)}`;
}
