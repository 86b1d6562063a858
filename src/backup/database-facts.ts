import { DrError } from '../base/errors.ts';
import type { ServerFacts } from '../postgres/inspect.ts';
import type { DatabaseSource } from './take-database.ts';

/** Settings without which a server elsewhere cannot replay this one's WAL, or would read its data differently. */
const NEEDED_SETTINGS = [
  'lc_messages',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'max_connections',
  'max_locks_per_transaction',
  'max_prepared_transactions',
  'max_wal_senders',
  'max_worker_processes',
  'server_encoding',
  'shared_preload_libraries',
  'wal_level',
] as const;

/** What the manifest keeps of a server. Throws `config` or `denied` when a backup of it could not be taken or restored. */
export function databaseFacts(facts: ServerFacts): DatabaseSource['facts'] {
  const refuse = (message: string, next: string) => new DrError('config', message, { where: facts.where, next });
  if (facts.versionNumber < 150_000) {
    throw refuse(
      `PostgreSQL ${facts.version} is older than 15`,
      'Upgrade the server: dr speaks the protocol of 15 and newer.',
    );
  }
  if (facts.settings.wal_level === 'minimal') {
    throw refuse('wal_level is minimal', "Run: ALTER SYSTEM SET wal_level = 'replica'; then restart the server.");
  }
  if (facts.settings.full_page_writes === 'off') {
    throw refuse(
      'full_page_writes is off, so a backup taken from this server could hold torn pages',
      'Run: ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();',
    );
  }
  if (facts.inRecovery) {
    throw refuse('the server is a standby', 'Point the url of this database to the primary.');
  }
  const settings: Record<string, string> = {};
  for (const name of NEEDED_SETTINGS) {
    const value = facts.settings[name];
    if (value !== undefined) settings[name] = value;
  }
  return {
    systemId: facts.systemId,
    version: facts.version,
    majorVersion: Math.floor(facts.versionNumber / 10_000),
    segmentBytes: facts.walSegmentBytes,
    dataChecksums: facts.dataChecksums,
    settings,
  };
}
