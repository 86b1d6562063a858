import type { RetentionReport, VaultRetention } from '../backup/retention/collect.ts';
import type { Removal } from '../backup/retention/collect-check.ts';
import { formatBytes } from '../base/units.ts';
import { type Column, renderTable } from './table.ts';
import { count } from './values.ts';

/** Lines of removals shown for each vault; --json has all of them. */
const SHOWN = 40;

const rules: Readonly<Record<VaultRetention['backups'][number]['rule'], string>> = {
  held: 'under hold',
  unreadable: 'cannot be read',
  young: 'within retention',
  window: 'needed for the beginning of the window',
  newest: 'which the next backup builds on',
  'last-good': 'among the last good ones',
  'newest-verified': 'the newest verified one',
  'no-policy': 'of a resource that is not configured any more',
  expired: 'beyond retention',
};

/** What goes from each vault, or has gone, and why the rest stays. */
export function renderRetention(report: RetentionReport): string {
  const lines: string[] = [];
  if (report.held !== undefined) lines.push(`Nothing is deleted in any vault: ${report.held}`, '');
  for (const vault of report.vaults) lines.push(...vaultLines(vault, report), '');
  if (!report.applied && report.vaults.some(({ removals }) => removals.length > 0)) {
    lines.push('Nothing was changed: "dr retention --apply" deletes it.');
  }
  return lines.join('\n').trimEnd();
}

function vaultLines(vault: VaultRetention, { applied, held }: RetentionReport): string[] {
  const { removals, freedBytes, blocked, notes } = vault;
  const objects = removals.reduce((sum, removal) => sum + removal.objects, 0);
  const gone = applied ? 'deleted' : 'would go';
  const head =
    removals.length === 0
      ? `Vault ${vault.vault}: nothing ${applied ? 'deleted' : 'to delete'}.`
      : `Vault ${vault.vault}: ${count(objects, 'object')} ${gone}, ${formatBytes(freedBytes)}.`;
  const lines = [head];
  if (blocked !== undefined && blocked !== held) lines.push(`  STOPPED: ${blocked}`);
  if (removals.length > 0) lines.push(indent(renderTable(columns, removals.slice(0, SHOWN))));
  if (removals.length > SHOWN) lines.push(`  … and ${removals.length - SHOWN} more (--json shows all)`);
  const kept = new Map<string, number>();
  for (const { keep, rule } of vault.backups) if (keep) kept.set(rules[rule], (kept.get(rules[rule]) ?? 0) + 1);
  if (kept.size > 0) {
    lines.push(`  Kept: ${[...kept].map(([why, number]) => `${count(number, 'backup')} ${why}`).join('; ')}.`);
  }
  for (const note of notes) lines.push(`  Note: ${note}`);
  return lines;
}

const columns: readonly Column<Removal>[] = [
  { title: 'WHAT', value: ({ what }) => (what === 'manifest' ? 'backup' : what) },
  { title: 'OF', value: ({ subject }) => subject },
  { title: 'OBJECTS', value: ({ objects }) => String(objects), align: 'right' },
  { title: 'BYTES', value: ({ what, bytes }) => (what === 'manifest' ? '-' : formatBytes(bytes)), align: 'right' },
  { title: 'WHY', value: ({ why }) => why },
];

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}
