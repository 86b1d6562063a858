import type { ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import { refOf } from '../../cluster/contract.ts';
import { isJson, isSame } from '../../cluster/json.ts';
import { isManagersPath, type ManagersRecord, managersPath, parseObjectPath, readManagers } from '../objects/layout.ts';
import { readObject } from '../objects-restore/read.ts';
import { shownPair } from './mask.ts';
import type { Side, SideFile } from './side.ts';
import { type Hunk, hunksOf, linesOf } from './text-diff.ts';

/** Larger files are named, and their lines are not shown. */
const SHOWN_BYTES = 1024 * 1024;
/** Files read at once: what is in memory. */
const BATCH = 500;

/** Who changed an object, as the cluster tells it. */
export interface ChangedBy {
  readonly manager: string;
  /** `Apply` or `Update`. */
  readonly operation: string;
  /** ISO time. */
  readonly time?: string | undefined;
  /** Of the fields that changed those that it owns; empty when it is only known that it wrote last. */
  readonly fields: readonly string[];
}

export interface FileChange {
  readonly path: string;
  readonly status: 'added' | 'removed' | 'changed';
  /** Which object of a cluster the file is. */
  readonly object?: ObjectRef | undefined;
  readonly by: readonly ChangedBy[];
  /** Permission bits, where they differ. */
  readonly mode?: { readonly before: number; readonly after: number } | undefined;
  /** `binary` and `large` files are not shown line by line. */
  readonly content: 'text' | 'binary' | 'large' | 'same';
  readonly size: { readonly before: number; readonly after: number };
  readonly added: number;
  readonly removed: number;
  readonly hunks: readonly Hunk[];
}

export interface Comparison {
  readonly before: Pick<Side, 'name' | 'atMs' | 'where'>;
  readonly after: Pick<Side, 'name' | 'atMs' | 'where'>;
  /** By path. */
  readonly changes: readonly FileChange[];
  /** Files that are equal on both sides. */
  readonly unchanged: number;
}

/** What differs between two states. Only the content of files whose digests differ is read. */
export async function compareSides(before: Side, after: Side): Promise<Comparison> {
  const paths = [...new Set([...before.files.keys(), ...after.files.keys()])]
    .filter((path) => !isManagersPath(path))
    .sort();
  const differing = paths.filter((path) => {
    const [a, b] = [before.files.get(path), after.files.get(path)];
    return !a || !b || a.fingerprint !== b.fingerprint || a.mode !== b.mode;
  });
  const changes: FileChange[] = [];
  for (let at = 0; at < differing.length; at += BATCH) {
    const batch = differing.slice(at, at + BATCH);
    const [contentBefore, contentAfter] = await Promise.all([contentsOf(before, batch), contentsOf(after, batch)]);
    for (const path of batch) {
      const change = changeOf(path, { before, after, contentBefore, contentAfter });
      if (change) changes.push(change);
    }
  }
  const facts = ({ name, atMs, where }: Side) => ({ name, atMs, where });
  return { before: facts(before), after: facts(after), changes, unchanged: paths.length - changes.length };
}

interface Both {
  readonly before: Side;
  readonly after: Side;
  readonly contentBefore: ReadonlyMap<string, Buffer>;
  readonly contentAfter: ReadonlyMap<string, Buffer>;
}

/** What is shown of these files, and who changed them. */
async function contentsOf(side: Side, paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
  const wanted = paths.flatMap((path) => {
    const file = side.files.get(path);
    if (file?.type !== 'file' || file.size > SHOWN_BYTES) return [];
    return side.files.has(managersPath(path)) ? [path, managersPath(path)] : [path];
  });
  return await side.read(wanted);
}

function changeOf(path: string, both: Both): FileChange | undefined {
  const [a, b] = [both.before.files.get(path), both.after.files.get(path)];
  const status = a === undefined ? 'added' : b === undefined ? 'removed' : 'changed';
  const size = { before: a?.size ?? 0, after: b?.size ?? 0 };
  const mode = a && b && a.mode !== b.mode ? { before: a.mode, after: b.mode } : undefined;
  const base = { path, status, by: [], mode, size, added: 0, removed: 0, hunks: [] } as const;
  if ((a && a.type === 'file' && a.size > SHOWN_BYTES) || (b && b.type === 'file' && b.size > SHOWN_BYTES)) {
    if (a && b && a.fingerprint === b.fingerprint) return { ...base, content: 'same' };
    return { ...base, content: 'large' };
  }
  const [left, right] = [contentOf(a, both.contentBefore.get(path)), contentOf(b, both.contentAfter.get(path))];
  if (a && b && a.type === b.type && left.equals(right)) return mode && { ...base, content: 'same' };
  const isObject = parseObjectPath(path) !== undefined;
  if (!isObject && (isBinary(left) || isBinary(right))) return { ...base, content: 'binary' };
  const objects = isObject ? { before: a && objectOf(left, path), after: b && objectOf(right, path) } : undefined;
  const shown = objects
    ? shownPair(objects.before, objects.after)
    : { before: left.toString('utf8'), after: right.toString('utf8') };
  const hunks = hunksOf(linesOf(shown.before), linesOf(shown.after));
  const count = (mark: string) =>
    hunks.reduce((sum, { lines }) => sum + lines.filter((line) => line.startsWith(mark)).length, 0);
  const known = objects?.after ?? objects?.before;
  return {
    ...base,
    content: 'text',
    object: known && refOf(known),
    by: objects ? changedBy(path, objects, both) : [],
    added: count('+'),
    removed: count('-'),
    hunks,
  };
}

function objectOf(content: Buffer, path: string): ClusterObject {
  return readObject(content.toString('utf8'), path);
}

function contentOf(file: SideFile | undefined, content: Buffer | undefined): Buffer {
  return file?.type === 'link' ? Buffer.from(`${file.target ?? ''}\n`) : (content ?? Buffer.alloc(0));
}

function isBinary(content: Buffer): boolean {
  return content.subarray(0, 8000).includes(0) || !Buffer.from(content.toString('utf8')).equals(content);
}

/** Who made it what it is after, of those who had not written it before; of an object that is gone, who wrote it last. */
function changedBy(
  path: string,
  { before, after }: { readonly before: ClusterObject | undefined; readonly after: ClusterObject | undefined },
  { contentBefore, contentAfter }: Both,
): ChangedBy[] {
  const record = (contents: ReadonlyMap<string, Buffer>): ManagersRecord => {
    const text = contents.get(managersPath(path));
    return text ? readManagers(text.toString('utf8'), managersPath(path)) : [];
  };
  const [old, now] = [record(contentBefore), record(contentAfter)];
  const latest = (list: ManagersRecord) => list.slice(0, 1).map((each) => ({ ...each, fields: [] }));
  if (!after) return latest(old);
  if (!before) return latest(now);
  const changed = changedFields(before, after);
  const isOld = (each: ManagersRecord[number]) =>
    old.some(
      ({ manager, operation, time }) => manager === each.manager && operation === each.operation && time === each.time,
    );
  const fresh = now.filter((each) => !isOld(each));
  // Of who scaled, servers do not say when: it may have been again.
  const found = now
    .filter((each) => each.time === undefined || !isOld(each))
    .map((each) => ({ ...each, fields: changed.filter((field) => each.fields.some((own) => overlap(own, field))) }))
    .filter(({ fields }) => fields.length > 0);
  // Fields that were taken away have no owner any more: whoever wrote last did it.
  if (found.length > 0) return found;
  return latest(fresh);
}

/** Fields that differ, up to three levels: `spec.replicas`, `spec.template.spec`. */
function changedFields(before: unknown, after: unknown, path = '', depth = 3): string[] {
  if (isSame(before, after)) return [];
  if (depth === 0 || !isJson(before) || !isJson(after)) return [path];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) => changedFields(before[key], after[key], path === '' ? key : `${path}.${key}`, depth - 1));
}

function overlap(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}.`) || b.startsWith(`${a}.`);
}
