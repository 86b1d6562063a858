import type { VaultCare } from '../backup/care/care-record.ts';
import type { VaultCheck } from '../backup/care/check-vault.ts';
import type { VaultProblem } from '../backup/care/check-vault-findings.ts';
import type { VaultRepair } from '../backup/care/repair-vault.ts';
import type { HeldResource, HeldWal, ResourceSpread, VaultList } from '../backup/care/vault-contents.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { type Column, printable, renderTable } from './table.ts';
import { count, formatAge, formatTime, list } from './values.ts';

/** Problems, foreign objects and mended objects shown of each vault; --json has all of them. */
const SHOWN = 40;
const SHOWN_TOUCHED = 3;

/** What each vault holds and lacks. */
export function renderVaultList({ vaults, resources }: VaultList, nowMs: number): string {
  const lines: string[] = [];
  for (const { vault, region, location, problem, resources: held, wal, care } of vaults) {
    lines.push(`Vault ${vault} in ${region}, ${printable(location)}`);
    if (problem !== undefined) lines.push(`  NOT READABLE: ${printable(problem)}`);
    else if (held.length === 0 && wal.length === 0) lines.push('  It holds no backup.');
    else lines.push(indent(renderTable(heldColumns, held)));
    if (wal.length > 0) lines.push('', indent(renderTable(walColumns(nowMs), wal)));
    lines.push(...careLines(care, nowMs).map((line) => `  ${line}`), '');
  }
  const single = resources.filter(({ crossRegion }) => !crossRegion);
  if (resources.length > 0 && single.length === 0) {
    lines.push(
      'CROSS-REGION: the newest backup of every resource lies in more than one region. "dr status" says what would be lost now.',
    );
  }
  lines.push(...single.map((resource) => singleLine(resource, nowMs)));
  return lines.join('\n').trimEnd();
}

function singleLine({ resource, regions, sharedId, aloneSinceMs }: ResourceSpread, nowMs: number): string {
  const since =
    aloneSinceMs === undefined ? '' : `, since ${formatTime(aloneSinceMs)} (${formatAge(aloneSinceMs, nowMs)})`;
  const shared =
    sharedId === undefined ? 'no backup of it lies in two regions' : `the newest in two regions is ${sharedId}`;
  return `NOT CROSS-REGION: the newest backup of ${resource} lies in one region only (${list(regions)})${since}; ${shared}.`;
}

/** When it was last looked at, what is wrong since then, and what was mended. */
function careLines(care: VaultCare | undefined, nowMs: number): string[] {
  if (!care) return ['Never checked by a daemon: dr vault check looks at it now.'];
  const { check, read, repair, problems, losses } = care;
  const age = (time: string) => formatAge(Date.parse(time), nowMs);
  const content = read
    ? `, ${formatShare(read.share)} of its content read ${age(read.finishedAt)}`
    : ', content never read';
  const found = problems === 0 ? 'nothing missing or damaged' : `${count(problems, 'PROBLEM')} not mended`;
  const did = repair && [
    ...(repair.mended > 0 ? [`${count(repair.mended, 'object')} mended`] : []),
    ...(repair.backups > 0 ? [`${count(repair.backups, 'backup')} copied`] : []),
    ...(repair.walObjects > 0 ? [`${count(repair.walObjects, 'WAL object')} copied`] : []),
    ...(repair.failed > 0 ? [`${count(repair.failed, 'object')} not`] : []),
  ];
  return [
    `Checked ${age(check.finishedAt)} at site ${check.site}${content}: ${found}.`,
    ...(repair ? [`Repaired ${age(repair.finishedAt)} at site ${repair.site}: ${list(did ?? [])}.`] : []),
    ...losses.map((loss) => `LOST ${printable(loss)}`),
  ];
}

function formatShare(share: number): string {
  return share >= 1 ? 'all' : `${Number((share * 100).toFixed(2))} %`;
}

const heldColumns: readonly Column<HeldResource>[] = [
  { title: 'RESOURCE', value: ({ resource }) => resource },
  { title: 'BACKUPS', value: ({ backups }) => String(backups), align: 'right' },
  { title: 'LACKS', value: ({ missing }) => (missing.length === 0 ? '-' : String(missing.length)), align: 'right' },
  { title: 'BYTES', value: ({ bytes }) => formatBytes(bytes), align: 'right' },
  { title: 'NEWEST', value: ({ newestId }) => newestId ?? '-' },
];

const walColumns = (nowMs: number): readonly Column<HeldWal>[] => [
  {
    title: 'WAL OF',
    value: ({ systemId, resources }) => (resources.length > 0 ? list(resources) : `system ${systemId}`),
  },
  { title: 'BYTES', value: ({ bytes }) => formatBytes(bytes), align: 'right' },
  { title: 'TIMELINE', value: ({ timeline }) => (timeline === undefined ? '-' : String(timeline)), align: 'right' },
  {
    title: 'FROM, TO',
    value: ({ from, to, problem }) =>
      problem !== undefined ? `DAMAGED: ${problem}` : from === undefined ? '-' : `${from}, ${to}`,
  },
  { title: 'REACHES', value: ({ coveredUntilMs }) => (coveredUntilMs > 0 ? formatAge(coveredUntilMs, nowMs) : '-') },
  {
    title: 'BEHIND',
    value: ({ behind }) => {
      if (!behind || (behind.ms === 0 && (behind.bytes ?? 0) === 0)) return '-';
      return `${formatDuration(behind.ms)}${behind.bytes === undefined ? '' : `, ${formatBytes(behind.bytes)}`}`;
    },
  },
];

