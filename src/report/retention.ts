import type { RetentionReport, VaultRetention } from '../backup/retention/collect.ts';
import type { Removal } from '../backup/retention/collect-check.ts';
import { formatBytes } from '../base/units.ts';
import { type Column, renderTable } from './table.ts';
import { count } from './values.ts';

/** Lines of removals shown for each vault; --json has all of them. */
const SHOWN = 40;

/** Kept backups older than the window that are shown one by one. */
const SHOWN_KEPT = 20;

type Rule = VaultRetention['backups'][number]['rules'][number];

const rules: Readonly<Record<Rule, string>> = {
  held: 'under hold',
  unreadable: 'cannot be read',
  young: 'within retention',
  window: 'needed for the beginning of the window',
  newest: 'which the next backup builds on',
  'last-good': 'among the last good ones',
  'newest-verified': 'the newest verified one',
  daily: 'the newest of a day',
  weekly: 'the newest of a week',
  monthly: 'the newest of a month',
  yearly: 'the newest of a year',
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
  for (const { keep, rules: all } of vault.backups) {
    const [first] = all;
    if (keep && first) kept.set(rules[first], (kept.get(rules[first]) ?? 0) + 1);
  }
  if (kept.size > 0) {
    lines.push(`  Kept: ${[...kept].map(([why, number]) => `${count(number, 'backup')} ${why}`).join('; ')}.`);
  }
  const isSpecial = ({ rules: all }: (typeof vault.backups)[number]) => all.some(isCalendar) && !all.includes('young');
  const special = vault.backups.filter(isSpecial).reverse();
  if (special.length > 0) lines.push(indent(renderTable(keptColumns, special.slice(0, SHOWN_KEPT))));
  if (special.length > SHOWN_KEPT) lines.push(`  … and ${special.length - SHOWN_KEPT} more (--json shows all)`);
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

const keptColumns: readonly Column<VaultRetention['backups'][number]>[] = [
  { title: 'KEPT', value: ({ resource, id }) => `${resource} ${id}` },
  { title: 'RULES', value: (backup) => backup.rules.join(', ') },
];

function isCalendar(rule: Rule): boolean {
  return rule === 'daily' || rule === 'weekly' || rule === 'monthly' || rule === 'yearly';
}

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}
