import type { Manifest } from '../../../src/backup/manifest.ts';
import { formatLsn } from '../../../src/postgres/lsn.ts';

/** The manifest of a database backup, of which only what recovery plans look at matters. */
export function databaseManifest(facts: {
  systemId: string;
  timeline?: number;
  startLsn: bigint;
  endLsn: bigint;
  segmentBytes?: number;
  recoveryPoint?: string;
}): Manifest {
  const time = facts.recoveryPoint ?? '2026-01-01T00:00:00.000Z';
  return {
    format: 1,
    id: '20260101T000000000Z-abcdef',
    resource: 'orders',
    kind: 'database',
    tool: 'dr test',
    site: 'east',
    source: 'postgresql://127.0.0.1/postgres',
    startedAt: time,
    finishedAt: time,
    recoveryPoint: time,
    encryption: 'age',
    entries: 1,
    logicalBytes: 1,
    storedBytes: 1,
    contentDigest: '0'.repeat(64),
    index: { key: 'indexes/orders/x', size: 1, sha256: '0'.repeat(64), context: 'x' },
    parts: [],
    notes: [],
    database: {
      systemId: facts.systemId,
      timeline: facts.timeline ?? 1,
      startLsn: formatLsn(facts.startLsn),
      endLsn: formatLsn(facts.endLsn),
      version: '17.0',
      majorVersion: 17,
      segmentBytes: facts.segmentBytes ?? 16 * 1024 * 1024,
      dataChecksums: true,
      settings: {},
      tablespaces: [],
    },
  };
}
