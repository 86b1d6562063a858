import { DrError } from '../../base/errors.ts';
import type { Cluster } from '../../cluster/contract.ts';
import type { ObjectsConfig } from '../../config/types.ts';
import {
  isManagersPath,
  managersPath,
  objectPath,
  parseObjectPath,
  readSummary,
  summaryPath,
  toYaml,
} from '../objects/layout.ts';
import { type ObjectFile, readObjects } from '../objects/read-objects.ts';
import { readObject } from '../objects-restore/read.ts';
import { type Renames, rename } from '../objects-restore/rename.ts';
import { memorySide, type Side } from './side.ts';

/** Permission bits of the files of such a backup. */
const FILE_MODE = 0o600;

/**
 * The objects of a cluster as they are now, in the form of a backup of them; with `renames`, as if namespaces were called there as where
 * the other side comes from.
 */
export async function liveCluster(
  cluster: Cluster,
  { select, exclude }: Pick<ObjectsConfig, 'select' | 'exclude'>,
  nowMs: number,
  signal: AbortSignal,
  renames: Renames = new Map(),
): Promise<Side> {
  const contents = new Map<string, Buffer>();
  const take = async (file: ObjectFile) => {
    const { path, text } = renames.size === 0 ? file : renamed(file, renames);
    contents.set(path, Buffer.from(text));
  };
  await readObjects({ cluster, select, exclude, signal }, take).catch((error: unknown) => {
    if (!(error instanceof DrError) || error.kind !== 'not-found') throw error;
    const { message, next } = error;
    throw new DrError('not-found', `nothing of this configuration is there: ${message}`, {
      where: `${cluster.target}, ${select.namespaces ? `namespaces ${select.namespaces.join(', ')}` : `selector ${select.selector}`}`,
      ...(next !== undefined && { next }),
      cause: error,
    });
  });
  return memorySide({ name: 'live', atMs: nowMs, where: cluster.target }, contents, FILE_MODE);
}

function renamed({ path, text }: ObjectFile, renames: Renames): Pick<ObjectFile, 'path' | 'text'> {
  const called = (namespace: string) => renames.get(namespace) ?? namespace;
  if (path === summaryPath) {
    const summary = readSummary(text, path);
    return { path, text: toYaml({ ...summary, namespaces: summary.namespaces.map(called).sort() }) };
  }
  const isManagers = isManagersPath(path);
  const key = parseObjectPath(isManagers ? path.slice(managersPath('').length) : path);
  if (key === undefined) return { path, text };
  const isNamespace = key.group === '' && key.kind === 'Namespace';
  const there = {
    ...key,
    ...(key.namespace !== undefined && { namespace: called(key.namespace) }),
    ...(isNamespace && { name: called(key.name) }),
  };
  if (isManagers) return { path: managersPath(objectPath(there)), text };
  const object = structuredClone(readObject(text, path));
  rename(object, renames);
  return { path: objectPath(there), text: toYaml(object) };
}
