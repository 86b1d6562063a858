import { formatBytes } from '../base/units.ts';
import type { ServerFacts, SlotFacts } from './inspect.ts';

/** One thing that was looked at. */
export interface DatabaseFinding {
  readonly ok: boolean;
  /** `error`: backups, WAL or recovery cannot work; `warning`: they work, with a risk. Only meaningful when not `ok`. */
  readonly severity: 'error' | 'warning';
  /** What was found, as a sentence. */
  readonly what: string;
  /** How to mend it; when `ok` undefined, or how it would be better still. */
  readonly next: string | undefined;
}

export interface DoctorOptions {
  /** Whether WAL is received continuously: without it no slot is needed. */
  readonly walEnabled: boolean;
  /** What `dr` calls itself towards the server when it receives WAL. */
  readonly applicationName?: string;
}

/** Judges the facts of `inspectServer`: what would stop or endanger backups and WAL receiving, and how to mend each. Pure. */
export function doctorDatabase(
  facts: ServerFacts,
  slotName: string,
  options: DoctorOptions = { walEnabled: true },
): DatabaseFinding[] {
  const { settings, role } = facts;
  const findings: DatabaseFinding[] = [];
  const check = (ok: boolean, severity: 'error' | 'warning', good: string, bad: string, next: string) =>
    findings.push({ ok, severity, what: ok ? good : bad, next: ok ? undefined : next });

  check(
    facts.versionNumber >= 150_000,
    'error',
    `PostgreSQL ${facts.version}`,
    `PostgreSQL ${facts.version} is too old`,
    'Upgrade to PostgreSQL 15 or newer.',
  );
  check(
    !facts.inRecovery,
    'warning',
    'the server is a primary',
    'the server is in recovery (a standby)',
    'Point the URL at the active primary; from a standby backups work, but WAL arrives later.',
  );
  check(
    role.replication || role.superuser,
    'error',
    `role ${role.name} may replicate`,
    `role ${role.name} may not replicate`,
    `ALTER ROLE "${role.name}" REPLICATION;`,
  );
  check(
    facts.hbaReplication !== 'absent',
    'error',
    facts.hbaReplication === 'present'
      ? 'pg_hba.conf has a line for replication'
      : 'pg_hba.conf cannot be read by this role (connecting shows whether it fits)',
    'pg_hba.conf has no line for replication by this role',
    `Add "host replication ${role.name} <address of dr>/32 scram-sha-256" to pg_hba.conf, then SELECT pg_reload_conf();`,
  );
  check(
    settings.wal_level !== 'minimal',
    'error',
    `wal_level is ${settings.wal_level ?? 'unknown'}`,
    'wal_level is minimal: no WAL that could be replayed elsewhere is written',
    "ALTER SYSTEM SET wal_level = 'replica'; and restart the server.",
  );
  const senders = Number(settings.max_wal_senders ?? 10);
  const needed = options.walEnabled ? 2 : 1;
  check(
    senders - facts.walSenders >= needed || facts.slot?.active === true,
    'error',
    `${senders - facts.walSenders} of ${senders} WAL senders are free`,
    `only ${senders - facts.walSenders} of ${senders} WAL senders are free; a backup and WAL receiving need ${needed}`,
    `ALTER SYSTEM SET max_wal_senders = ${senders + needed}; and restart the server.`,
  );
  check(
    settings.full_page_writes !== 'off',
    'error',
    'full_page_writes is on',
    'full_page_writes is off: a backup of a running server may hold torn pages',
    'ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf(); then take a new base backup.',
  );
  check(
    settings.fsync !== 'off',
    'warning',
    'fsync is on',
    'fsync is off: a crash of the machine can damage the database, and the damage would be backed up',
    'ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();',
  );
  check(
    facts.dataChecksums,
    'warning',
    'data checksums are on',
    'data checksums are off: a damaged page is backed up unnoticed',
    'Stop the server in a maintenance window and run pg_checksums --enable -D <data directory>.',
  );
  check(
    facts.outsideFiles.length === 0,
    'warning',
    'the configuration files are in the data directory (or not visible)',
    `not in the base backup, because outside the data directory: ${facts.outsideFiles.join(', ')}`,
    'Protect their folder as a resource under `configuration`, so that the recovered server gets them too.',
  );
  findings.push(...summaryFindings(facts));
  if (options.walEnabled)
    findings.push(...slotFindings(facts, slotName), ...synchronousFindings(facts, options.applicationName));
  return findings;
}

