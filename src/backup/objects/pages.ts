import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, ObjectType, Selection } from '../../cluster/contract.ts';
import { isExpired } from '../../cluster/errors.ts';
import { jsonText } from '../../cluster/json.ts';

/** Objects of the first page: even when each is as large as the server takes (about 1.5 MB), a page fits into memory. */
const FIRST_PAGE = 50;
const LARGEST_PAGE = 500;
/** What a page should have, bytes: as many objects as that are asked for at once. */
const PAGE_BYTES = 4 * 1024 * 1024;
/** So often a list begins anew because the server forgot its pages while they were read. */
const RESTARTS = 3;

/**
 * All objects of a kind, page by page, with pages of a size that fits memory. When the server forgets the list in between it begins anew, in
 * larger pages: then some objects come twice. A page that the server refuses to give is asked for in smaller ones.
 */
export async function* pagesOf(
  cluster: Cluster,
  type: ObjectType,
  selection: Selection,
  signal?: AbortSignal,
): AsyncGenerator<readonly ClusterObject[]> {
  let limit = FIRST_PAGE;
  let next: string | undefined;
  let restarts = 0;
  for (;;) {
    let page: Awaited<ReturnType<Cluster['list']>>;
    try {
      page = await cluster.list(type, { ...selection, limit, continue: next }, signal);
    } catch (error) {
      if (!(error instanceof DrError)) throw error;
      if (isExpired(error) && restarts < RESTARTS) {
        restarts++;
        next = undefined;
        // The last time in one piece: that cannot be forgotten in between.
        limit = restarts === RESTARTS ? 0 : LARGEST_PAGE;
        continue;
      }
      if (error.kind === 'refused' && limit > 1) {
        limit = Math.max(1, Math.floor(limit / 10));
        continue;
      }
      throw error;
    }
    yield page.objects;
    if (page.continue === undefined) return;
    next = page.continue;
    limit = Math.max(1, Math.min(LARGEST_PAGE, Math.floor(PAGE_BYTES / largest(page.objects))));
  }
}

/** About the bytes of the largest of some objects. */
function largest(objects: readonly ClusterObject[]): number {
  // A look at some is enough: what follows is mostly alike.
  const step = Math.max(1, Math.floor(objects.length / 10));
  let most = 1024;
  for (let i = 0; i < objects.length; i += step) most = Math.max(most, jsonText(objects[i]).length);
  return most;
}
