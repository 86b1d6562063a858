import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import type { ReadAnswer, ReadBatch } from './file-read-jobs.ts';

// One file takes four calls. Through Node's thread pool each of them wakes a thread and comes back by the event loop, which takes
// several times as long as the call; here they are plain calls, and a volume that hangs keeps only this thread waiting.

/** An answer goes out when it has this many bytes. */
const ANSWER_BYTES = 4 * 1024 * 1024;

let scratch = Buffer.allocUnsafeSlow(1024 * 1024);

function readBatch({ id, paths }: ReadBatch): void {
  let lengths: number[] = [];
  let used = 0;
  const answer = (done: boolean) => {
    const bytes = new Uint8Array(scratch.subarray(0, used)).buffer;
    const message: ReadAnswer = { id, bytes, lengths, done };
    parentPort?.postMessage(message, [bytes]);
    lengths = [];
    used = 0;
  };
  for (const path of paths) {
    const length = append(path, used);
    lengths.push(length);
    used += Math.max(0, length);
    if (used >= ANSWER_BYTES) answer(false);
  }
  answer(true);
}

/** Reads a file to the end of what is in `scratch`; its length, or -1. */
function append(path: string, at: number): number {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const info = fstatSync(descriptor);
    if (!info.isFile()) return -1;
    makeRoom(at + info.size, at);
    let done = 0;
    while (done < info.size) {
      const bytesRead = readSync(descriptor, scratch, at + done, info.size - done, done);
      if (bytesRead === 0) return -1;
      done += bytesRead;
    }
    return done;
  } catch {
    return -1;
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function makeRoom(bytes: number, keep: number): void {
  if (bytes <= scratch.length) return;
  const larger = Buffer.allocUnsafeSlow(bytes * 2);
  scratch.copy(larger, 0, 0, keep);
  scratch = larger;
}

parentPort?.on('message', readBatch);
