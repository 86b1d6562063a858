import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
} from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { codeOf, messageOf } from '../../base/errors.ts';
import { readExtendedAttributes } from '../../base/file-attributes.ts';
import { type FileRef, libc } from '../../base/libc.ts';
import { FACT_COUNT, packStat } from './entry-stat.ts';
import {
  CHUNK_ENTRIES,
  type EntryAttributes,
  type EntryFacts,
  type Failure,
  type ListJob,
  type ListResult,
  Outcome,
  type ReadJob,
  type ReadResult,
  type TreeAnswer,
  type TreeJob,
  type TreeResult,
} from './tree-jobs.ts';

// A thread of its own may wait for disks: its calls are synchronous, which costs a fifth of what the asynchronous ones of Node do.

/** A file that grows is read on in steps of this size. */
const GROWTH_BYTES = 64 * 1024;

const calls = libc();

function list({ directory }: ListJob): ListResult {
  // One byte a character: sorted in byte order, and far smaller than a buffer a name.
  const names = readdirSync(Buffer.from(directory), 'latin1').sort();
  return { names: joined(names), facts: look(directory, names.slice(0, CHUNK_ENTRIES)) };
}

function look(directory: Uint8Array, names: readonly string[]): EntryFacts {
  const numbers = new BigInt64Array(names.length * FACT_COUNT);
  const failures: Failure[] = [];
  const targets: Array<{ index: number; target: Uint8Array }> = [];
  const attributes: EntryAttributes[] = [];
  for (const [index, name] of names.entries()) {
    const path = pathOf(directory, name);
    try {
      const stats = lstatSync(path, { bigint: true });
      // A link is of use only with its target: it is looked at again when that fails.
      if (stats.isSymbolicLink()) targets.push({ index, target: readlinkSync(path, 'buffer') });
      packStat(numbers, index, stats);
      addAttributes(attributes, index, path);
    } catch (error) {
      failures.push(failureOf(index, error));
    }
  }
  return { numbers, failures, targets, attributes };
}

function read({ directory, names: list, buffer }: ReadJob): ReadResult {
  const names = split(list);
  const result = {
    buffer,
    numbers: new BigInt64Array(names.length * FACT_COUNT),
    outcomes: new Uint8Array(names.length),
    places: new Uint32Array(2 * names.length),
    failures: [] as Failure[],
    attributes: [] as EntryAttributes[],
  };
  const bytes = new Uint8Array(buffer);
  let at = 0;
  for (const [index, name] of names.entries()) {
    const length = readOne(index, pathOf(directory, name), bytes, at, result);
    result.places.set([at, length], 2 * index);
    at += length;
  }
  return result;
}

/** Reads one file to its place in the buffer and tells how many bytes it has there. */
function readOne(
  index: number,
  path: Buffer,
  bytes: Uint8Array,
  at: number,
  result: Omit<ReadResult, 'failures' | 'attributes'> & { failures: Failure[]; attributes: EntryAttributes[] },
): number {
  const outcome = (value: number, kept = 0) => {
    result.outcomes[index] = value;
    return kept;
  };
  let length = 0;
  let fd: number;
  try {
    // Never through a link that took the file's place since it was listed; never blocking on a pipe.
    fd = openSync(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    result.failures.push(failureOf(index, error));
    return outcome(Outcome.failed);
  }
  try {
    const before = fstatSync(fd, { bigint: true });
    if (!before.isFile()) return outcome(Outcome.notAFile);
    packStat(result.numbers, index, before);
    addAttributes(result.attributes, index, fd);
    const size = Number(before.size);
    // One byte more shows that the file ends where it says, in the same call.
    let end = at + size + 1;
    for (;;) {
      if (end > bytes.length) return outcome(Outcome.tooLarge);
      const wanted = end - at - length;
      const got = readSync(fd, bytes, at + length, wanted, null);
      length += got;
      if (got === 0 || (length === size && got < wanted)) break;
      if (got === wanted) end += GROWTH_BYTES;
    }
    const hasChanged = changed(before, fstatSync(fd, { bigint: true })) || length !== size;
    return outcome(hasChanged ? Outcome.changed : Outcome.whole, length);
  } catch (error) {
    result.failures.push(failureOf(index, error));
    return codeOf(error) === 'EIO' ? outcome(Outcome.cutOff, length) : outcome(Outcome.failed);
  } finally {
    closeSync(fd);
  }
}

function changed(before: BigIntStats, after: BigIntStats): boolean {
  return after.mtimeNs !== before.mtimeNs || after.size !== before.size;
}

function addAttributes(to: EntryAttributes[], index: number, of: FileRef): void {
  if (!calls) return;
  try {
    const attributes = readExtendedAttributes(of, calls);
    if (attributes.length > 0) to.push({ index, attributes });
  } catch (error) {
    to.push({ index, attributes: [], failure: messageOf(error) });
  }
}

function failureOf(index: number, error: unknown): Failure {
  return { index, code: codeOf(error), message: messageOf(error) };
}

function joined(names: readonly string[]): Uint8Array {
  return Uint8Array.from(Buffer.from(names.join('\0'), 'latin1'));
}

function split(names: Uint8Array): string[] {
  return names.length === 0 ? [] : Buffer.from(names).toString('latin1').split('\0');
}

function pathOf(directory: Uint8Array, name: string): Buffer {
  return Buffer.concat([directory, Buffer.from(`/${name}`, 'latin1')]);
}

function work(job: TreeJob): { result: TreeResult; transfer: ArrayBuffer[] } {
  if (job.kind === 'list') return { result: list(job), transfer: [] };
  if (job.kind === 'look') return { result: look(job.directory, split(job.names)), transfer: [] };
  return { result: read(job), transfer: [job.buffer] };
}

/** Milliseconds that this thread has run, and those that it was ready to run while others had the processors. */
function processorMs(): number {
  try {
    // Nanoseconds of both; Linux only.
    const [ran = 0, ready = 0] = readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ').map(Number);
    return (ran + ready) / 1e6;
  } catch {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  }
}

parentPort?.on('message', ({ id, job }: { id: number; job: TreeJob }) => {
  const began = performance.now();
  const processor = processorMs();
  const times = () => {
    const tookMs = performance.now() - began;
    return { tookMs, waitedMs: tookMs - (processorMs() - processor) };
  };
  try {
    const { result, transfer } = work(job);
    parentPort?.postMessage({ id, result, ...times() } satisfies TreeAnswer, transfer);
  } catch (error) {
    const failure = { code: codeOf(error), message: messageOf(error) };
    parentPort?.postMessage({ id, failure, ...times() } satisfies TreeAnswer);
  }
});
