import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { layout } from '../../vault/layout.ts';
import { readEachAlone } from '../../vault/read-each.ts';
import type {
  ByteRange,
  CallOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  ObjectVersions,
  ReadOutcome,
  StoreStats,
} from '../../vault/store.ts';
import { decodeManifest } from '../manifest.ts';
import type { VaultProblem } from './check-vault-findings.ts';

/** What `dr` itself removes from time to time, and so hides in a bucket with versions. Nobody misses it. */
const removedByUs = /^(?:verifications|runs|configuration|leases|hints|heartbeats|probes)\//;

/**
 * What delete markers hide in a vault, as if it were another vault to copy from: somebody has deleted it, and the bucket keeps versions.
 * Only for reading.
 */
export class HiddenView implements ObjectStore {
  readonly name: string;
  readonly region: string;
  readonly location: string;
  readonly stats: StoreStats;
  readonly #versions: ObjectVersions;

  constructor(store: ObjectStore, versions: ObjectVersions) {
    this.name = `${store.name} (hidden by delete markers)`;
    this.region = store.region;
    this.location = store.location;
    this.stats = store.stats;
    this.#versions = versions;
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    const { startAfter = '', before } = options;
    for await (const info of this.#versions.hidden(prefix, options)) {
      if (before !== undefined && info.key >= before) return;
      if (info.key > startAfter && !removedByUs.test(info.key)) yield info;
    }
  }

  async *names(prefix: string, options?: ListOptions): AsyncGenerator<string> {
    for await (const { key } of this.list(prefix, options)) yield key;
  }

  async folders(prefix: string, options?: CallOptions): Promise<string[]> {
    const names = new Set<string>();
    for await (const { key } of this.list(prefix, options)) {
      const rest = key.slice(prefix.length);
      if (rest.includes('/')) names.add(rest.slice(0, rest.indexOf('/')));
    }
    return [...names];
  }

  async read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    const bytes = await this.#versions.readHidden(key, options);
    if (!range) return bytes;
    if (range.offset + range.length <= bytes.length) return bytes.subarray(range.offset, range.offset + range.length);
    throw new DrError('corrupt', `${key} is too short`, { where: `${this.location}/${key}` });
  }

  readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }

  async stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined> {
    for await (const info of this.list(key, options)) return info.key === key ? info : undefined;
    return undefined;
  }

  async prepare(): Promise<void> {}
  async create(): Promise<never> {
    throw readOnly();
  }
  async overwrite(): Promise<never> {
    throw readOnly();
  }
  async delete(): Promise<never> {
    throw readOnly();
  }
  async close(): Promise<void> {}
}

function readOnly(): DrError {
  return new DrError('internal', 'what is hidden can only be read');
}

/** The view of a vault whose bucket keeps versions, as far as these credentials may know; none for any other vault. */
export async function hiddenViews(store: ObjectStore, signal: AbortSignal | undefined): Promise<HiddenView[]> {
  const { versions } = store;
  if (!versions || (await versions.areKept({ signal })) === false) return [];
  return [new HiddenView(store, versions)];
}

/** Says of what is missing that a delete marker hides it, and since when it is. */
export async function tellHidden(
  store: ObjectStore,
  problems: readonly VaultProblem[],
  signal: AbortSignal | undefined,
): Promise<VaultProblem[]> {
  const hidden = await hiddenAmong(
    store,
    problems.filter(isMissing).map(({ key }) => key),
    signal,
  );
  return problems.map((problem) => {
    const hiddenMs = isMissing(problem) ? hidden.get(problem.key) : undefined;
    if (hiddenMs === undefined) return problem;
    return {
      ...problem,
      why: `somebody deleted it at ${new Date(hiddenMs).toISOString()}; the bucket still has it (${problem.why})`,
    };
  });
}

function isMissing({ state, kind }: VaultProblem): boolean {
  // Of missing WAL the key is the first segment of the hole.
  return state === 'missing' && kind !== 'wal';
}

/** When they were hidden, by key. */
async function hiddenAmong(
  { versions }: ObjectStore,
  keys: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  const folders = Map.groupBy(keys, (key) => key.slice(0, key.lastIndexOf('/') + 1));
  for (const [folder, group] of folders) {
    const wanted = new Set(group);
    for await (const { key, hiddenMs } of versions?.hidden(folder, { signal }) ?? []) {
      if (wanted.has(key)) found.set(key, hiddenMs);
    }
  }
  return found;
}

/**
 * Brings back what is missing and only hidden by taking the delete markers away: at once, whatever its size. What a backup needs comes
 * before its manifest. Returns the keys that are back; without the right (s3:DeleteObjectVersion) none: they are then copied.
 */
export async function revealMissing(
  view: HiddenView,
  store: ObjectStore,
  problems: readonly VaultProblem[],
  log: Log,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const { versions } = store;
  const missing = problems.filter(isMissing).map(({ key }) => key);
  if (!versions || missing.length === 0) return [];
  const manifests = missing.filter((key) => key.startsWith(layout.manifests()));
  const contents = missing.filter((key) => !key.startsWith(layout.manifests()));
  const back: string[] = [];
  try {
    for (const key of manifests) contents.push(...(await contentOf(view, key, signal)));
    for (const group of [contents, manifests]) {
      const hidden = [...(await hiddenAmong(store, [...new Set(group)], signal)).keys()];
      await versions.reveal(hidden, { signal });
      back.push(...hidden);
    }
  } catch (error) {
    if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    if (!['denied', 'refused'].includes(error.kind)) throw error;
    log.info({ vault: store.name, error }, 'delete markers cannot be taken away: what they hide is copied');
  }
  return back;
}

/** What a hidden manifest names; nothing where it cannot be read. */
async function contentOf(view: HiddenView, key: string, signal: AbortSignal | undefined): Promise<string[]> {
  try {
    const { index, parts } = decodeManifest(await view.read(key, undefined, { signal }), `${view.location}/${key}`);
    const keyIds = new Set([index, ...parts].flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])));
    const keys: string[] = [];
    for (const id of keyIds) {
      for await (const info of view.list(layout.keyGenerations(id), { signal })) keys.push(info.key);
    }
    return [...keys, ...parts.map((part) => part.key), index.key];
  } catch (error) {
    if (error instanceof DrError && ['not-found', 'corrupt', 'refused'].includes(error.kind)) return [];
    throw error;
  }
}
