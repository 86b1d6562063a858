import type { Cluster } from '../../cluster/contract.ts';
import type { ObjectsConfig } from '../../config/types.ts';
import { readObjects } from '../objects/read-objects.ts';
import { memorySide, type Side } from './side.ts';

/** Permission bits of the files of such a backup. */
const FILE_MODE = 0o600;

/** The objects of a cluster as they are now, in the form of a backup of them. */
export async function liveCluster(
  cluster: Cluster,
  { select, exclude }: Pick<ObjectsConfig, 'select' | 'exclude'>,
  nowMs: number,
  signal: AbortSignal,
): Promise<Side> {
  const contents = new Map<string, Buffer>();
  await readObjects({ cluster, select, exclude, signal }, async ({ path, text }) => {
    contents.set(path, Buffer.from(text));
  });
  return memorySide({ name: 'live', atMs: nowMs, where: cluster.target }, contents, FILE_MODE);
}