/** WAL summaries are a help, never a need. */
function summaryFindings({ versionNumber, settings }: ServerFacts): DatabaseFinding[] {
  if (versionNumber < 170_000) return [];
  const isOn = settings.summarize_wal === 'on';
  return [
    {
      ok: true,
      severity: 'warning',
      what: isOn
        ? 'summarize_wal is on: backups read only what changed'
        : 'summarize_wal is off: backups read everything, and store what changed',
      next: isOn
        ? undefined
        : 'ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); then backups read only what changed.',
    },
  ];
}

function slotFindings(facts: ServerFacts, slotName: string): DatabaseFinding[] {
  const { slot, settings } = facts;
  const recreate = `SELECT pg_drop_replication_slot('${slotName}'); dr creates it again at its start; then take a new base backup.`;
  const finding = (ok: boolean, severity: 'error' | 'warning', what: string, next: string): DatabaseFinding => ({
    ok,
    severity,
    what,
    next: ok ? undefined : next,
  });
  const findings: DatabaseFinding[] = [];
  if (slot === undefined || !slot.exists) {
    const what = `replication slot ${slotName} does not exist yet`;
    findings.push(finding(false, 'warning', what, 'Start `dr daemon`: it creates the slot.'));
  } else if (slot.type === 'logical') {
    findings.push(
      finding(false, 'error', `replication slot ${slotName} is logical`, 'Configure another name for wal.slot.'),
    );
  } else
    findings.push(
      finding(slot.walStatus !== 'lost' && slot.walStatus !== 'unreserved', 'error', describe(slot), recreate),
    );
  if (slot?.exists && slot.walStatus !== 'lost') {
    const what = slot.active
      ? `replication slot ${slotName} is being read`
      : `nobody reads replication slot ${slotName}: WAL piles up on the server`;
    findings.push(
      finding(
        slot.active,
        'warning',
        what,
        'Start `dr daemon`, or drop the slot if this database is no longer protected.',
      ),
    );
  }
  const limit = Number(settings.max_slot_wal_keep_size ?? -1);
  findings.push(
    finding(
      limit >= 0,
      'warning',
      limit >= 0
        ? `max_slot_wal_keep_size is ${formatBytes(limit * 1024 * 1024)}`
        : 'max_slot_wal_keep_size has no limit: while dr is away, WAL can fill the disk of the server',
      "Set it below the free space of the WAL disk: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
    ),
  );
  const slots = Number(settings.max_replication_slots ?? 10);
  findings.push(
    finding(
      slots > 0,
      'error',
      `max_replication_slots is ${slots}`,
      'ALTER SYSTEM SET max_replication_slots = 10; and restart the server.',
    ),
  );
  const idle = Number(settings.idle_replication_slot_timeout ?? 0);
  if (idle > 0) {
    findings.push(
      finding(
        false,
        'warning',
        'idle_replication_slot_timeout invalidates the slot when dr is away for longer',
        'ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();',
      ),
    );
  }
  return findings;
}

function describe(slot: SlotFacts): string {
  const kept = slot.retainedBytes === undefined ? '' : `, ${formatBytes(slot.retainedBytes)} of WAL kept for it`;
  const safe =
    slot.safeWalSize === undefined ? '' : `, ${formatBytes(Math.max(0, slot.safeWalSize))} more before it may be lost`;
  const status = slot.walStatus === undefined ? 'reserves nothing yet' : `is ${slot.walStatus}`;
  return `replication slot ${slot.name} ${status}${kept}${safe}`;
}

function synchronousFindings(facts: ServerFacts, applicationName: string | undefined): DatabaseFinding[] {
  const { settings } = facts;
  const names = settings.synchronous_standby_names ?? '';
  if (applicationName === undefined || names === '') return [];
  const listed = names.includes('*') || names.toLowerCase().includes(applicationName.toLowerCase());
  if (!listed) return [];
  const applies = settings.synchronous_commit === 'remote_apply';
  return [
    {
      ok: !applies,
      severity: 'error',
      what: applies
        ? 'synchronous_commit is remote_apply, but dr never applies WAL: commits wait for ever'
        : 'commits wait until dr has made them durable (synchronous_standby_names)',
      next: applies ? 'ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();' : undefined,
    },
  ];
}
