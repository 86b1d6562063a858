import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { crc32c, parseControlFile } from '../../src/postgres/control-file.ts';
import { formatLsn } from '../../src/postgres/lsn.ts';
import { postgresMajors, startPostgres } from '../harness/postgres.ts';

test('CRC-32C gives the known value of the check string, in one piece and in two', () => {
  const bytes = Buffer.from('123456789');
  expect(crc32c(bytes)).toBe(0xe3069283);
  expect(crc32c(bytes.subarray(4), crc32c(bytes.subarray(0, 4)))).toBe(0xe3069283);
});

describe.each(postgresMajors)('PostgreSQL %s', (version) => {
  test('the parsed control file says what the server says', async () => {
    await using server = await startPostgres({
      version,
      initdb: ['--wal-segsize=4'],
      settings: {
        max_connections: 33,
        max_worker_processes: 9,
        max_wal_senders: 7,
        max_prepared_transactions: 5,
        max_locks_per_transaction: 71,
      },
    });
    await server.sql('checkpoint');
    const file = parseControlFile(readFileSync(join(server.dataDirectory, 'global/pg_control')));
    const [row] =
      await server.sql(`select s.system_identifier::text as "systemId", s.pg_control_version as "controlVersion",
      s.catalog_version_no as "catalogVersion", c.checkpoint_lsn::text as lsn, c.redo_lsn::text as redo,
      c.timeline_id as timeline, extract(epoch from c.checkpoint_time)::float8 * 1000 as "timeMs",
      i.data_page_checksum_version as "dataChecksumVersion", i.database_block_size as "blockSize",
      i.wal_block_size as "walBlockSize", i.bytes_per_wal_segment as "walSegmentBytes"
      from pg_control_system() s, pg_control_checkpoint() c, pg_control_init() i`);
    const { checkpoint, settings, ...rest } = file;
    expect({
      ...rest,
      lsn: formatLsn(checkpoint.lsn),
      redo: formatLsn(checkpoint.redo),
      timeline: checkpoint.timeline,
      timeMs: checkpoint.timeMs,
    }).toMatchObject(row ?? {});
    expect(settings).toEqual({
      walLevel: 'replica',
      maxConnections: 33,
      maxWorkerProcesses: 9,
      maxWalSenders: 7,
      maxPreparedTransactions: 5,
      maxLocksPerTransaction: 71,
    });
    expect(file.state).toBe('in production');
    await server.stop();
    const content = readFileSync(join(server.dataDirectory, 'global/pg_control'));
    expect(parseControlFile(content).state).toBe('shut down');
    for (const at of [0, 40, 180, 260]) {
      const damaged = Buffer.from(content);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      expect(() => parseControlFile(damaged), `byte ${at}`).toThrow(/checksum of pg_control is wrong/);
    }
    expect(() => parseControlFile(content.subarray(0, 200))).toThrow(/200 bytes/);
    content.writeUInt32LE(9900, 8);
    expect(() => parseControlFile(content)).toThrow(/format 9900/);
  });
});
