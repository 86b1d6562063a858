import { DrError } from '../base/errors.ts';
import type { Lsn } from './lsn.ts';

/** `DBState` of `pg_control.h`, in its order. */
const states = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] as const;

const walLevels = ['minimal', 'replica', 'logical'] as const;

/** What `global/pg_control` says about a data directory. */
export interface ControlFile {
  /** Decimal, as PostgreSQL prints it. */
  readonly systemId: string;
  /** `PG_CONTROL_VERSION`: 1300 for PostgreSQL 13 to 16, 1700 for 17, 1800 for 18. */
  readonly controlVersion: number;
  readonly catalogVersion: number;
  readonly state: (typeof states)[number];
  /** Last update of the file, milliseconds since 1970. */
  readonly modifiedMs: number;
  /** Position of the last checkpoint record, where its replay starts, and when it was taken (milliseconds since 1970). */
  readonly checkpoint: { readonly lsn: Lsn; readonly redo: Lsn; readonly timeline: number; readonly timeMs: number };
  /** Archive recovery has to come at least this far before the data is consistent; 0 when no recovery is under way. */
  readonly minRecoveryPoint: Lsn;
  readonly minRecoveryTimeline: number;
  /** Start of the base backup being recovered; 0 once its end was reached. */
  readonly backupStart: Lsn;
  readonly backupEndRequired: boolean;
  /** Settings of the server that wrote the WAL: hot standby needs at least these. */
  readonly settings: {
    readonly walLevel: (typeof walLevels)[number];
    readonly maxConnections: number;
    readonly maxWorkerProcesses: number;
    readonly maxWalSenders: number;
    readonly maxPreparedTransactions: number;
    readonly maxLocksPerTransaction: number;
  };
  /** Bytes. */
  readonly blockSize: number;
  /** Page size of the WAL, bytes. */
  readonly walBlockSize: number;
  /** Bytes. */
  readonly walSegmentBytes: number;
  /** 0 = data checksums off. */
  readonly dataChecksumVersion: number;
}

/** Where the CRC lies, by control version; the fields before it that are read here are at the same places in all of them. */
const crcOffsets: Readonly<Record<number, number>> = { 1300: 288, 1700: 288, 1800: 292 };

/**
 * Reads the content of `global/pg_control` of PostgreSQL 15 to 18 (little-endian, 64-bit). Offsets follow the C structure
 * `ControlFileData` of `src/include/catalog/pg_control.h`.
 * @throws DrError `corrupt` when it is too short or its checksum is wrong, `refused` for another format version.
 */
export function parseControlFile(content: Uint8Array, where = 'global/pg_control'): ControlFile {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  if (content.length < 296) {
    throw new DrError('corrupt', `pg_control has ${content.length} bytes; a whole one has 8192`, {
      where,
      next: 'Restore again, or from another backup or vault.',
    });
  }
  const u32 = (at: number) => view.getUint32(at, true);
  const i32 = (at: number) => view.getInt32(at, true);
  const u64 = (at: number) => view.getBigUint64(at, true);
  const timeMs = (at: number) => Number(view.getBigInt64(at, true)) * 1000;
  const controlVersion = u32(8);
  const crcOffset = crcOffsets[controlVersion];
  if (crcOffset === undefined) {
    throw new DrError('refused', `pg_control has format ${controlVersion}; this dr knows PostgreSQL 15 to 18`, {
      where,
      next: 'Use a dr that supports this PostgreSQL, on a machine of the same byte order.',
    });
  }
  if (u32(crcOffset) !== crc32c(content.subarray(0, crcOffset))) {
    throw new DrError('corrupt', 'the checksum of pg_control is wrong', {
      where,
      next: 'Restore again, or from another backup or vault.',
    });
  }
  return {
    systemId: u64(0).toString(),
    controlVersion,
    catalogVersion: u32(12),
    state: states[i32(16)] ?? 'starting up',
    modifiedMs: timeMs(24),
    checkpoint: { lsn: u64(32), redo: u64(40), timeline: u32(48), timeMs: timeMs(104) },
    minRecoveryPoint: u64(136),
    minRecoveryTimeline: u32(144),
    backupStart: u64(152),
    backupEndRequired: view.getUint8(168) !== 0,
    settings: {
      walLevel: walLevels[i32(172)] ?? 'replica',
      maxConnections: i32(180),
      maxWorkerProcesses: i32(184),
      maxWalSenders: i32(188),
      maxPreparedTransactions: i32(192),
      maxLocksPerTransaction: i32(196),
    },
    blockSize: u32(216),
    walBlockSize: u32(224),
    walSegmentBytes: u32(228),
    dataChecksumVersion: u32(252),
  };
}

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

/** CRC-32C (Castagnoli), the checksum of PostgreSQL's control file and WAL; pass the last result to go on. */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  let crc = ~previous >>> 0;
  for (let at = 0; at < bytes.length; at++) crc = (table[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}
