import type { ClusterObject, ObjectType, Selection, WatchEvent } from '../contract.ts';
import type { Change } from './history.ts';
import type { MemoryObjects } from './objects.ts';
import { matcher } from './selectors.ts';

/**
 * The changes of the selected objects after `from`, as events, until the function that it returns is called. An object that
 * begins or ceases to match counts as added or deleted.
 */
export function watchObjects(
  objects: MemoryObjects,
  type: ObjectType,
  selection: Selection & { readonly from: number },
  tell: (event: WatchEvent) => void,
): () => void {
  const matches = matcher(selection);
  const onChange = ({ before, after }: Change): void => {
    const was = before !== undefined && matches(before);
    const is = after !== undefined && matches(after);
    const say = (name: 'added' | 'modified' | 'deleted', object: ClusterObject) =>
      tell({ type: name, object: { ...object, apiVersion: type.apiVersion } });
    if (is) say(was ? 'modified' : 'added', after);
    else if (was) say('deleted', after === undefined ? before : withVersion(before, after));
  };
  const onBookmark = (revision: number) => tell({ type: 'bookmark', resourceVersion: String(revision) });
  return objects.history.watch(objects.tableOf(type), selection.from, { onChange, onBookmark });
}

/** An object that only left the selection is told as it was, at the moment when it left. */
function withVersion(before: ClusterObject, { metadata }: ClusterObject): ClusterObject {
  return { ...before, metadata: { ...before.metadata, resourceVersion: metadata.resourceVersion ?? '' } };
}
