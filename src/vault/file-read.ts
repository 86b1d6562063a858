import { close, constants, fstat, open, read } from 'node:fs';
import { promisify } from 'node:util';
import { codeOf, DrError } from '../base/errors.ts';
import type { ByteRange } from './store.ts';

// Descriptors, not the handles of node:fs/promises: those take half as long again, and a catalogue is tens of thousands of small files.
const openFile = promisify(open);
const statFile = promisify(fstat);
const closeFile = promisify(close);

/** The whole file, or exactly `range` of it. Throws `corrupt` when it is too short, and ENOENT also for what is no file. */
export async function readRange(
  path: string,
  range: ByteRange | undefined,
  where: string,
  key: string,
): Promise<Buffer> {
  const descriptor = await openFile(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: unknown) => {
    if (codeOf(error) !== 'ELOOP') throw error;
    const next = 'Replace the link by the file itself: dr does not leave the directory of a vault.';
    throw new DrError('refused', `${key} is a symbolic link`, { where, next, cause: error });
  });
  try {
    const info = await statFile(descriptor);
    if (!info.isFile()) throw Object.assign(new Error(`${path} is no file`), { code: 'ENOENT' });
    const offset = range?.offset ?? 0;
    const length = range?.length ?? info.size;
    if (offset + length > info.size) {
      throw new DrError('corrupt', `${key} has ${info.size} bytes, ${offset + length} are needed`, { where });
    }
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const bytesRead = await readInto(descriptor, bytes, done, offset + done);
      if (bytesRead === 0) throw new DrError('corrupt', `${key} became shorter while it was read`, { where });
      done += bytesRead;
    }
    return bytes;
  } finally {
    await closeFile(descriptor);
  }
}

function readInto(descriptor: number, bytes: Buffer, at: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(descriptor, bytes, at, bytes.length - at, position, (error, bytesRead) => {
      if (error) reject(error);
      else resolve(bytesRead);
    });
  });
}
