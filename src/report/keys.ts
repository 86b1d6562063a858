import type { KeyList } from '../backup/keys/list.ts';
import type { RotateResult } from '../backup/keys/rotate.ts';
import { type Column, renderTable } from './table.ts';
import { count } from './values.ts';

/** Names shown of what may be many. */
const MOST_NAMES = 5;

export interface KeysAway {
  readonly vault: string;
  readonly reason: string;
}

/** `dr keys list` for people. */
export function renderKeyList(list: KeyList, away: readonly KeysAway[]): string {
  const lines: string[] = [];
  if (list.keys === 0) lines.push('There are no data keys yet.');
  else {
    const held = list.vaults.map(({ vault, keys, generations }) => {
      return `${vault} ${keys}${generations > keys ? ` (${generations - keys} older generations)` : ''}`;
    });
    lines.push(`Data keys: ${list.keys} (${held.join(', ')}).`);
  }
  if (list.openers.length > 0) lines.push('', renderTable(columns, list.openers), '');
  const { unopened, outdated, damaged, behind } = list;
  if (unopened.length > 0) {
    lines.push(`NOBODY of the configuration opens ${count(unopened.length, 'data key')}: ${some(unopened)}. ${cure}`);
  } else if (outdated > 0) {
    lines.push(`Not wrapped for exactly these: ${count(outdated, 'data key')}. \`dr keys rotate\` does it.`);
  } else if (list.keys > 0) lines.push('All of them are wrapped for exactly these.');
  for (const { vault, key, error } of damaged.slice(0, MOST_NAMES)) {
    lines.push(`DAMAGED: ${key} in vault ${vault}: ${error.message}. \`dr vault repair ${vault}\` mends it.`);
  }
  if (damaged.length > MOST_NAMES) lines.push(`… and ${damaged.length - MOST_NAMES} more damaged.`);
  for (const { vault, keys } of behind) {
    lines.push(
      `Vault ${vault} lacks the newest generation of ${count(keys, 'data key')}: \`dr vault repair ${vault}\` copies it.`,
    );
  }
  for (const { vault, reason } of away) lines.push(`Vault ${vault} cannot be asked: ${reason}`);
  return lines.join('\n');
}

const cure =
  'Add one of their recipients to the configuration, or run `dr keys rotate` with an identity that opens them.';

const columns: readonly Column<KeyList['openers'][number]>[] = [
  { title: 'OPENS WITH', value: ({ opener }) => opener },
  { title: 'CONFIGURED', value: ({ configured }) => (configured ? 'yes' : 'no') },
  { title: 'DATA KEYS', value: ({ opens }) => String(opens), align: 'right' },
  { title: 'BY OLD WRAPS', value: ({ opensOld }) => String(opensOld), align: 'right' },
];

/** `dr keys rotate` for people. */
export function renderRotation(result: RotateResult, removeOld: boolean): string {
  const { rewrapped, already, proven, failed, vaults, away, kept } = result;
  const lines = [
    `Data keys wrapped anew: ${rewrapped}; right already: ${already}${failed.length > 0 ? `; FAILED: ${failed.length}` : ''}.`,
  ];
  if (rewrapped > 0) {
    const unproven = rewrapped - proven;
    lines.push(
      unproven === 0
        ? 'Every new wrap was opened again with what you gave.'
        : `${unproven} new wraps were not tried: nothing that you gave opens them. They are for the configured recipients.`,
    );
  }
  for (const { vault, written, removed } of vaults) {
    lines.push(`Vault ${vault}: ${written} written${removeOld ? `, ${removed} old ones removed` : ''}.`);
  }
  for (const { vault, reason } of away) {
    lines.push(`Vault ${vault} was away (${reason}). The daemon copies the new wraps there when it is back.`);
  }
  for (const [message, ids] of Map.groupBy(failed, ({ error }) => error.message)) {
    const next = ids[0]?.error.next;
    lines.push(`FAILED: ${message}: ${some(ids.map(({ id }) => id))}.${next === undefined ? '' : ` ${next}`}`);
  }
  for (const { vault, objects, why } of kept) lines.push(`Vault ${vault} keeps ${count(objects, 'old wrap')}: ${why}.`);
  if (!removeOld && rewrapped > 0) {
    lines.push(
      'The old wraps are still there, and open for whoever could: `dr keys rotate --remove-old` removes them.',
    );
  }
  return lines.join('\n');
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, MOST_NAMES).join(', ');
  return names.length > MOST_NAMES ? `${shown} and ${names.length - MOST_NAMES} more` : shown;
}