/** What the checks have found, vault by vault. `seed`: only a share of the content was read. */
export function renderVaultChecks(
  checks: readonly VaultCheck[],
  asked: { readonly readData: boolean; readonly share: number; readonly seed: string },
): string {
  const lines = checks.flatMap((check) => [...checkLines(check), '']);
  const bad = checks.filter(({ problems }) => problems.length > 0).map(({ vault }) => vault);
  if (bad.length > 0) lines.push(...bad.map((vault) => `Mend it from another vault: dr vault repair ${vault}`), '');
  if (!asked.readData) lines.push('Content was not read: --read-data compares every byte with its SHA-256.');
  else if (asked.share < 1)
    lines.push(`A share of the content was read; --seed ${asked.seed} reads the same one again.`);
  return lines.join('\n').trimEnd();
}

function checkLines(check: VaultCheck): string[] {
  const { vault, objects, bytes, readBytes, opened, problems, moreProblems, foreign, moreForeign, orphans, notes } =
    check;
  const total = problems.length + moreProblems;
  const seen = opened ? ` and ${formatBytes(opened.bytes)} opened` : '';
  const read = readBytes > 0 ? `, ${formatBytes(readBytes)} of content read${seen}` : '';
  const verdict = total === 0 ? 'nothing is missing or damaged' : `${count(total, 'problem')}`;
  const lines = [`Vault ${vault}: ${verdict} (${count(objects, 'object')}, ${formatBytes(bytes)}${read}).`];
  lines.push(...problems.slice(0, SHOWN).flatMap(problemLines));
  if (total > SHOWN) lines.push(`  … and ${total - SHOWN} more (--json shows up to 10,000)`);
  for (const key of foreign.slice(0, SHOWN)) lines.push(`  FOREIGN ${printable(key)}: not of dr, left alone`);
  const strangers = foreign.length + moreForeign;
  if (strangers > SHOWN) lines.push(`  … and ${strangers - SHOWN} more foreign objects`);
  if (orphans.objects > 0) {
    lines.push(
      `  ${count(orphans.objects, 'object')} of no backup (${formatBytes(orphans.bytes)}): of one that runs or was interrupted; retention removes what is old.`,
    );
  }
  if (opened && opened.closedKeys > 0) {
    const keys = count(opened.closedKeys, 'data key');
    lines.push(
      `  Note: ${keys} cannot be opened with the identity given: what they seal was only compared with its SHA-256.`,
    );
  }
  for (const note of notes) lines.push(`  Note: ${printable(note)}`);
  return lines;
}

function problemLines({ state, key, why, touches }: VaultProblem): string[] {
  const more = touches.length - SHOWN_TOUCHED;
  const shown = [...touches.slice(0, SHOWN_TOUCHED), ...(more > 0 ? [`${more} more`] : [])];
  return [
    `  ${state.toUpperCase()} ${printable(key)}: ${printable(why)}`,
    ...shown.map((text) => `    touches ${text}`),
  ];
}

/** What was mended, and what could not be. */
export function renderVaultRepairs(repairs: readonly VaultRepair[]): string {
  return repairs
    .flatMap((repair) => [...repairLines(repair), ''])
    .join('\n')
    .trimEnd();
}

function repairLines({ vault, mended, copied, walCopied, failed, losses, check }: VaultRepair): string[] {
  const done = [
    ...(mended.length > 0 ? [`${count(mended.length, 'object')} mended`] : []),
    ...(copied.length > 0
      ? [`${count(copied.length, 'backup')} copied (${formatBytes(copied.reduce((sum, { bytes }) => sum + bytes, 0))})`]
      : []),
    ...(walCopied > 0 ? [`${count(walCopied, 'WAL object')} copied`] : []),
  ];
  const nothing = check.problems.length === 0 ? 'nothing to mend' : 'nothing could be mended';
  const lines = [`Vault ${vault}: ${done.length > 0 ? list(done) : nothing}.`];
  for (const { key, done: how, from } of mended.slice(0, SHOWN)) {
    lines.push(`  ${how} ${printable(key)}${from === undefined ? '' : ` from ${from}`}`);
  }
  if (mended.length > SHOWN) lines.push(`  … and ${mended.length - SHOWN} more (--json shows all)`);
  const total = check.problems.length + check.moreProblems;
  if (total === 0) return [...lines, '  The check afterwards finds nothing missing or damaged.'];
  lines.push(`  STILL WRONG: ${count(total, 'problem')}`, ...check.problems.slice(0, SHOWN).flatMap(problemLines));
  for (const { key, error } of failed.slice(0, SHOWN)) {
    lines.push(`  ${printable(key)}: ${printable(messageOf(error))}`);
    if (error instanceof DrError && error.next !== undefined) lines.push(`    ${printable(error.next)}`);
  }
  for (const loss of losses) lines.push(`  LOST ${printable(loss.text)}`);
  return lines;
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ');
}
