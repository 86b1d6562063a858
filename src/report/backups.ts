import type { BackupListing, ListedBackup } from '../backup/backup-listing.ts';
import type { Note } from '../backup/manifest.ts';
import { formatBytes } from '../base/units.ts';
import { type Column, renderTable } from './table.ts';
import { count, formatAge, formatTime, list } from './values.ts';

/** Notes shown below the table; --json has all of them. */
const SHOWN_NOTES = 20;

/** The backups as a table, then what is wrong or noteworthy. `resource`: only it was asked for. */
export function renderBackups(listing: BackupListing, nowMs: number, resource: string | undefined): string {
  const { backups, unread } = listing;
  const lines: string[] = [];
  if (backups.length === 0) {
    lines.push(
      resource === undefined
        ? 'No vault has a backup yet: "dr backup" takes one of every resource.'
        : `No vault has a backup of ${resource}: "dr backup ${resource}" takes one.`,
    );
  } else {
    lines.push(renderTable(columns(nowMs), backups), '', summary(backups));
  }
  for (const { vault, message } of unread) lines.push(`Vault ${vault} could not be read: ${message}`);
  const problems = backups.flatMap(({ resource: name, id, problems }) =>
    problems.map(({ vault, message }) => `DAMAGED: backup ${id} of ${name} in vault ${vault}: ${message}`),
  );
  const notes = backups.flatMap(({ resource: name, id, facts }) =>
    (facts?.notes ?? []).map((note) => `${name} ${id}: ${noteText(note)}`),
  );
  if (problems.length > 0) lines.push('', ...problems);
  if (notes.length > 0) lines.push('', 'Notes:', ...notes.slice(-SHOWN_NOTES).map((note) => `  ${note}`));
  if (notes.length > SHOWN_NOTES) lines.push(`  … and ${notes.length - SHOWN_NOTES} older ones (--json shows all)`);
  return lines.join('\n');
}

function columns(nowMs: number): readonly Column<ListedBackup>[] {
  return [
    { title: 'RESOURCE', value: ({ resource }) => resource },
    { title: 'BACKUP', value: ({ id }) => id },
    {
      title: 'RECOVERY POINT',
      value: ({ facts }) =>
        facts ? `${formatTime(facts.recoveryPointMs)} (${formatAge(facts.recoveryPointMs, nowMs)})` : '?',
    },
    { title: 'SIZE', value: ({ facts }) => (facts ? formatBytes(facts.logicalBytes) : '?'), align: 'right' },
    { title: 'STORED', value: ({ facts }) => (facts ? formatBytes(facts.storedBytes) : '?'), align: 'right' },
    {
      title: 'REUSED',
      value: ({ facts }) =>
        facts ? (facts.previousId === undefined ? '-' : `${Math.floor(facts.reuseRatio * 100)} %`) : '?',
      align: 'right',
    },
    {
      title: 'VAULTS',
      value: ({ vaults, missing }) => `${vaults.join(', ')}${missing.length > 0 ? ` (not ${missing.join(', ')})` : ''}`,
    },
    {
      title: 'VERIFIED',
      value: ({ verified }) =>
        verified === undefined ? '-' : `${verified.ok ? '' : 'FAILED '}${formatAge(verified.atMs, nowMs)}`,
    },
    {
      title: 'NOTES',
      value: ({ facts, problems }) => {
        if (!facts) return list(problems.map(() => 'damaged'));
        const isDegraded = facts.notes.some(({ kind }) => kind === 'unreadable');
        return `${isDegraded ? 'DEGRADED ' : ''}${facts.notes.length}`;
      },
      align: 'right',
    },
  ];
}

function summary(backups: readonly ListedBackup[]): string {
  const stored = backups.reduce((sum, { facts }) => sum + (facts?.storedBytes ?? 0), 0);
  const logical = backups.reduce((sum, { facts }) => sum + (facts?.logicalBytes ?? 0), 0);
  return `${count(backups.length, 'backup')}: ${formatBytes(stored)} stored in each vault for ${formatBytes(logical)}.`;
}

function noteText({ kind, subject, detail }: Note): string {
  return `${kind} ${subject}: ${detail}`;
}
