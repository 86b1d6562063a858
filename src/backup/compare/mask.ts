import type { ClusterObject } from '../../cluster/contract.ts';
import { isSame } from '../../cluster/json.ts';
import { toYaml } from '../objects/layout.ts';

/** What of a Secret is content. */
const contents = ['data', 'stringData'] as const;

/**
 * Two states of an object as YAML for people. Values of Secrets are never shown: only that they are there, and whether they differ.
 */
export function shownPair(
  before: ClusterObject | undefined,
  after: ClusterObject | undefined,
): { readonly before: string; readonly after: string } {
  const isSecret = (before ?? after)?.kind === 'Secret';
  const text = (object: ClusterObject | undefined, other: ClusterObject | undefined, word: string) =>
    object === undefined ? '' : toYaml(isSecret ? masked(object, other, word) : object);
  return { before: text(before, after, 'before'), after: text(after, before, 'after') };
}

function masked(object: ClusterObject, other: ClusterObject | undefined, word: string): object {
  const shown: Record<string, unknown> = { ...object };
  for (const part of contents) {
    const [mine, theirs] = [object[part], other?.[part]];
    if (typeof mine !== 'object' || mine === null) continue;
    const valueIn = (record: unknown, key: string) =>
      typeof record === 'object' && record !== null ? Reflect.get(record, key) : undefined;
    shown[part] = Object.fromEntries(
      Object.keys(mine).map((key) => {
        const isChanged = valueIn(theirs, key) !== undefined && !isSame(valueIn(mine, key), valueIn(theirs, key));
        return [key, isChanged ? `(secret, ${word})` : '(secret)'];
      }),
    );
  }
  // What kubectl applied last is a copy of everything.
  const { annotations, ...metadata } = object.metadata;
  const kept = Object.entries(annotations ?? {}).filter(([key]) => !key.endsWith('/last-applied-configuration'));
  shown['metadata'] = { ...metadata, ...(kept.length > 0 && { annotations: Object.fromEntries(kept) }) };
  return shown;
}
