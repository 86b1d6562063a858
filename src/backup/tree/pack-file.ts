import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { codeOf, messageOf } from '../../base/errors.ts';
import { readExtendedAttributes } from '../../base/file-attributes.ts';
import { libc } from '../../base/libc.ts';
import type { Attribute } from '../index-format.ts';
import type { EntryHead, PackWriter } from '../pack-writer.ts';
import type { PreviousEntry, StatFacts } from '../previous/previous-backup.ts';
import { type EntryStat, FACT_COUNT, packStat, unpackStat } from './entry-stat.ts';
import type { Proven } from './proven.ts';
import { Outcome } from './tree-jobs.ts';
import { attributesOf, headOf, type PlannedFile } from './tree-plan.ts';

const READ_BYTES = 1024 * 1024;
/** Runs of zeros of this size, at multiples of it, become holes in a file that is sparse. */
const HOLE_BYTES = 64 * 1024;

/** Packs a file whose content is at hand. `facts`: what proves next time that it is the same. */
export async function packContent(
  pack: PackWriter,
  head: EntryHead,
  stat: EntryStat,
  previous: PreviousEntry | undefined,
  content: Uint8Array,
  facts: StatFacts | undefined,
): Promise<void> {
  await pack.begin(head, content.length, previous);
  await writeContent(pack, content, stat.isSparse);
  await pack.end(facts);
}

export interface PackedAlone {
  readonly outcome: number;
  /** Why it could not be opened, or where its content is cut off. */
  readonly failure?: { readonly code: string | undefined; readonly message: string };
  readonly attributesFailure?: string;
}

/** Opens and packs one file of any size, reading ahead of what is packed. */
export async function packAlone(options: {
  readonly pack: PackWriter;
  readonly file: PlannedFile;
  readonly proven: Proven;
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: ((path: string) => void) | undefined;
}): Promise<PackedAlone> {
  const { pack, file, proven, onFile } = options;
  // Never through a link that took the file's place since it was listed; never blocking on a pipe.
  const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  const fromMs = proven.begin();
  let handle: FileHandle;
  try {
    handle = await open(file.absolute, flags);
  } catch (error) {
    return { outcome: Outcome.failed, failure: { code: codeOf(error), message: messageOf(error) } };
  }
  try {
    const before = await handle.stat({ bigint: true });
    if (!before.isFile()) return { outcome: Outcome.notAFile };
    onFile?.(file.path.toString('utf8'));
    const stat = statOf(before);
    const { attributes, failure: attributesFailure } = attributesOfHandle(handle);
    await pack.begin(headOf(file.path, 'file', stat, attributes), Number(stat.size), file.previous);
    const { failure, bytes } = await copyContent(handle, pack, stat.isSparse, options.signal);
    const after = await handle.stat({ bigint: true });
    const sameTimes = after.mtimeNs === before.mtimeNs && after.size === before.size;
    const isWhole = !failure && sameTimes && bytes === before.size && attributesFailure === undefined;
    await pack.end(isWhole ? proven.factsOf(stat, fromMs) : undefined);
    const outcome = failure ? Outcome.cutOff : sameTimes && bytes === before.size ? Outcome.whole : Outcome.changed;
    return {
      outcome,
      ...(failure ? { failure } : {}),
      ...(attributesFailure === undefined ? {} : { attributesFailure }),
    };
  } finally {
    await handle.close();
  }
}

/** Reads to the end of the file; an input/output error ends it early and is returned. */
async function copyContent(
  handle: FileHandle,
  pack: PackWriter,
  isSparse: boolean,
  signal: AbortSignal | undefined,
): Promise<{ bytes: bigint; failure?: { code: string; message: string } }> {
  const buffers = [Buffer.allocUnsafeSlow(READ_BYTES), Buffer.allocUnsafeSlow(READ_BYTES)] as const;
  const read = (turn: number) => {
    const reading = handle.read(buffers[turn % 2 === 0 ? 0 : 1], 0, READ_BYTES, null);
    // It is awaited one turn later, which a failure of the pack may forestall.
    reading.catch(() => {});
    return reading;
  };
  let bytes = 0n;
  let next = read(0);
  for (let turn = 1; ; turn++) {
    let bytesRead: number;
    let buffer: Buffer;
    try {
      ({ bytesRead, buffer } = await next);
    } catch (error) {
      if (codeOf(error) !== 'EIO') throw error;
      return { bytes, failure: { code: 'EIO', message: messageOf(error) } };
    }
    if (bytesRead === 0) return { bytes };
    bytes += BigInt(bytesRead);
    signal?.throwIfAborted();
    next = read(turn);
    try {
      await writeContent(pack, buffer.subarray(0, bytesRead), isSparse);
    } catch (error) {
      // The file is closed next: not under a read.
      await next.catch(() => {});
      throw error;
    }
  }
}

/** `content` begins at a multiple of HOLE_BYTES of the file. */
async function writeContent(pack: PackWriter, content: Uint8Array, isSparse: boolean): Promise<void> {
  if (!isSparse) {
    await pack.write(content);
    return;
  }
  for (let at = 0; at < content.length; at += HOLE_BYTES) {
    const block = content.subarray(at, at + HOLE_BYTES);
    if (block.length === HOLE_BYTES && zeros.equals(block)) await pack.hole(block.length);
    else await pack.write(block);
  }
}

function attributesOfHandle(handle: FileHandle): { attributes: readonly Attribute[]; failure?: string } {
  const calls = libc();
  if (!calls) return { attributes: [] };
  try {
    return { attributes: attributesOf(readExtendedAttributes(handle.fd, calls)) };
  } catch (error) {
    return { attributes: [], failure: messageOf(error) };
  }
}

function statOf(stats: BigIntStats): EntryStat {
  const numbers = new BigInt64Array(FACT_COUNT);
  packStat(numbers, 0, stats);
  return unpackStat(numbers, 0);
}

const zeros = Buffer.alloc(HOLE_BYTES);
