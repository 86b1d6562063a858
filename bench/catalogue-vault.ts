import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, utimesSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { encodeEntry } from '../src/backup/index-format.ts';
import { encodeManifest, type Manifest, type Part } from '../src/backup/manifest.ts';
import { walKey } from '../src/backup/wal/names.ts';
import { frameContext, WAL_MAGIC, type WalHeader } from '../src/backup/wal/object.ts';
import { formatLsn } from '../src/postgres/lsn.ts';
import { createDataKey } from '../src/vault/keys.ts';
import { layout, timedId } from '../src/vault/layout.ts';
import { encodeRecord } from '../src/vault/record.ts';
import { sealFrame, sha256 } from '../src/vault/seal.ts';

// One vault of the catalogue of bench/catalogue.ts, written as plain files: a process of its own, so that two vaults are made at once.

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** The smallest segment that PostgreSQL knows: a million of them have to be sealed. */
const SEGMENT_BYTES = 1024 * 1024;
const FIRST_LSN = 0x1000000n;

/** Resources of one kind and their backups, evenly spread over the time. */
export interface ResourceSpec {
  readonly name: string;
  readonly kind: Manifest['kind'];
  readonly backups: number;
  /** From the first backup until now. */
  readonly spanMs: number;
  /** New parts of each backup, and how many parts its manifest lists: the others are those of the backups before. */
  readonly newParts: number;
  readonly listedParts: number;
  readonly walSegments: number;
}

const NAMES = ['orders', 'billing', 'stock', 'users', 'carts', 'prices', 'mails', 'search', 'audit', 'jobs'];

/** `scale` 1: 20,000 backups and a million objects. Each resource has some backups beyond the usual retention. */
export function catalogueSpec(scale: number): ResourceSpec[] {
  const of = (count: number) => Math.max(2, Math.round(count * scale));
  return [
    ...NAMES.map((name) => ({
      name,
      kind: 'database' as const,
      backups: of(736),
      spanMs: 30 * DAY_MS + 16 * HOUR_MS,
      newParts: 24,
      listedParts: 48,
      walSegments: of(63_500),
    })),
    ...['uploads', 'invoices', 'images'].map((name) => ({
      name,
      kind: 'data' as const,
      backups: of(2200),
      spanMs: 90 * DAY_MS + 40 * HOUR_MS,
      newParts: 20,
      listedParts: 40,
      walSegments: 0,
    })),
    ...['settings', 'routes', 'rules', 'flags'].map((name) => ({
      name,
      kind: 'configuration' as const,
      backups: of(1510),
      spanMs: 368 * DAY_MS,
      newParts: 1,
      listedParts: 1,
      walSegments: 0,
    })),
  ];
}

/** Verifications of each resource, one a day. */
const VERIFICATIONS = 90;

interface Facts {
  /** Directory of the vault. */
  readonly root: string;
  /** Id in its marker. */
  readonly vault: string;
  readonly nowMs: number;
  readonly key: CatalogueKey;
}

/** The one data key of a catalogue, under the id of each backup: only one has to be wrapped, and both vaults hold the same bytes. */
export interface CatalogueKey {
  readonly record: Readonly<Record<string, unknown>>;
  /** 32 bytes in hexadecimal. */
  readonly secret: string;
}

export async function catalogueKey(recipient: string, nowMs: number): Promise<CatalogueKey> {
  const made = await createDataKey({ recipients: [recipient] }, nowMs - 400 * DAY_MS, 'backup');
  if (!made) throw new Error('no key');
  const { sha256: _, ...record } = JSON.parse(made.object.toString('utf8')) as Record<string, unknown>;
  return { record, secret: Buffer.from(made.key.secret).toString('hex') };
}

