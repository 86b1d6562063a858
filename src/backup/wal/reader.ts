import { DrError } from '../../base/errors.ts';
import type { KeyRing } from '../../vault/keys.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { piecesFor } from './coverage.ts';
import type { ListedWal } from './listing.ts';
import { parseWalKey } from './names.ts';
import { decodeWalObject } from './object.ts';

export { nextWalNames } from './names.ts';

/** A piece listed a moment ago may have become part of its whole segment: then the listing is read again, at most this often. */
const LISTINGS = 4;
const PIECES_IN_FLIGHT = 8;

/**
 * One file for recovery from one vault: a WAL file (`000000010000000A000000FE`), put together from pieces and filled up with zeros where
 * it never became whole, or a timeline history (`00000002.history`). Undefined only when the archive has nothing under this name. Throws
 * `corrupt` naming the damaged object or the hole, `wrong-key`, or what the store throws: never "nothing" for something unreadable.
 */
export async function fetchWalFile(
  store: ObjectStore,
  keyRing: KeyRing,
  systemId: string,
  fileName: string,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  const history = /^([0-9A-F]{8})\.history$/.exec(fileName);
  const timeline = Number.parseInt(fileName.slice(0, 8), 16);
  const read: ReadWal = async (key) => {
    const bytes = await orNothing(() => store.read(key, undefined, { signal }));
    return bytes && (await decodeWalObject(bytes, key, store.location, (id) => keyRing.open(store, id)));
  };
  if (history) {
    const key = layout.walHistory(systemId, timeline);
    const found = await read(key);
    if (found) return found.raw;
    // A vault that is gone altogether must not look like one without this file: its listing fails.
    for await (const object of store.list(key, { signal }))
      throw vanishing(fileName, `${store.location}/${object.key}`);
    return undefined;
  }
  if (!/^[0-9A-F]{24}$/.test(fileName)) return undefined;
  const whole = layout.walSegment(systemId, timeline, fileName);
  for (let attempt = 1; ; attempt++) {
    const segment = await read(whole);
    if (segment) return segment.raw;
    const listed: ListedWal[] = [];
    for await (const { key, size } of store.list(whole, { signal })) {
      const name = parseWalKey(key);
      if (name) listed.push({ key, size, name });
    }
    if (listed.length === 0) return undefined;
    if (!listed.some(({ name }) => name.kind === 'segment')) {
      const file = await assemble(listed, read, whole, store.location);
      if (file) return file;
    }
    if (attempt === LISTINGS) throw vanishing(fileName, `${store.location}/${whole}`);
  }
}

/** Reads and opens one object; undefined when it is not there (any more). */
type ReadWal = (key: string) => Promise<Awaited<ReturnType<typeof decodeWalObject>> | undefined>;

function vanishing(fileName: string, where: string): DrError {
  return new DrError('corrupt', `the WAL file ${fileName} is listed but cannot be read`, {
    where,
    next: 'Run it again; if it repeats, recover from another vault (--vault NAME).',
    retryable: true,
  });
}

/** Undefined when a piece has gone since it was listed. */
async function assemble(
  listed: readonly ListedWal[],
  read: ReadWal,
  whole: string,
  location: string,
): Promise<Buffer | undefined> {
  const { chosen, end, next } = piecesFor(listed);
  if (next !== undefined) {
    throw new DrError('corrupt', `WAL is missing inside a segment: bytes ${end} to ${next}`, {
      where: `${location}/${whole}`,
      next: 'Recover from another vault (--vault NAME), or to a time before this segment.',
    });
  }
  let file: Buffer | undefined;
  for (let at = 0; at < chosen.length; at += PIECES_IN_FLIGHT) {
    const batch = chosen.slice(at, at + PIECES_IN_FLIGHT);
    const contents = await Promise.all(batch.map(({ key }) => read(key)));
    for (const [i, content] of contents.entries()) {
      const name = batch[i]?.name;
      if (!content || name?.kind !== 'piece') return undefined;
      file ??= Buffer.alloc(content.header.segmentBytes);
      // PostgreSQL wants files of full size; zeros end the WAL just as in its own pre-allocated files.
      content.raw.copy(file, name.from);
    }
  }
  return file;
}

async function orNothing<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DrError && error.kind === 'not-found') return undefined;
    throw error;
  }
}
