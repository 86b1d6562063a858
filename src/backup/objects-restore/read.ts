import { parse } from 'yaml';
import { DrError } from '../../base/errors.ts';
import type { ClusterObject, ObjectMeta } from '../../cluster/contract.ts';
import { type ClusterSummary, parseObjectPath, readSummary, summaryPath } from '../objects/layout.ts';
import { type BackupSource, indexOfFiles, readFiles } from '../read-files.ts';
import { isDraft } from './draft.ts';

/** The objects of a cluster as a backup has them. */
export interface BackedObjects {
  readonly summary: ClusterSummary;
  readonly objects: readonly ClusterObject[];
}

/**
 * Reads the objects of a backup into memory, without who changed them. Throws `usage` for a backup that is not of a cluster, `corrupt`, or
 * what the vault throws.
 */
export async function readBackedObjects(source: BackupSource, signal?: AbortSignal): Promise<BackedObjects> {
  const { store, manifest } = source;
  const index = await indexOfFiles(source, signal);
  const where = `${store.location}, backup ${manifest.id}`;
  if (!index.has(summaryPath))
    throw new DrError('usage', `backup ${manifest.id} of ${manifest.resource} holds no objects of a cluster`, {
      where,
      next: `Restore it into a folder: dr restore ${manifest.resource} --to DIR.`,
    });
  const wanted = [...index.values()].filter(({ path }) => {
    const name = path.toString('utf8');
    return name === summaryPath || parseObjectPath(name) !== undefined;
  });
  const files = await readFiles(source, wanted, signal);
  const summary = readSummary(files.get(summaryPath)?.toString('utf8') ?? '', `${summaryPath} of ${where}`);
  files.delete(summaryPath);
  return {
    summary,
    objects: [...files].map(([path, content]) => readObject(content.toString('utf8'), `${path} of ${where}`)),
  };
}

/** Reads the file of one object; throws `corrupt` naming `where`. */
export function readObject(text: string, where: string): ClusterObject {
  const damaged = (cause?: unknown) =>
    new DrError('corrupt', 'this file of the backup is no object of a cluster', {
      where,
      next: 'Read it from another vault (--vault NAME), or use the version of dr that wrote it.',
      cause,
    });
  let value: unknown;
  try {
    value = parsed(text);
  } catch (cause) {
    throw damaged(cause);
  }
  if (!isDraft(value)) throw damaged();
  const { apiVersion, kind, metadata } = value;
  if (typeof apiVersion !== 'string' || typeof kind !== 'string' || !isMeta(metadata)) throw damaged();
  return { ...value, apiVersion, kind, metadata };
}

/** Whole numbers that a number cannot hold are `bigint`, as they are when they come from a cluster. */
function parsed(text: string): unknown {
  if (!/\d{16}/.test(text)) return parse(text);
  const asNumber = (_key: unknown, each: unknown) =>
    typeof each === 'bigint' && Number.isSafeInteger(Number(each)) ? Number(each) : each;
  return parse(text, asNumber, { intAsBigInt: true });
}

function isMeta(value: unknown): value is ObjectMeta {
  return isDraft(value) && typeof value['name'] === 'string';
}
