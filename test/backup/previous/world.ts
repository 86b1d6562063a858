import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import type { BackupContext, TakenBackup } from '../../../src/backup/context.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import type { KeyRing } from '../../../src/vault/keys.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { tempDir } from '../../harness/temp.ts';
import { TestTime } from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';
import { backupWorld } from '../fixture.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const BLOCK = 64 * KIB;

export interface World {
  readonly context: BackupContext;
  readonly keyRing: KeyRing;
  readonly east: FaultyStore;
  readonly west: FaultyStore;
  readonly time: TestTime;
  /** The directory that is backed up. */
  readonly root: string;
  readonly scratch: string;
  /** Takes a backup, a minute after the last one. */
  take(changes?: Partial<BackupContext>): Promise<TakenBackup>;
  /** Restores a backup from one vault alone and says what came back. */
  restored(manifest: Manifest, store: ObjectStore): Promise<Map<string, string>>;
}

/** Its threads are started once. */
const pool = new SealPool(2);

/** Two vaults, a scratch folder and an empty directory to back up. */
export async function incrementalWorld(partBytes = MIB): Promise<World> {
  const time = new TestTime();
  const east = new FaultyStore(time.vault('east'));
  const west = new FaultyStore(time.vault('west'));
  const base = await tempDir('incremental');
  const root = path.join(base, 'content');
  const scratch = path.join(base, 'scratch');
  mkdirSync(root);
  const { context, keyRing } = await backupWorld([east, west]);
  const ours: BackupContext = { ...context, pool, clock: time, scratch, partBytes };
  return {
    context: ours,
    keyRing,
    east,
    west,
    time,
    root,
    scratch,
    take: async (changes = {}) => {
      time.nowMs += 60_000;
      const source = { name: 'uploads', kind: 'data' as const, path: root, exclude: [], allowEmpty: true };
      return await takeDirectoryBackup({ ...ours, ...changes }, source);
    },
    restored: async (manifest, store) => {
      const target = path.join(await tempDir('restored'), 'content');
      await restoreBackup({ store, manifest, keyRing, pool, target });
      const found = contentOf(target);
      rmSync(target, { recursive: true });
      return found;
    },
  };
}

/** Every file below a directory with the digest of its content and its size. */
export function contentOf(root: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
    const place = path.join(root, name);
    const stats = statSync(place);
    const digest = stats.isFile() ? createHash('sha256').update(readFileSync(place)).digest('hex') : 'directory';
    found.set(name, `${stats.isFile() ? stats.size : ''} ${digest}`);
  }
  return found;
}

/** Numbers that are the same for the same seed. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** 0 up to, and without, `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  }

  /** Does not compress, so that stored bytes say what was stored. */
  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    let state = this.below(0x7fffffff) | 1;
    for (let i = 0; i + 4 <= length; i += 4) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      bytes.writeInt32LE(state, i);
    }
    return bytes;
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }
}

/** Writes at a place of a file that may not exist yet. */
export function writeAt(place: string, position: number, bytes: Uint8Array): void {
  const file = openSync(place, existsSync(place) ? 'r+' : 'w+');
  writeSync(file, bytes, 0, bytes.length, position);
  closeSync(file);
}

/** Changes a directory as time does: a few of everything that can happen to files. */
export function change(root: string, random: Random): void {
  const files = () =>
    readdirSync(root, { recursive: true, encoding: 'utf8' })
      .map((name) => path.join(root, name))
      .filter((place) => statSync(place).isFile())
      .sort();
  const fresh = () => path.join(root, `d${random.below(3)}`, `f${random.below(1000)}`);
  const sizes = [0, 1, 300, 5000, MIB - 1, MIB, MIB + 1, 4 * MIB + 5, 5 * MIB + 70_000];
  const steps: Array<() => void> = [
    () => writeFileSync(fresh(), random.bytes(random.pick(sizes) ?? 0)),
    () => {
      // A sparse file: islands of data in the middle of nothing.
      const file = openSync(fresh(), 'w+');
      ftruncateSync(file, random.pick([2 * MIB, 5 * MIB, 9 * MIB + 123]) ?? 0);
      for (let i = random.below(4); i > 0; i--)
        writeSync(file, random.bytes(BLOCK + random.below(BLOCK)), 0, undefined, random.below(5 * MIB));
      closeSync(file);
    },
    ...Array.from({ length: 3 }, () => () => {
      const place = random.pick(files());
      if (place === undefined) return;
      for (let i = 1 + random.below(3); i > 0; i--) {
        writeAt(place, random.below(Math.max(1, statSync(place).size)), random.bytes(1 + random.below(2 * BLOCK)));
      }
    }),
    () => {
      const place = random.pick(files());
      if (place !== undefined) writeAt(place, statSync(place).size, random.bytes(random.below(3 * BLOCK)));
    },
    () => {
      const place = random.pick(files());
      if (place !== undefined) truncateSync(place, random.below(statSync(place).size + 1));
    },
    () => {
      const place = random.pick(files());
      if (place !== undefined) truncateSync(place, statSync(place).size + random.below(3 * MIB));
    },
    () => {
      const place = random.pick(files());
      if (place !== undefined) renameSync(place, fresh());
    },
    () => {
      const place = random.pick(files());
      if (place !== undefined && random.below(3) === 0) rmSync(place);
    },
    () => {
      const place = random.pick(files());
      if (place !== undefined) utimesSync(place, random.below(1e9), random.below(1e9));
    },
    () => {
      // From large to small and back.
      const place = random.pick(files());
      if (place !== undefined) writeFileSync(place, random.bytes(statSync(place).size > MIB ? 5000 : 3 * MIB));
    },
  ];
  for (let n = 0; n < 3; n++) mkdirSync(path.join(root, `d${n}`), { recursive: true });
  for (let i = 2 + random.below(6); i > 0; i--) random.pick(steps)?.();
}
