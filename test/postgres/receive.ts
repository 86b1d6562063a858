import { chmodSync, closeSync, mkdirSync, openSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { silentLog } from '../../src/base/log.ts';
import type { BaseBackupConsumer, BaseBackupEntry, BaseBackupStart } from '../../src/postgres/base-backup.ts';
import {
  type ConnectReplicationOptions,
  connectReplication,
  type ReplicationConnection,
} from '../../src/postgres/connection.ts';
import { own, type TestPostgres } from '../harness/postgres.ts';

/** A consumer that writes the cluster into a directory, and keeps what it was told. */
export function writeTo(directory: string) {
  const entries: BaseBackupEntry[] = [];
  const manifest: Buffer[] = [];
  let start: BaseBackupStart | undefined;
  let file: number | undefined;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  own(directory);
  const consumer: BaseBackupConsumer = {
    begin: (facts) => {
      start = facts;
    },
    entry: (entry) => {
      entries.push(entry);
      const path = join(directory, entry.path);
      if (entry.type === 'directory') {
        mkdirSync(path, { recursive: true });
        chmodSync(path, entry.mode);
        own(path);
      } else if (entry.type === 'symlink') {
        // The folders of tablespaces came before: in this copy they are real.
        if (!entry.path.startsWith('pg_tblspc/')) symlinkSync(entry.linkTarget ?? '', path);
      } else file = openSync(path, 'w', entry.mode);
      if (file !== undefined) own(path);
    },
    data: (chunk) => {
      if (file !== undefined) writeSync(file, chunk);
    },
    endEntry: () => {
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
    manifest: (chunk) => {
      manifest.push(Buffer.from(chunk));
    },
  };
  return {
    consumer,
    entries,
    manifestText: () => Buffer.concat(manifest).toString(),
    start: () => {
      if (start === undefined) throw new Error('begin was not called');
      return start;
    },
  };
}

export const discard: BaseBackupConsumer = {
  begin: () => {},
  entry: () => {},
  data: () => {},
  endEntry: () => {},
  manifest: () => {},
};

export const backupOptions = { label: 'test', fastCheckpoint: true, manifest: true } as const;

export async function connect(
  server: TestPostgres,
  options: Partial<ConnectReplicationOptions> = {},
): Promise<ReplicationConnection> {
  return await connectReplication({
    url: server.replicationUrl,
    applicationName: 'dr-test',
    log: silentLog,
    ...options,
  });
}

/** Waits until `probe` gives a value; asks the server, so it needs no clock. */
export async function until<T>(probe: () => Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Takes a base backup into a directory and makes it a standby that waits for WAL in its own pg_wal. */
export async function standbyOf(server: TestPostgres, directory: string): Promise<void> {
  const connection = await connect(server);
  await connection.baseBackup(backupOptions, writeTo(directory).consumer);
  await connection.close();
  writeFileSync(join(directory, 'standby.signal'), '');
  const info = `host=127.0.0.1 port=${server.port} user=replicator application_name=standby`;
  writeFileSync(join(directory, 'postgresql.auto.conf'), `primary_conninfo = '${info}'\n`);
}

/** CRC-32C as in backup_manifest: 8 hexadecimal digits of its bytes in memory order. */
export function crc32c(bytes: Uint8Array): string {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  const out = Buffer.alloc(4);
  out.writeUInt32LE(~crc >>> 0);
  return out.toString('hex');
}

const crcTable = Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0x82f63b78 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});