/** Writes the files of one vault; two calls that differ only in `root` and `vault` write the same backups. Returns their number. */
export function writeCatalogue(facts: Facts, spec: readonly ResourceSpec[]): number {
  const { root, nowMs } = facts;
  const { record: keyRecord } = facts.key;
  const secret = Buffer.from(facts.key.secret, 'hex');
  let objects = 0;
  const known = new Set<string>();
  const put = (key: string, body: readonly Uint8Array[], atMs: number) => {
    const path = join(root, key);
    const folder = dirname(path);
    if (!known.has(folder)) mkdirSync(folder, { recursive: true });
    known.add(folder);
    const file = openSync(path, 'wx');
    for (const view of body) writeSync(file, view);
    closeSync(file);
    utimesSync(path, atMs / 1000, atMs / 1000);
    objects++;
  };
  const firstMs = nowMs - 400 * DAY_MS;
  const marker = { format: 1, id: facts.vault, createdAt: new Date(firstMs).toISOString() };
  put(layout.marker, [encodeRecord(marker)], firstMs);

  spec.forEach((resource, number) => {
    const systemId = String(7_300_000_000_000_000_000n + BigInt(number));
    const wal = { segments: resource.walSegments, stepMs: (30 * DAY_MS) / Math.max(1, resource.walSegments) };
    const lsnAt = (ms: number) => {
      const place = Math.floor((ms - (nowMs - 30 * DAY_MS)) / wal.stepMs);
      return FIRST_LSN + BigInt(Math.min(wal.segments - 1, Math.max(0, place))) * BigInt(SEGMENT_BYTES);
    };
    let recent: Part[] = [];
    for (let i = 0; i < resource.backups; i++) {
      const finishedMs = Math.round(nowMs - resource.spanMs * (1 - (i + 1) / resource.backups) - 60_000);
      const id = timedId(finishedMs - 60_000, digits(`${resource.name} ${i}`, 6));
      const keyId = digits(id, 32);
      const seal = { secret, context: id };
      put(layout.key(keyId), [encodeRecord({ ...keyRecord, id: keyId })], finishedMs);
      const parts: Part[] = [];
      for (let n = 0; n < resource.newParts; n++) {
        const frame = sealFrame(Buffer.from(`content ${n}`), n, seal, 1);
        const key = layout.part(resource.name, id, n);
        put(key, [frame], finishedMs);
        parts.push({ key, size: frame.length, sha256: sha256(frame).toString('hex'), context: id, keyId });
      }
      recent = [...parts, ...recent].slice(0, resource.listedParts);
      const root = {
        path: Buffer.alloc(0),
        type: 'directory' as const,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtimeNs: 0n,
        size: 0,
        extents: [],
      };
      const index = sealFrame(Buffer.from(encodeEntry(root)), resource.newParts, { secret, context: `${id}/index` }, 1);
      put(layout.index(resource.name, id), [index], finishedMs);
      const lsn = formatLsn(lsnAt(finishedMs));
      const manifest: Manifest = {
        format: 1,
        id,
        resource: resource.name,
        kind: resource.kind,
        tool: 'dr bench',
        site: 'here',
        source: `/srv/${resource.name}`,
        startedAt: new Date(finishedMs - 60_000).toISOString(),
        finishedAt: new Date(finishedMs).toISOString(),
        recoveryPoint: new Date(finishedMs).toISOString(),
        encryption: 'age',
        entries: 1,
        logicalBytes: 0,
        storedBytes: parts.reduce((sum, { size }) => sum + size, index.length),
        contentDigest: sha256(Buffer.from(id)).toString('hex'),
        index: {
          key: layout.index(resource.name, id),
          size: index.length,
          sha256: sha256(index).toString('hex'),
          context: `${id}/index`,
          keyId,
        },
        parts: recent,
        notes: [],
        ...(resource.kind === 'database'
          ? {
              database: {
                systemId,
                timeline: 1,
                startLsn: lsn,
                endLsn: lsn,
                version: '17.5',
                majorVersion: 17,
                segmentBytes: SEGMENT_BYTES,
                dataChecksums: true,
                settings: { max_connections: '100', max_worker_processes: '8', wal_level: 'replica' },
                tablespaces: [],
              },
            }
          : {}),
      };
      put(layout.manifest(resource.name, id), [encodeManifest(manifest)], finishedMs);
    }
    for (let day = 0; day < VERIFICATIONS; day++) {
      const atMs = nowMs - day * DAY_MS - 2 * HOUR_MS;
      const id = timedId(atMs, digits(`${resource.name} verified ${day}`, 6));
      const at = new Date(atMs).toISOString();
      const report = {
        format: 1,
        id,
        resource: resource.name,
        kind: resource.kind,
        backupId: id,
        vault: 'east',
        site: 'here',
        startedAt: at,
        finishedAt: at,
        recoveredTo: at,
        ok: true,
        checks: [{ what: 'files', ok: true, detail: 'all there', ms: 3 }],
        bytes: 0,
        restoreMs: 1000,
      };
      put(layout.verification(resource.name, id), [encodeRecord(report)], atMs);
    }
    writeWal(systemId, wal, { nowMs, secret, put, keyRecord });
  });
  return objects;
}

/** The WAL of one database: whole segments of zeros without a hole up to now, under one data key. */
function writeWal(
  systemId: string,
  wal: { readonly segments: number; readonly stepMs: number },
  world: {
    readonly nowMs: number;
    readonly secret: Uint8Array;
    readonly put: (key: string, body: readonly Uint8Array[], atMs: number) => void;
    readonly keyRecord: object;
  },
): void {
  if (wal.segments === 0) return;
  const { nowMs, secret, put } = world;
  const zeros = Buffer.alloc(SEGMENT_BYTES);
  const rawSha256 = sha256(zeros).toString('hex');
  const keyId = digits(`wal ${systemId}`, 32);
  put(layout.key(keyId), [encodeRecord({ ...world.keyRecord, id: keyId, usedFor: `wal/${systemId}` })], nowMs);
  for (let n = 0; n < wal.segments; n++) {
    const atMs = Math.round(nowMs - (wal.segments - 1 - n) * wal.stepMs);
    const start = FIRST_LSN + BigInt(n) * BigInt(SEGMENT_BYTES);
    const header: WalHeader = {
      format: 1,
      kind: 'wal',
      systemId,
      timeline: 1,
      start: formatLsn(start),
      length: SEGMENT_BYTES,
      keyId,
      counter: n,
      rawSha256,
      serverClockMs: atMs,
      endClockMs: atMs,
      segmentBytes: SEGMENT_BYTES,
      complete: true,
    };
    const headerBytes = encodeRecord(header);
    const frame = sealFrame(zeros, n, { secret, context: frameContext(header, headerBytes) }, 1);
    const prefix = Buffer.alloc(8);
    prefix.writeUInt32BE(WAL_MAGIC, 0);
    prefix.writeUInt32BE(headerBytes.length, 4);
    const body = [prefix, headerBytes, frame];
    put(
      walKey(systemId, 1, start, start + BigInt(SEGMENT_BYTES), SEGMENT_BYTES),
      [Buffer.concat([...body, sha256(...body)])],
      atMs,
    );
  }
}

/** `length` hexadecimal digits that look random and are the same in every run. */
function digits(text: string, length: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      root: { type: 'string', default: '' },
      vault: { type: 'string', default: '' },
      now: { type: 'string', default: '' },
      key: { type: 'string', default: '' },
      scale: { type: 'string', default: '1' },
    },
  });
  const { root, vault } = values;
  mkdirSync(root, { recursive: true });
  const facts = { root, vault, key: JSON.parse(values.key) as CatalogueKey, nowMs: Number(values.now) };
  const objects = writeCatalogue(facts, catalogueSpec(Number(values.scale)));
  console.log(objects);
}
