import type { ObjectResult, ObjectsResult, Outcome } from '../backup/objects-restore/result.ts';
import { formatDuration } from '../base/units.ts';
import { renderHunks } from './config-diff.ts';
import { printable } from './table.ts';
import { count, formatTime, list } from './values.ts';

/** Objects of one outcome that are named; --json has all. */
const SHOWN = 40;
/** The same of what is there beside the backup, and of images. */
const SHOWN_BESIDE = 20;

export interface RestoreFacts {
  readonly configuration: string;
  readonly backup: string;
  readonly vault: string;
  /** ISO time. */
  readonly recoveryPoint: string;
  readonly cluster: string;
  /** False: nothing was stored. */
  readonly stored: boolean;
  /** Why, as the person said it. */
  readonly reason?: string | undefined;
  readonly ms: number;
}

/** What became of each object, or would become; what a person should know; and how to go on. */
export function renderConfigRestore(facts: RestoreFacts, result: ObjectsResult): string {
  const { stored, configuration, backup, recoveryPoint, vault, cluster, reason, ms } = facts;
  const { objects, findings, extras, images, stopped } = result;
  const lines = [
    `${configuration} of ${formatTime(Date.parse(recoveryPoint))} (backup ${backup}, vault ${vault}) ${stored ? 'into' : 'against'} ${cluster}`,
    ...(reason === undefined ? [] : [`Reason: ${printable(reason)}`]),
    '',
  ];
  if (!stored) lines.push(...changes(objects));
  lines.push(...failures(objects), ...notes(objects), ...unasked(objects));
  if (findings.length > 0) {
    lines.push(stored ? 'To know:' : 'Before it is done:');
    for (const { verdict, what, next } of findings) {
      lines.push(`  ${verdict === 'fail' ? 'FAIL' : 'warn'}  ${printable(what)}`);
      if (next) lines.push(`        next: ${printable(next)}`);
    }
    lines.push('');
  }
  if (extras.length > 0)
    lines.push(...named(`There, and not in the backup (it stays): ${extras.length}`, extras.map(show)));
  if (!stored && images.length > 0) lines.push(...named('Images that the cluster has to be able to pull:', images));
  lines.push(total(objects, stored, ms));
  if (stopped)
    lines.push(
      `STOPPED: ${printable(stopped.message)}`,
      ...(stopped.next ? [`  next: ${printable(stopped.next)}`] : []),
    );
  return lines.join('\n');
}

function changes(objects: readonly ObjectResult[]): string[] {
  const lines: string[] = [];
  for (const { ref, outcome, hunks = [] } of objects) {
    if (outcome === 'created') lines.push(`+ ${show(ref)}`);
    if (outcome !== 'changed') continue;
    lines.push(`~ ${show(ref)}`, ...renderHunks(hunks).map((line) => `    ${line}`));
  }
  return lines.length > 0 ? [...lines, ''] : [];
}

/** Grouped by what they say: a missing right or definition fails many objects alike. */
function failures(objects: readonly ObjectResult[]): string[] {
  const groups = new Map<string, { next: string | undefined; refs: string[] }>();
  for (const { ref, error } of objects) {
    if (!error) continue;
    const shown = show(ref);
    const message =
      error.conflicts.length > 0 ? conflictsOf(error.conflicts) : error.message.replaceAll(ref.name, 'NAME');
    const group = groups.get(message) ?? { next: error.next, refs: [] };
    group.refs.push(group.refs.length === 0 && error.conflicts.length === 0 ? `${shown}: ${error.message}` : shown);
    groups.set(message, group);
  }
  const lines: string[] = [];
  for (const [message, { next, refs }] of groups) {
    const [first = '', ...others] = refs;
    lines.push(`FAILED ${printable(message.startsWith('fields ') ? `${first}: ${message}` : first)}`);
    lines.push(...others.slice(0, SHOWN).map((ref) => `       ${ref}: the same`));
    if (others.length > SHOWN) lines.push(`       … and ${others.length - SHOWN} more (--json shows all)`);
    if (next) lines.push(`  next: ${printable(next)}`);
  }
  return lines.length > 0 ? [...lines, ''] : [];
}

function conflictsOf(conflicts: NonNullable<ObjectResult['error']>['conflicts']): string {
  const byManager = new Map<string, string[]>();
  for (const { manager, field } of conflicts) byManager.set(manager, [...(byManager.get(manager) ?? []), field]);
  return `fields that others own: ${[...byManager].map(([manager, fields]) => `${fields.join(', ')} of ${manager}`).join('; ')}`;
}

/** What was not done as it stood in the backup, and why. */
function notes(objects: readonly ObjectResult[]): string[] {
  const groups = new Map<string, string[]>();
  for (const { ref, outcome, note } of objects) {
    if (note === undefined) continue;
    const text = outcome === 'left' ? `Not restored: ${note}` : `Otherwise than in the backup: ${note}`;
    groups.set(text, [...(groups.get(text) ?? []), show(ref)]);
  }
  return [...groups].flatMap(([text, refs]) => named(text, refs));
}

/** What a dry run takes on trust. */
function unasked(objects: readonly ObjectResult[]): string[] {
  const reasons = new Map<string, number>();
  for (const { unasked: why } of objects) if (why !== undefined) reasons.set(why, (reasons.get(why) ?? 0) + 1);
  if (reasons.size === 0) return [];
  const told = [...reasons].map(([why, number]) => `${count(number, 'object')}: ${why}`);
  return [`The server could not be asked about ${told.join('; ')}.`, ''];
}

function named(title: string, names: readonly string[]): string[] {
  const more = names.length > SHOWN_BESIDE ? [`  … and ${names.length - SHOWN_BESIDE} more (--json shows all)`] : [];
  return [printable(title), ...names.slice(0, SHOWN_BESIDE).map((name) => `  ${printable(name)}`), ...more, ''];
}

const words: Readonly<Record<Outcome, string>> = {
  created: 'created',
  changed: 'changed',
  unchanged: 'unchanged',
  applied: 'applied',
  left: 'left out',
  failed: 'FAILED',
  'not-tried': 'not tried',
};

function total(objects: readonly ObjectResult[], stored: boolean, ms: number): string {
  const parts = Object.entries(words).flatMap(([outcome, word]) => {
    const number = objects.filter((object) => object.outcome === outcome).length;
    return number === 0 ? [] : [`${number} ${word}`];
  });
  const sum = `${count(objects.length, 'object')}: ${list(parts)}`;
  return stored ? `${sum}, in ${formatDuration(ms)}.` : `${sum}. Nothing was stored: without --diff it is done.`;
}

function show({ kind, namespace, name }: ObjectResult['ref']): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}
