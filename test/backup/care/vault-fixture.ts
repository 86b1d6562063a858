import { createHash, randomBytes } from 'node:crypto';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { encodeManifest, type Manifest, type ResourceKind } from '../../../src/backup/manifest.ts';
import { type Verification, writeVerification } from '../../../src/backup/verified.ts';
import { WalSealer } from '../../../src/backup/wal/sealer.ts';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import { formatLsn } from '../../../src/postgres/lsn.ts';
import { createDataKey, type DataKey } from '../../../src/vault/keys.ts';
import { FORMAT_VERSION, layout, timedId } from '../../../src/vault/layout.ts';
import { MemoryStore } from '../../../src/vault/memory-store.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';

export const hour = 3_600_000;
export const day = 24 * hour;
export const MIB = 1024 * 1024;
export const SYSTEM = '7301234567890123456';
const recipient = await identityToRecipient(await generateIdentity());

/** Time that stands still until a test moves it; vaults made here stamp their objects with it. */
export class TestTime implements Clock {
  nowMs: number;
  constructor(nowMs = Date.UTC(2026, 10, 23)) {
    this.nowMs = nowMs;
  }
  now = (): number => this.nowMs;
  sleep = systemClock.sleep;
  /** Does something as if it were `ms` milliseconds ago. */
  async ago<T>(ms: number, work: () => Promise<T>): Promise<T> {
    const real = this.nowMs;
    this.nowMs = real - ms;
    try {
      return await work();
    } finally {
      this.nowMs = real;
    }
  }
  vault(name: string): MemoryStore {
    return new MemoryStore({ name, region: `region-${name}`, now: this.now });
  }
}

const pool = new SealPool(1);

export interface FakeBackup {
  readonly resource?: string;
  readonly kind?: ResourceKind;
  readonly time: TestTime;
  readonly parts?: number;
  /** Where its WAL begins, in segments of 1 MiB. */
  readonly walSegment?: number;
  /** Bytes of WAL until it is consistent. */
  readonly walBytes?: number;
  readonly systemId?: string;
  /** Parts of earlier backups that it uses as well. */
  readonly shares?: readonly Manifest['parts'][number][];
  /** False: everything but the manifest is stored, as by a backup that was killed. */
  readonly commit?: boolean;
  readonly sealed?: boolean;
  readonly notes?: Manifest['notes'];
}

/** Stores a backup whose objects are all there and fit their digests (but hold noise), in all vaults at once. */
export async function putBackup(stores: readonly ObjectStore[], facts: FakeBackup): Promise<Manifest> {
  const { resource = 'orders', kind = 'database', time, systemId = SYSTEM, walSegment = 0 } = facts;
  const nowMs = time.now();
  const id = timedId(nowMs, randomBytes(3).toString('hex'));
  const created =
    facts.sealed === false ? undefined : await createDataKey({ recipients: [recipient] }, nowMs, 'backup');
  const keyId = created ? { keyId: created.key.id } : {};
  const put = async (key: string, bytes: Uint8Array) => {
    for (const store of stores) await store.create(key, bytes);
    return { key, size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
  };
  if (created) await put(created.objectKey, created.object);
  const own: Manifest['parts'] = [];
  for (let n = 0; n < (facts.parts ?? 2); n++) {
    own.push({ ...(await put(layout.part(resource, id, n), randomBytes(1000))), context: id, ...keyId });
  }
  const index = { ...(await put(layout.index(resource, id), randomBytes(100))), context: `${id}/index`, ...keyId };
  const startLsn = BigInt(walSegment * MIB) + 40n;
  const at = new Date(nowMs).toISOString();
  const manifest: Manifest = {
    format: FORMAT_VERSION,
    id,
    resource,
    kind,
    tool: 'dr test',
    site: 'east',
    source: 'test',
    startedAt: at,
    finishedAt: at,
    recoveryPoint: at,
    encryption: created ? 'age' : 'none',
    entries: 1,
    logicalBytes: 5000,
    storedBytes: own.length * 1000 + 100,
    contentDigest: createHash('sha256').update(id).digest('hex'),
    index,
    parts: [...(facts.shares ?? []), ...own],
    notes: facts.notes ?? [],
    ...(kind === 'database'
      ? {
          database: {
            systemId,
            timeline: 1,
            startLsn: formatLsn(startLsn),
            endLsn: formatLsn(startLsn + BigInt(facts.walBytes ?? 400)),
            version: '17.0',
            majorVersion: 17,
            segmentBytes: MIB,
            dataChecksums: true,
            settings: {},
            tablespaces: [],
          },
        }
      : {}),
  };
  if (facts.commit !== false) await put(layout.manifest(resource, id), encodeManifest(manifest));
  return manifest;
}

/** A receiver session: makes WAL objects below one key. */
export async function walSession(stores: readonly ObjectStore[], time: TestTime, systemId = SYSTEM) {
  const created = await createDataKey({ recipients: [recipient] }, time.now(), `wal/${systemId}`);
  if (!created) throw new Error('no key');
  for (const store of stores) await store.create(created.objectKey, created.object);
  const key: DataKey = created.key;
  const sealer = new WalSealer({ systemId, key, pool, level: 1 });
  const put = async (segment: number, timeline: number, from: number, length: number, clockMs: number) => {
    const raw = Buffer.alloc(length, segment);
    const { object } = await sealer.seal(
      {
        timeline,
        start: BigInt(segment * MIB + from),
        segmentBytes: MIB,
        rawSha256: createHash('sha256').update(raw).digest('hex'),
        serverClockMs: clockMs,
        endClockMs: clockMs,
      },
      [
        { view: raw.subarray(0, Math.min(length, 100_000)) },
        ...(length > 100_000 ? [{ view: raw.subarray(100_000) }] : []),
      ],
    );
    for (const store of stores) await store.create(object.key, object.body);
    return object.key;
  };
  return {
    keyObject: created.objectKey,
    keyId: key.id,
    /** A whole segment. */
    segment: (number: number, timeline = 1) => put(number, timeline, 0, MIB, time.now()),
    /** Bytes of an open segment. */
    piece: (number: number, from: number, length: number, timeline = 1) =>
      put(number, timeline, from, length, time.now()),
  };
}

export async function putVerification(
  stores: readonly ObjectStore[],
  backup: Manifest,
  time: TestTime,
  facts: Partial<Verification> = {},
): Promise<Verification> {
  const at = new Date(time.now()).toISOString();
  const verification: Verification = {
    format: 1,
    id: timedId(time.now(), randomBytes(3).toString('hex')),
    resource: backup.resource,
    kind: backup.kind,
    backupId: backup.id,
    vault: stores[0]?.name ?? '',
    site: 'west',
    startedAt: at,
    finishedAt: at,
    recoveredTo: backup.recoveryPoint,
    ok: true,
    checks: [],
    bytes: backup.logicalBytes,
    restoreMs: 60_000,
    ...facts,
  };
  await writeVerification(stores, verification, silentLog);
  return verification;
}

export async function keysOf(store: ObjectStore, prefix = ''): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

/** Flips one byte of a stored object. */
export async function damage(store: ObjectStore, key: string, at = 20): Promise<void> {
  const bytes = await store.read(key);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await store.overwrite(key, bytes);
}
